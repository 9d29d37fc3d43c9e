//! The transformations of Winograd's F(2 x 2, 3 x 3): of kernels, of images, and back to pixels.

use super::{Kernels, POINTS};
use crate::ops::kernel::lanes;
use crate::ops::memory::View;
use crate::ops::simd::vectorised;
use crate::ops::transpose::transpose;

/// Kernels side by side in vectors while they are transformed.
pub(super) const LANES: usize = 16;

impl Kernels<'_> {
    /// Into the first nine rows of `taps` those of some kernels of an output, one kernel a lane.
    #[inline(always)]
    fn side_by_side(
        self,
        output: usize,
        first: usize,
        count: usize,
        taps: &mut [[f32; LANES]; LANES],
    ) {
        let kernels = &self.weight[output * self.output + first * self.input..];
        // Vectors of sixteen turn squares faster than nine columns, where so many floats follow.
        let reach = (LANES - 1) * self.input;
        let columns = match lanes() == LANES && kernels.len() >= reach + LANES {
            true => LANES,
            false => 9,
        };
        if count == LANES && kernels.len() >= reach + columns {
            let kernels = View {
                at: kernels.as_ptr(),
                row: self.input as isize,
                column: 1,
            };
            #[expect(unsafe_code, reason = "a matrix given by its address")]
            // SAFETY: so many floats are there, as just checked.
            unsafe {
                transpose(kernels, LANES, columns, taps.as_flattened_mut());
            }
        } else {
            for lane in 0..count {
                let kernel = &kernels[lane * self.input..][..9];
                for (taps, &weight) in taps.iter_mut().zip(kernel) {
                    taps[lane] = weight;
                }
            }
        }
        if self.turned {
            taps[..9].reverse();
        }
    }
}

vectorised! {
    /// Kernels G g G^T, of [outputs, in] kernels, into [points, outputs, in].
    pub(super) fn transform_kernels<const FMA: bool>(
        kernels: Kernels,
        sizes: [usize; 2],
        target: &mut [f32],
    ) {
        let [outputs, inputs] = sizes;
        let mut taps = [[0.0f32; LANES]; LANES];
        let mut points = [[0.0f32; LANES]; POINTS];
        let groups = inputs.div_ceil(LANES);
        for i in 0..outputs * groups {
            // Kernels that lie together are read one after the other.
            let (output, group) = match kernels.output > kernels.input {
                true => (i / groups, i % groups),
                false => (i % outputs, i / outputs),
            };
            let first = group * LANES;
            let count = LANES.min(inputs - first);
            kernels.side_by_side(output, first, count, &mut taps);
            for lane in 0..LANES {
                let mut rows = [[0.0f32; 3]; 4];
                for x in 0..3 {
                    let [a, b, c] = [taps[x][lane], taps[3 + x][lane], taps[6 + x][lane]];
                    let (outer, inner) = (0.5 * (a + c), 0.5 * b);
                    rows[0][x] = a;
                    rows[1][x] = outer + inner;
                    rows[2][x] = outer - inner;
                    rows[3][x] = c;
                }
                for (y, [a, b, c]) in rows.into_iter().enumerate() {
                    let (outer, inner) = (0.5 * (a + c), 0.5 * b);
                    points[4 * y][lane] = a;
                    points[4 * y + 1][lane] = outer + inner;
                    points[4 * y + 2][lane] = outer - inner;
                    points[4 * y + 3][lane] = c;
                }
            }
            for (point, values) in points.iter().enumerate() {
                let start = (point * outputs + output) * inputs + first;
                let target = &mut target[start..start + count];
                match target.as_mut_array() {
                    Some(target) => *target = *values,
                    None => target.copy_from_slice(&values[..count]),
                }
            }
        }
    }
}

vectorised! {
    /// d B of every tile of a row: from its pixels, two more than twice the tiles, into [4, tiles].
    pub(super) fn transform_row<const FMA: bool>(line: &[f32], points: &mut [f32]) {
        let tiles = points.len() / 4;
        let pairs = &line.as_chunks::<2>().0[..tiles + 1];
        let (a, rest) = points.split_at_mut(tiles);
        let (b, rest) = rest.split_at_mut(tiles);
        let (c, d) = rest.split_at_mut(tiles);
        let d = &mut d[..tiles];
        for i in 0..tiles {
            let ([p, q], [r, s]) = (pairs[i], pairs[i + 1]);
            a[i] = p - r;
            b[i] = q + r;
            c[i] = r - q;
            d[i] = q - s;
        }
    }
}

vectorised! {
    /// B^T (d B) of all tiles: from [rows, 4, tiles of a row] into [points, tiles].
    pub(super) fn transform_columns<const FMA: bool>(points: &[f32], width: usize, target: &mut [f32]) {
        let tiles = target.len() / POINTS;
        let of_row = 4 * width;
        for row in 0..tiles / width {
            let rows = &points[2 * row * of_row..][..4 * of_row];
            for x in 0..4 {
                let part = |y: usize| &rows[y * of_row + x * width..][..width];
                let [p, q, r, s] = [part(0), part(1), part(2), part(3)];
                let mut write = |y: usize, a: &[f32], b: &[f32], sign: f32| {
                    let start = (4 * y + x) * tiles + row * width;
                    let target = &mut target[start..start + width];
                    for ((target, a), b) in target.iter_mut().zip(a).zip(b) {
                        *target = a + sign * b;
                    }
                };
                write(0, p, r, -1.0);
                write(1, q, r, 1.0);
                write(2, r, q, -1.0);
                write(3, q, s, -1.0);
            }
        }
    }
}

vectorised! {
    /// A^T m A and the bias of every tile of a row: from products that are so many floats apart from
    /// point to point, into two rows of pixels.
    pub(super) fn transform_back<const FMA: bool>(products: &[f32], apart: usize, bias: f32, pair: &mut [f32]) {
        let width = pair.len() / 4;
        let m: [&[f32]; POINTS] = std::array::from_fn(|point| &products[point * apart..][..width]);
        let (upper, lower) = pair.split_at_mut(2 * width);
        let upper = &mut upper.as_chunks_mut::<2>().0[..width];
        let lower = &mut lower.as_chunks_mut::<2>().0[..width];
        for i in 0..width {
            let mut sums = [[0.0f32; 4]; 2];
            for x in 0..4 {
                sums[0][x] = m[x][i] + m[4 + x][i] + m[8 + x][i];
                sums[1][x] = m[4 + x][i] - m[8 + x][i] - m[12 + x][i];
            }
            let [[a, b, c, d], [p, q, r, s]] = sums;
            upper[i] = [(a + b + c) + bias, (b - c - d) + bias];
            lower[i] = [(p + q + r) + bias, (q - r - s) + bias];
        }
    }
}
