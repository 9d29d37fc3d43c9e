//! Transposition of matrices.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::instruction_set::{Level, level};
use super::memory::View;

/// Side of the squares in which it is done where no vector instructions are at hand.
const SIDE: usize = 16;

/// Transposes a square at a view into rows of a target that are so many floats apart.
#[cfg(target_arch = "x86_64")]
type Square = unsafe fn(View, *mut f32, usize);

/// The transposed of a matrix [rows, columns] in contiguous memory: [columns, rows].
///
/// # Safety
/// The view is of live memory with at least these rows and columns.
#[expect(unsafe_code, reason = "a matrix with arbitrary strides")]
pub(super) unsafe fn transpose(source: View, rows: usize, columns: usize, target: &mut [f32]) {
    assert!(target.len() >= rows * columns, "the target is too small");
    // SAFETY: passed on, and the target has place for all rows.
    unsafe { transpose_to(source, rows, columns, target.as_mut_ptr(), rows) };
}

/// [`transpose`] into rows that begin `stride` floats apart.
///
/// # Safety
/// As there; the target's rows are in live memory that nothing else uses.
#[expect(unsafe_code, reason = "matrices with arbitrary strides")]
pub(super) unsafe fn transpose_to(
    source: View,
    rows: usize,
    columns: usize,
    target: *mut f32,
    stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if source.column == 1 && level() != Level::Any {
        let (side, square): (usize, Square) = match level() {
            Level::Avx512 => (16, x86::sixteen),
            _ => (8, x86::eight),
        };
        let (whole_rows, whole_columns) = (rows - rows % side, columns - columns % side);
        // SAFETY: whole squares and the rest of source and target; the processor was asked.
        unsafe {
            for row in (0..whole_rows).step_by(side) {
                for column in (0..whole_columns).step_by(side) {
                    let target = target.add(column * stride + row);
                    square(source.from(row, column), target, stride);
                }
            }
            one_by_one(
                source,
                0..whole_rows,
                whole_columns..columns,
                target,
                stride,
            );
            one_by_one(source, whole_rows..rows, 0..columns, target, stride);
        }
        return;
    }
    // SAFETY: passed on.
    unsafe { one_by_one(source, 0..rows, 0..columns, target, stride) };
}

/// [`transpose_to`] of some rows and columns.
#[expect(unsafe_code, reason = "matrices with arbitrary strides")]
unsafe fn one_by_one(
    source: View,
    rows: Range<usize>,
    columns: Range<usize>,
    target: *mut f32,
    stride: usize,
) {
    for first in rows.clone().step_by(SIDE) {
        for column in columns.clone() {
            for row in first..rows.end.min(first + SIDE) {
                // SAFETY: within the rows and columns that the caller vouches for.
                unsafe { *target.add(column * stride + row) = *source.from(row, column).at };
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

    use super::View;

    /// Transposes 8 rows of 8 adjacent columns into rows of `target` that are `stride` apart.
    ///
    /// # Safety
    /// Both squares are in live memory, and the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn eight(source: View, target: *mut f32, stride: usize) {
        let mut a = [_mm256_setzero_ps(); 8];
        for (i, a) in a.iter_mut().enumerate() {
            // SAFETY: row i of the square.
            *a = unsafe { _mm256_loadu_ps(source.from(i, 0).at) };
        }
        // fours of rows: b[4 j + c] holds columns c and 4 + c of rows 4 j..
        let mut b = a;
        for j in 0..2 {
            let low = [
                _mm256_unpacklo_ps(a[4 * j], a[4 * j + 1]),
                _mm256_unpacklo_ps(a[4 * j + 2], a[4 * j + 3]),
            ];
            let high = [
                _mm256_unpackhi_ps(a[4 * j], a[4 * j + 1]),
                _mm256_unpackhi_ps(a[4 * j + 2], a[4 * j + 3]),
            ];
            b[4 * j] = _mm256_shuffle_ps::<0x44>(low[0], low[1]);
            b[4 * j + 1] = _mm256_shuffle_ps::<0xee>(low[0], low[1]);
            b[4 * j + 2] = _mm256_shuffle_ps::<0x44>(high[0], high[1]);
            b[4 * j + 3] = _mm256_shuffle_ps::<0xee>(high[0], high[1]);
        }
        for c in 0..4 {
            let columns = [
                (c, _mm256_permute2f128_ps::<0x20>(b[c], b[4 + c])),
                (4 + c, _mm256_permute2f128_ps::<0x31>(b[c], b[4 + c])),
            ];
            for (column, values) in columns {
                // SAFETY: row `column` of the target square.
                unsafe { _mm256_storeu_ps(target.add(column * stride), values) };
            }
        }
    }

    /// Transposes 16 rows of 16 adjacent columns into rows of `target` that are `stride` apart.
    ///
    /// # Safety
    /// Both squares are in live memory, and the processor has AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn sixteen(source: View, target: *mut f32, stride: usize) {
        let mut a = [_mm512_setzero_ps(); 16];
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

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[expect(unsafe_code, reason = "matrices are given by address")]
    fn squares_of_every_instruction_set_are_turned() {
        let source: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        let mut squares: Vec<(usize, Square)> = Vec::new();
        if is_x86_feature_detected!("avx2") {
            squares.push((8, x86::eight));
        }
        if is_x86_feature_detected!("avx512f") {
            squares.push((16, x86::sixteen));
        }
        for (side, square) in squares {
            let mut target = vec![-1.0; 16 * 18];
            // SAFETY: the square lies within both vectors, and the processor was asked.
            unsafe { square(View::rows(&source, 20), target.as_mut_ptr(), 18) };
            for (i, &value) in target.iter().enumerate() {
                let (row, column) = (i / 18, i % 18);
                let inside = row < side && column < side;
                let expected = if inside {
                    source[column * 20 + row]
                } else {
                    -1.0
                };
                assert_eq!(value, expected, "side {side}, row {row}, column {column}");
            }
        }
    }
}
