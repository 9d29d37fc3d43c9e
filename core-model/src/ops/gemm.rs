//! Matrix products of one thread; the operations divide their work among threads themselves.

use std::ops::Range;

use super::kernel::{Columns, DEPTH, MANY, Product, Start, Steps, panel_width, panels};
use super::memory::{View, copy_row, with_scratch};
use super::transpose::transpose;

/// `target = left right`, or `target += left right` with `add`; left is [m, k], right [k, n].
///
/// # Safety
/// The three matrices lie within live buffers, and nothing else reads or writes the target's
/// elements meanwhile.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
pub(super) unsafe fn gemm([m, n, k]: [usize; 3], target: View, add: bool, left: View, right: View) {
    let forward = [target.row, left.row, left.column, right.row];
    if right.column == 1 && target.column == 1 && forward.iter().all(|&stride| stride >= 0) {
        // SAFETY: the caller vouches for the matrices.
        unsafe { by_rows([m, n, k], target, add, left, Right::Rows(right)) };
        return;
    }
    // SAFETY: the caller vouches for the matrices.
    unsafe {
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

/// Elements of a right matrix that is read as it lies.
const SMALL: usize = 8192;

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
pub(super) unsafe fn gemm_by(sizes: [usize; 3], target: View, add: bool, left: View, right: Right) {
    // SAFETY: the caller vouches for the matrices.
    match right {
        Right::Rows(right) => unsafe { gemm(sizes, target, add, left, right) },
        Right::Turned(View { column, .. }) | Right::Packed(View { column, .. }) => {
            assert!(column == 1 && target.column == 1, "columns lie apart");
            unsafe { by_rows(sizes, target, add, left, right) };
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

    /// The same [k, n] matrix for several products: its panels in `target`, which is as large.
    ///
    /// # Safety
    /// The matrix is alive, with adjacent columns of what it was given as, and no stride is negative.
    #[expect(unsafe_code, reason = "a matrix given by its address")]
    pub(super) unsafe fn packed(self, [k, n]: [usize; 2], target: &mut [f32]) -> Self {
        for first_row in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - first_row);
            for (first_column, columns) in panels(n) {
                let start = panel_start(first_row, depth, first_column, n);
                let panel = &mut target[start..][..depth * columns];
                // SAFETY: a part of the caller's matrix.
                unsafe { self.pack([first_row, first_column], columns, panel) };
            }
        }
        Right::Packed(View::rows(target, n))
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
unsafe fn by_rows([m, n, k]: [usize; 3], target: View, add: bool, left: View, right: Right) {
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
        start: if add { Start::Target } else { Start::Zero },
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
    // A right matrix larger than the cache is read in panels, each copied to lie in sequence.
    with_scratch(DEPTH * panel_width(), |scratch| {
        for (first_row, part) in parts {
            for (first_column, columns) in panels(n) {
                let panel = match right {
                    Right::Packed(panels) => {
                        let start = panel_start(first_row, part.depth, first_column, n);
                        panels.at.wrapping_add(start)
                    }
                    right => {
                        let panel = &mut scratch[..part.depth * columns];
                        // SAFETY: a part of the caller's matrix.
                        unsafe { right.pack([first_row, first_column], columns, panel) };
                        panel.as_ptr()
                    }
                };
                let part = Product {
                    right: panel,
                    right_rows: Steps::Stride(columns),
                    columns: Columns::First(columns),
                    target: target.from(0, first_column).at.cast_mut(),
                    ..part
                };
                // SAFETY: a part of the caller's matrices and the panel just written.
                unsafe { part.run() };
            }
        }
    });
}
