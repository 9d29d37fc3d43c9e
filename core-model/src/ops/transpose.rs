//! Transposition of matrices.

use super::memory::View;

/// Side of the squares in which it is done.
const SIDE: usize = 16;

/// The transposed of a matrix [rows, columns] in contiguous memory: [columns, rows].
///
/// # Safety
/// The view is of live memory with at least these rows and columns.
#[expect(unsafe_code, reason = "a matrix with arbitrary strides")]
pub(super) unsafe fn transpose(source: View, rows: usize, columns: usize, target: &mut [f32]) {
    assert!(target.len() >= rows * columns, "the target is too small");
    let mut whole = 0;
    #[cfg(target_arch = "x86_64")]
    if source.column == 1 && super::instruction_set::level() == super::instruction_set::Level::Avx512 {
        whole = columns - columns % SIDE;
        for row in (0..rows - rows % SIDE).step_by(SIDE) {
            for column in (0..whole).step_by(SIDE) {
                let target = target[column * rows + row..].as_mut_ptr();
                // SAFETY: a whole square of source and target; the processor was asked.
                unsafe { x86::square(source.from(row, column), target, rows) };
            }
        }
    }
    for first in (0..rows).step_by(SIDE) {
        let count = SIDE.min(rows - first);
        let done = if count == SIDE { whole } else { 0 };
        for column in done..columns {
            let target = &mut target[column * rows + first..][..count];
            for (i, target) in target.iter_mut().enumerate() {
                // SAFETY: within the rows and columns that the caller vouches for.
                *target = unsafe { *source.from(first + i, column).at };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, called where the processor has them"
)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{SIDE, View};

    /// Transposes 16 rows of 16 adjacent columns into rows of `target` that are `stride` apart.
    ///
    /// # Safety
    /// Both squares are in live memory, and the processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn square(source: View, target: *mut f32, stride: usize) {
        let mut a = [_mm512_setzero_ps(); SIDE];
        for (i, a) in a.iter_mut().enumerate() {
            // SAFETY: row i of the square.
            *a = unsafe { _mm512_loadu_ps(source.from(i, 0).at) };
        }
        // pairs of rows, then fours: b[4 j + c] holds columns c, 4 + c, 8 + c, 12 + c of rows 4 j..
        let mut b = a;
        for j in 0..4 {
            let low = [
                _mm512_castps_pd(_mm512_unpacklo_ps(a[4 * j], a[4 * j + 1])),
                _mm512_castps_pd(_mm512_unpacklo_ps(a[4 * j + 2], a[4 * j + 3])),
            ];
            let high = [
                _mm512_castps_pd(_mm512_unpackhi_ps(a[4 * j], a[4 * j + 1])),
                _mm512_castps_pd(_mm512_unpackhi_ps(a[4 * j + 2], a[4 * j + 3])),
            ];
            b[4 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
            b[4 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
            b[4 * j + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
            b[4 * j + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
        }
        for c in 0..4 {
            let even = [
                _mm512_shuffle_f32x4::<0x88>(b[c], b[4 + c]),
                _mm512_shuffle_f32x4::<0x88>(b[8 + c], b[12 + c]),
            ];
            let odd = [
                _mm512_shuffle_f32x4::<0xdd>(b[c], b[4 + c]),
                _mm512_shuffle_f32x4::<0xdd>(b[8 + c], b[12 + c]),
            ];
            let columns = [
                (c, _mm512_shuffle_f32x4::<0x88>(even[0], even[1])),
                (4 + c, _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1])),
                (8 + c, _mm512_shuffle_f32x4::<0xdd>(even[0], even[1])),
                (12 + c, _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1])),
            ];
            for (column, values) in columns {
                // SAFETY: row `column` of the target square.
                unsafe { _mm512_storeu_ps(target.add(column * stride), values) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "matrices are given by address")]
    fn rows_become_columns() {
        for (rows, columns) in [(1, 1), (16, 16), (35, 50), (48, 7), (5, 33)] {
            let source: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let mut target = vec![-1.0; rows * columns];
            // SAFETY: the sizes are those of the vectors.
            unsafe { transpose(View::rows(&source, columns), rows, columns, &mut target) };
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(target[c * rows + r], source[r * columns + c]);
                }
            }
        }
    }
}
