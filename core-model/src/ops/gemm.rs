//! Matrix products of one thread; the operations divide their work among threads themselves.

use std::ops::Range;

pub(super) use super::kernel::Start;
use super::kernel::{Columns, DEPTH, MANY, Product, Steps, panel_width, panels};
use super::memory::{Output, View, copy_row, run, with_scratch};
use super::transpose::transpose;

/// `target = start + left right`; left is [m, k], right [k, n].
///
/// # Safety
/// The three matrices lie within live buffers, and nothing else reads or writes the target's
/// elements meanwhile.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
pub(super) unsafe fn gemm(
    [m, n, k]: [usize; 3],
    target: View,
    start: Start,
    left: View,
    right: View,
) {
    let forward = [target.row, left.row, left.column, right.row];
    if right.column == 1 && target.column == 1 && forward.iter().all(|&stride| stride >= 0) {
        // SAFETY: the caller vouches for the matrices.
        unsafe { by_rows([m, n, k], target, start, left, Right::Rows(right)) };
        return;
    }
    // SAFETY: the caller vouches for the matrices.
    unsafe {
        let add = write(start, [m, n], target);
        gemm::gemm(
            m,
            n,
            k,
            target.at.cast_mut(),
            target.column,
            target.row,
            add,
            left.at,
            left.column,
            left.row,
            right.at,
            right.column,
            right.row,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Writes to a target what a product is to be added to; whether there is anything.
///
/// # Safety
/// As [`gemm`].
#[expect(unsafe_code, reason = "a matrix with arbitrary strides")]
unsafe fn write(start: Start, [m, n]: [usize; 2], target: View) -> bool {
    let fill = |value: &dyn Fn(usize, usize) -> f32| {
        for row in 0..m {
            for column in 0..n {
                // SAFETY: an element of the target.
                unsafe { *target.from(row, column).at.cast_mut() = value(row, column) };
            }
        }
    };
    match start {
        Start::Zero => return false,
        Start::Target => {}
        Start::Rows(rows) => fill(&|row, _| rows[row]),
        Start::Columns(columns) => fill(&|_, column| columns[column]),
        Start::Resumed(_) => unreachable!("only the kernel resumes its own sums"),
    }
    true
}

/// Elements of a right matrix that is read as it lies.
const SMALL: usize = 8192;

/// Sums that stay in a second-level cache beside what they are made of.
const CACHED: usize = 1 << 17;

/// The right matrix of a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right {
    /// As it is.
    Rows(View),
    /// Its transposed, with adjacent columns: it is turned a panel at a time.
    Turned(View),
    /// The panels that products read, one after the other from the view's address.
    Packed(View),
}

/// Whether a product [m, n, k] reads its right matrix in panels: it is larger than a cache, and many
/// left rows meet it.
pub(super) fn reads_panels([m, n, k]: [usize; 3]) -> bool {
    m >= MANY && k * n > SMALL
}

/// [`gemm`] with a right matrix of any kind.
///
/// # Safety
/// As [`gemm`]; the target's columns are adjacent where the right matrix is turned or packed.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
pub(super) unsafe fn gemm_by(
    sizes: [usize; 3],
    target: View,
    start: Start,
    left: View,
    right: Right,
) {
    // SAFETY: the caller vouches for the matrices.
    match right {
        Right::Rows(right) => unsafe { gemm(sizes, target, start, left, right) },
        Right::Turned(View { column, .. }) | Right::Packed(View { column, .. }) => {
            assert!(column == 1 && target.column == 1, "columns lie apart");
            unsafe { by_rows(sizes, target, start, left, right) };
        }
    }
}

impl Right {
    /// Without the first columns.
    ///
    /// # Panics
    /// For panels, which are read as a whole.
    pub(super) fn skip_columns(self, column: usize) -> Self {
        match self {
            Right::Rows(right) => Right::Rows(right.from(0, column)),
            Right::Turned(turned) => Right::Turned(turned.from(column, 0)),
            Right::Packed(_) => panic!("panels are read as a whole"),
        }
    }

    /// Whether [`Self::packed`] can read it.
    pub(super) fn is_packable(self) -> bool {
        match self {
            Right::Rows(matrix) | Right::Turned(matrix) => matrix.column == 1 && matrix.row >= 0,
            Right::Packed(_) => false,
        }
    }

    /// The same [k, n] matrix for several products: its panels in `target`, which is as large.
    ///
    /// # Safety
    /// The matrix is alive, with adjacent columns of what it was given as, and no stride is negative.
    #[expect(unsafe_code, reason = "a matrix given by its address")]
    pub(super) unsafe fn packed(self, [k, n]: [usize; 2], target: &mut [f32]) -> Self {
        for piece in pieces([k, n]) {
            let target = &mut target[piece.start..][..piece.depth * piece.columns];
            // SAFETY: a part of the caller's matrix.
            unsafe { self.pack(piece.at, piece.columns, target) };
        }
        Right::Packed(View::rows(target, n))
    }

    /// [`Self::packed`] by all threads.
    ///
    /// # Safety
    /// As there.
    #[expect(unsafe_code, reason = "a matrix given by its address")]
    pub(super) unsafe fn packed_by_all(self, [k, n]: [usize; 2], target: &mut [f32]) -> Self {
        let pieces: Vec<Piece> = pieces([k, n]).collect();
        let shared = Output::new(target);
        run(pieces.len(), k * n, |i| {
            let piece = pieces[i];
            // SAFETY: pieces do not overlap, and each is a part of the caller's matrix.
            unsafe {
                let target = shared.part(piece.start, piece.depth * piece.columns);
                self.pack(piece.at, piece.columns, target);
            }
        });
        Right::Packed(View::rows(target, n))
    }

    /// The panel of `depth` rows and `columns` columns from a place on, of the `n` columns that there are:
    /// a copy in `scratch` unless it lies in panels already.
    ///
    /// # Safety
    /// It lies within the matrix.
    #[expect(unsafe_code, reason = "a matrix given by its address")]
    unsafe fn panel(
        self,
        [row, column]: [usize; 2],
        [depth, columns]: [usize; 2],
        n: usize,
        scratch: &mut [f32],
    ) -> *const f32 {
        if let Right::Packed(packed) = self {
            return packed.at.wrapping_add(panel_start(row, depth, column, n));
        }
        let panel = &mut scratch[..depth * columns];
        // SAFETY: passed on.
        unsafe { self.pack([row, column], columns, panel) };
        panel.as_ptr()
    }

    /// Copies as many rows as `panel` has place for, from `row` on, of `columns` columns from `column`
    /// on, into rows that are `columns` wide.
    ///
    /// # Safety
    /// They lie within the matrix.
    #[expect(unsafe_code, reason = "a matrix given by its address")]
    unsafe fn pack(self, [row, column]: [usize; 2], columns: usize, panel: &mut [f32]) {
        match self {
            Right::Rows(right) => {
                for (i, panel) in panel.chunks_exact_mut(columns).enumerate() {
                    let source = right.from(row + i, column).at;
                    // SAFETY: this part of a row lies within the right matrix.
                    let source = unsafe { std::slice::from_raw_parts(source, columns) };
                    copy_row(source, panel);
                }
            }
            Right::Turned(turned) => {
                let rows = panel.len() / columns;
                // SAFETY: these columns are rows of the transposed matrix.
                unsafe { transpose(turned.from(column, row), columns, rows, panel) };
            }
            Right::Packed(_) => unreachable!("panels are not packed again"),
        }
    }
}

/// Some columns of a part of a packed matrix.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it lies in the packed matrix.
    start: usize,
    /// Its first row and column.
    at: [usize; 2],
    depth: usize,
    columns: usize,
}

/// All of a packed matrix [k, n].
fn pieces([k, n]: [usize; 2]) -> impl Iterator<Item = Piece> {
    (0..k).step_by(DEPTH).flat_map(move |row| {
        let depth = DEPTH.min(k - row);
        panels(n).map(move |(column, columns)| Piece {
            start: panel_start(row, depth, column, n),
            at: [row, column],
            depth,
            columns,
        })
    })
}

/// Where row `k` of a packed matrix [rows, n] lies: the beginning of each of its parts, and the columns
/// that it has.
pub(super) fn packed_row(
    k: usize,
    [rows, n]: [usize; 2],
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let first_row = k - k % DEPTH;
    let depth = DEPTH.min(rows - first_row);
    panels(n).map(move |(first_column, columns)| {
        let start = panel_start(first_row, depth, first_column, n) + (k - first_row) * columns;
        (start, first_column..first_column + columns)
    })
}

/// Where the panel of a packed matrix of `n` columns begins.
fn panel_start(first_row: usize, depth: usize, first_column: usize, n: usize) -> usize {
    first_row * n + depth * first_column
}

/// [`gemm`] of a right matrix and target with adjacent columns.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
unsafe fn by_rows([m, n, k]: [usize; 3], target: View, start: Start, left: View, right: Right) {
    let product = Product {
        rows: m,
        depth: k,
        left: left.at,
        left_rows: Steps::Stride(left.row as usize),
        left_column: left.column as usize,
        right: std::ptr::null(),
        right_rows: Steps::Stride(0),
        columns: Columns::First(n),
        target: target.at.cast_mut(),
        target_row: target.row as usize,
        start,
    };
    // Sums are finished every DEPTH terms, whatever the numbers of rows and columns: a value has the
    // same bits however many others are computed with it.
    let parts = (0..k.max(1)).step_by(DEPTH).map(|first_row| Product {
        depth: DEPTH.min(k - first_row),
        left: left.from(0, first_row).at,
        start: match first_row {
            0 => product.start,
            _ => Start::Target,
        },
        ..product
    });
    let parts = parts.enumerate().map(|(i, part)| (i * DEPTH, part));
    if let (Right::Rows(right), false) = (right, reads_panels([m, n, k])) {
        for (first_row, part) in parts {
            let part = Product {
                right: right.from(first_row, 0).at,
                right_rows: Steps::Stride(right.row as usize),
                ..part
            };
            // SAFETY: parts of the caller's matrices.
            unsafe { part.run() };
        }
        return;
    }
    // A right matrix larger than the cache is read in panels, each copied to lie in sequence. Parts follow
    // each other while their sums are in a cache.
    let at_once = (CACHED / (m.max(1) * panel_width())).max(1);
    let groups = (0..panels(n).count()).step_by(at_once);
    with_scratch(DEPTH * panel_width(), |scratch| {
        for group in groups {
            for (first_row, part) in parts.clone() {
                for (first_column, columns) in panels(n).skip(group).take(at_once) {
                    let at = [first_row, first_column];
                    // SAFETY: a part of the caller's matrix.
                    let panel = unsafe { right.panel(at, [part.depth, columns], n, scratch) };
                    let part = Product {
                        right: panel,
                        right_rows: Steps::Stride(columns),
                        columns: Columns::First(columns),
                        target: target.from(0, first_column).at.cast_mut(),
                        start: part.start.columns(first_column, columns),
                        ..part
                    };
                    // SAFETY: a part of the caller's matrices and the panel just written.
                    unsafe { part.run() };
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of small integers, exact in float32.
    #[test]
    #[expect(unsafe_code, reason = "matrices are given by their addresses")]
    fn every_start_is_added_once_to_the_exact_product() {
        // Read as it lies; in panels of one part; in panels of several parts and several times as many
        // columns as are summed at once.
        for [m, n, k] in [[3, 5, 4], [30, 101, 90], [2000, 101, 400]] {
            let numbers = |count: usize, most: usize| {
                let numbers = (0..count).map(|i| (i % most) as f32 - 2.0);
                numbers.collect::<Vec<f32>>()
            };
            let (left, right) = (numbers(m * k, 7), numbers(k * n, 5));
            let mut turned = vec![0.0; k * n];
            for (i, turned) in turned.iter_mut().enumerate() {
                *turned = right[i % k * n + i / k];
            }
            let (rows, columns) = (numbers(m, 3), numbers(n, 11));
            for (start, name) in [
                (Start::Zero, "nothing"),
                (Start::Target, "the target"),
                (Start::Rows(&rows), "rows"),
                (Start::Columns(&columns), "columns"),
            ] {
                let exact = |i: usize| {
                    let (row, column) = (i / n, i % n);
                    let first = match start {
                        Start::Target => 9.0,
                        Start::Rows(rows) => rows[row],
                        Start::Columns(columns) => columns[column],
                        _ => 0.0,
                    };
                    let terms = left[row * k..][..k].iter().zip(&turned[column * k..][..k]);
                    first + terms.map(|(left, right)| left * right).sum::<f32>()
                };
                let exact: Vec<f32> = (0..m * n).map(exact).collect();
                let by_columns = View::rows(&turned, k);
                for right in [
                    Right::Rows(View::rows(&right, n)),
                    Right::Turned(by_columns),
                    Right::Rows(by_columns.transposed()),
                ] {
                    let mut product = vec![9.0; m * n];
                    let target = Output::new(&mut product).view(0, n, 1);
                    // SAFETY: the sizes are those of the vectors.
                    unsafe { gemm_by([m, n, k], target, start, View::rows(&left, k), right) };
                    assert_eq!(product, exact, "{m} x {n} x {k} onto {name}, {right:?}");
                }
            }
        }
    }
}
