//! Position tables for images of another size than they were trained on.

use burn::tensor::{Tensor, TensorData};

/// Coefficient of the cubic convolution kernel (Keys 1981) that torch's `interpolate` uses.
const CUBIC: f64 = -0.75;

/// A table [1 + side * side, channels] of class token and square grid, for a grid of `rows` by
/// `columns`: [1 + rows * columns, channels].
///
/// The grid is resized as by `torch.nn.functional.interpolate(mode="bicubic",
/// align_corners=False)`, which is what transformers does with `interpolate_pos_encoding`; a grid
/// of the same size is left alone.
pub(crate) fn resized(table: Tensor<2>, rows: usize, columns: usize) -> Tensor<2> {
    let [count, channels] = table.dims();
    let side = (count - 1).isqrt();
    if (rows, columns) == (side, side) {
        return table;
    }
    let device = table.device();
    let weights = |to: usize| {
        let weights = Tensor::<2>::from_data(TensorData::new(cubic(side, to), [to, side]), &device);
        match table.is_require_grad() {
            true => weights.autodiff(),
            false => weights,
        }
    };
    let class = table.clone().narrow(0, 0, 1);
    let grid = table.clone().narrow(0, 1, side * side);
    let grid = weights(rows).matmul(grid.reshape([side, side * channels]));
    let grid = grid.reshape([rows, side, channels]).swap_dims(0, 1);
    let grid = weights(columns).matmul(grid.reshape([side, rows * channels]));
    let grid = grid.reshape([columns, rows, channels]).swap_dims(0, 1);
    Tensor::cat(vec![class, grid.reshape([rows * columns, channels])], 0)
}

/// The matrix [to, from] that resizes one axis; places beyond the border are those of the border.
fn cubic(from: usize, to: usize) -> Vec<f32> {
    let kernel = |distance: f64| {
        let x = distance.abs();
        match x {
            _ if x <= 1.0 => ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0,
            _ if x < 2.0 => ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC,
            _ => 0.0,
        }
    };
    let mut matrix = vec![0.0; to * from];
    for (place, row) in matrix.chunks_exact_mut(from).enumerate() {
        let source = (place as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let first = source.floor() as i64 - 1;
        for tap in first..first + 4 {
            let inside = tap.clamp(0, from as i64 - 1) as usize;
            row[inside] += kernel(source - tap as f64) as f32;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::cubic;

    #[test]
    fn every_place_is_an_average_of_weights_that_sum_to_one() {
        for (from, to) in [(14, 22), (7, 3), (1, 4), (2, 2)] {
            for row in cubic(from, to).chunks_exact(from) {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-6, "{from} to {to}: {row:?}");
            }
        }
        assert_eq!(cubic(2, 2), [1.0, 0.0, 0.0, 1.0]);
    }
}
