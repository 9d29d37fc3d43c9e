//! Layer normalisation (Ba, Kiros and Hinton 2016) over the last dimension.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::memory::{Output, buffer, run, tensor, values};
use super::plain;
use super::simd::{fma, moments, sum_of, vectorised};
use super::tape::{Gradient, Operand, is_fused, record};

/// Rows that one task handles.
const ROWS: usize = 64;

/// Layer normalisation over the last dimension; `gamma`, `beta` `[channels]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    if !(is_fused(&x) && is_fused(&gamma) && is_fused(&beta)) {
        return plain::layer_norm(x, gamma, beta, eps);
    }
    let width = x.dims()[D - 1];
    let operands = [Operand::from(x), gamma.into(), beta.into()];
    record(operands, |[x, gamma, beta]| {
        let (x, gamma, beta) = (
            x.to_contiguous(),
            gamma.to_contiguous(),
            beta.to_contiguous(),
        );
        let input = values(&x);
        let rows = input.len() / width.max(1);
        let mut output = buffer(input.len());
        let mut statistics = vec![0.0; 2 * rows];
        let (target, stats) = (Output::new(&mut output), Output::new(&mut statistics));
        run(rows.div_ceil(ROWS), input.len(), |i| {
            let (first, count) = (i * ROWS, ROWS.min(rows - i * ROWS));
            #[expect(unsafe_code, reason = "each task writes its own rows")]
            // SAFETY: these rows of the output and statistics belong to this task alone.
            let (y, stats) = unsafe {
                (
                    target.part(first * width, count * width),
                    stats.part(2 * first, 2 * count),
                )
            };
            let x = &input[first * width..];
            normalise(x, y, stats, values(&gamma), values(&beta), eps as f32);
        });
        let gradient = LayerNormGradient {
            x: x.clone(),
            gamma,
            statistics: statistics.into(),
        };
        (tensor(output, x.shape()), gradient)
    })
}

vectorised! {
    fn normalise<const FMA: bool>(
        x: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
    ) {
        let width = gamma.len();
        let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((x, y), stats) in rows.zip(stats.chunks_exact_mut(2)) {
            let (mean, reciprocal) = moments(x, eps);
            stats[0] = mean;
            stats[1] = reciprocal;
            for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                *y = fma::<FMA>((x - mean) * reciprocal, gamma, beta);
            }
        }
    }
}

vectorised! {
    /// The rows of one task: `dx`, and added up over them the gradients of gamma and beta.
    fn normalise_gradient<const FMA: bool>(
        x: &[f32],
        g: &[f32],
        dx: &mut [f32],
        stats: &[f32],
        gamma: &[f32],
        sums: Option<&mut [f32]>,
    ) {
        let width = gamma.len();
        let rows = x.chunks_exact(width).zip(g.chunks_exact(width));
        let rows = || rows.clone().zip(stats.chunks_exact(2));
        for (((x, g), stats), dx) in rows().zip(dx.chunks_exact_mut(width)) {
            let (mean, reciprocal) = (stats[0], stats[1]);
            let (x, g, gamma) = (&x[..width], &g[..width], &gamma[..width]);
            let sum = sum_of([g, gamma], |[g, gamma]| g * gamma) / width as f32;
            let moment = sum_of([g, gamma, x], |[g, gamma, x]| g * gamma * (x - mean));
            let moment = moment / width as f32;
            let slope = moment * reciprocal * reciprocal;
            for (((dx, &x), &g), &gamma) in dx.iter_mut().zip(x).zip(g).zip(gamma) {
                *dx = reciprocal * (fma::<FMA>(g, gamma, -sum) - (x - mean) * slope);
            }
        }
        if let Some(sums) = sums {
            sums.fill(0.0);
            let (scale, shift) = sums.split_at_mut(width);
            for ((x, g), stats) in rows().take(dx.len() / width) {
                let (mean, reciprocal) = (stats[0], stats[1]);
                let (x, g) = (&x[..width], &g[..width]);
                let (scale, shift) = (&mut scale[..width], &mut shift[..width]);
                for i in 0..width {
                    scale[i] = fma::<FMA>(g[i], (x[i] - mean) * reciprocal, scale[i]);
                    shift[i] += g[i];
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
struct LayerNormGradient {
    x: FlexTensor,
    gamma: FlexTensor,
    /// Mean and reciprocal standard deviation of each row.
    statistics: Arc<[f32]>,
}

impl Gradient<3> for LayerNormGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let grad = grad.to_contiguous();
        let (input, g, gamma) = (values(&self.x), values(&grad), values(&self.gamma));
        let width = gamma.len();
        let rows = input.len() / width.max(1);
        let tasks = rows.div_ceil(ROWS);
        let mut dx = buffer(input.len());
        let parameters = wanted[1] || wanted[2];
        let mut sums = vec![0.0; if parameters { tasks * 2 * width } else { 0 }];
        let (target, partial) = (Output::new(&mut dx), Output::new(&mut sums));
        run(tasks, 2 * input.len(), |i| {
            let (first, count) = (i * ROWS, ROWS.min(rows - i * ROWS));
            #[expect(unsafe_code, reason = "each task writes its own rows and sums")]
            // SAFETY: these rows of dx and this task's sums belong to it alone.
            let (dx, sums) = unsafe {
                (
                    target.part(first * width, count * width),
                    parameters.then(|| partial.part(2 * i * width, 2 * width)),
                )
            };
            let range = first * width..(first + count) * width;
            let stats = &self.statistics[2 * first..2 * (first + count)];
            normalise_gradient(&input[range.clone()], &g[range], dx, stats, gamma, sums);
        });
        let over_tasks = |offset: usize| {
            let total = |c| (0..tasks).map(|i| sums[(2 * i + offset) * width + c]).sum();
            tensor((0..width).map(total).collect(), [width])
        };
        [
            wanted[0].then(|| tensor(dx, self.x.shape())),
            wanted[1].then(|| over_tasks(0)),
            wanted[2].then(|| over_tasks(1)),
        ]
    }
}
