//! Matrix products of one thread; the operations divide their work among threads themselves.

use super::kernel::{Columns, DEPTH, MANY, Product, Start, Steps, panel_width};
use super::memory::{View, copy_row, with_scratch};

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
        unsafe { by_rows([m, n, k], target, add, left, right) };
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

/// [`gemm`] of a right matrix and target with adjacent columns.
#[expect(
    unsafe_code,
    reason = "matrices with arbitrary strides in shared buffers"
)]
unsafe fn by_rows([m, n, k]: [usize; 3], target: View, add: bool, left: View, right: View) {
    let product = Product {
        rows: m,
        depth: k,
        left: left.at,
        left_rows: Steps::Stride(left.row as usize),
        left_column: left.column as usize,
        right: right.at,
        right_rows: Steps::Stride(right.row as usize),
        columns: Columns::First(n),
        target: target.at.cast_mut(),
        target_row: target.row as usize,
        start: if add { Start::Target } else { Start::Zero },
    };
    // Sums are finished every DEPTH terms, whatever the numbers of rows and columns: a value has the
    // same bits however many others are computed with it.
    let depths = (0..k).step_by(DEPTH);
    let part = |first_row: usize| Product {
        depth: DEPTH.min(k - first_row),
        left: left.from(0, first_row).at,
        right: right.from(first_row, 0).at,
        start: match first_row {
            0 => product.start,
            _ => Start::Target,
        },
        ..product
    };
    let is_large = m >= MANY && k * n > 8192;
    if k <= DEPTH && !is_large {
        // SAFETY: the caller vouches for the matrices.
        unsafe { product.run() };
        return;
    }
    if !is_large {
        // SAFETY: parts of the caller's matrices.
        depths.for_each(|first_row| unsafe { part(first_row).run() });
        return;
    }
    // A right matrix larger than the cache is copied a panel at a time, to be read in sequence.
    let width = panel_width();
    with_scratch(DEPTH * width, |panel| {
        for first_row in depths {
            let part = part(first_row);
            for first_column in (0..n).step_by(width) {
                let columns = width.min(n - first_column);
                let source = right.from(first_row, first_column);
                for (i, row) in panel.chunks_exact_mut(width).take(part.depth).enumerate() {
                    let source = source.from(i, 0).at;
                    // SAFETY: this part of a row lies within the right matrix.
                    let source = unsafe { std::slice::from_raw_parts(source, columns) };
                    copy_row(source, &mut row[..columns]);
                }
                let part = Product {
                    right: panel.as_ptr(),
                    right_rows: Steps::Stride(width),
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
