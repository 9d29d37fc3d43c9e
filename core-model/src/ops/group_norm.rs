//! Group normalisation (Wu and He 2018), alone or followed by SiLU in the same pass.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::activation::{Curve, Silu};
use super::memory::{Output, buffer, run, tensor, values};
use super::plain;
use super::simd::{fma, moments, sum_of, vectorised};
use super::tape::{Gradient, Operand, is_fused, record};

/// Group normalisation of [batch, channels, ..]; `gamma`, `beta` `[channels]`.
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    match is_fused(&x) && is_fused(&gamma) && is_fused(&beta) {
        true => fused(x, groups, gamma, beta, eps, false),
        false => plain::group_norm(x, groups, gamma, beta, eps),
    }
}

/// [`group_norm`] followed by [`silu`](super::silu).
pub fn group_norm_silu<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    match is_fused(&x) && is_fused(&gamma) && is_fused(&beta) {
        true => fused(x, groups, gamma, beta, eps, true),
        false => plain::group_norm_silu(x, groups, gamma, beta, eps),
    }
}

/// The sizes of one normalisation.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    channels: usize,
    groups: usize,
    /// Values of one channel of one sample.
    pixels: usize,
    silu: bool,
}

impl Sizes {
    /// Channels of a group.
    fn width(&self) -> usize {
        self.channels / self.groups
    }

    /// Values of a group.
    fn group_len(&self) -> usize {
        self.width() * self.pixels
    }
}

fn fused<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
    silu: bool,
) -> Tensor<D> {
    let shape = x.dims();
    assert!(
        groups > 0 && shape[1].is_multiple_of(groups),
        "{} channels do not divide into {groups} groups",
        shape[1]
    );
    let sizes = Sizes {
        batch: shape[0],
        channels: shape[1],
        groups,
        pixels: shape[2..].iter().product(),
        silu,
    };
    let operands = [Operand::from(x), gamma.into(), beta.into()];
    record(operands, |[x, gamma, beta]| {
        let (x, gamma, beta) = (
            x.to_contiguous(),
            gamma.to_contiguous(),
            beta.to_contiguous(),
        );
        let input = values(&x);
        let mut output = buffer(input.len());
        let mut statistics = vec![0.0; 2 * sizes.batch * groups];
        let (target, stats) = (Output::new(&mut output), Output::new(&mut statistics));
        let (width, len) = (sizes.width(), sizes.group_len());
        run(sizes.batch * groups, 2 * input.len(), |i| {
            let first = i % groups * width;
            let scales = &values(&gamma)[first..first + width];
            let shifts = &values(&beta)[first..first + width];
            #[expect(unsafe_code, reason = "each task writes the group it is named after")]
            // SAFETY: group `i` of the output and of the statistics belongs to task `i` alone.
            let (y, stats) = unsafe { (target.part(i * len, len), stats.part(2 * i, 2)) };
            let x = &input[i * len..(i + 1) * len];
            normalise(x, y, stats, scales, shifts, sizes.pixels, eps as f32, silu);
        });
        let gradient = GroupNormGradient {
            x: x.clone(),
            gamma,
            beta,
            statistics: statistics.into(),
            sizes,
        };
        (tensor(output, x.shape()), gradient)
    })
}

vectorised! {
    /// One group: `stats` receives mean and reciprocal standard deviation.
    fn normalise<const FMA: bool>(
        x: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        scales: &[f32],
        shifts: &[f32],
        pixels: usize,
        eps: f32,
        silu: bool,
    ) {
        let (mean, reciprocal) = moments(x, eps);
        stats[0] = mean;
        stats[1] = reciprocal;
        for (c, (x, y)) in x.chunks_exact(pixels).zip(y.chunks_exact_mut(pixels)).enumerate() {
            let scale = reciprocal * scales[c];
            if silu {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = Silu::value::<FMA>(fma::<FMA>(x - mean, scale, shifts[c]));
                }
            } else {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = fma::<FMA>(x - mean, scale, shifts[c]);
                }
            }
        }
    }
}

vectorised! {
    /// One group of the backward pass: `dx`, and for each channel the sums that make the
    /// gradients of beta and gamma.
    fn normalise_gradient<const FMA: bool>(
        x: &[f32],
        g: &[f32],
        dx: &mut [f32],
        sums: &mut [f32],
        stats: &[f32],
        scales: &[f32],
        shifts: &[f32],
        pixels: usize,
        silu: bool,
    ) {
        let (mean, reciprocal) = (stats[0], stats[1]);
        let (mut sum, mut moment) = (0.0f32, 0.0f32);
        let channels = x.chunks_exact(pixels).zip(g.chunks_exact(pixels));
        for (c, ((x, g), dx)) in channels.zip(dx.chunks_exact_mut(pixels)).enumerate() {
            let scale = reciprocal * scales[c];
            // the gradient before the activation is left in dx
            if silu {
                for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                    *dx = g * Silu::slope::<FMA>(fma::<FMA>(x - mean, scale, shifts[c]));
                }
            } else {
                dx.copy_from_slice(g);
            }
            let (dx, x) = (&dx[..pixels], &x[..pixels]);
            let channel_sum = sum_of([dx], |[dx]| dx);
            let channel_moment = sum_of([dx, x], |[dx, x]| dx * (x - mean));
            sums[2 * c] = channel_sum;
            sums[2 * c + 1] = channel_moment * reciprocal;
            sum = fma::<FMA>(channel_sum, scales[c], sum);
            moment = fma::<FMA>(channel_moment, scales[c], moment);
        }
        let count = x.len() as f32;
        let shift = -sum * reciprocal / count;
        let slope = -moment * reciprocal * reciprocal * reciprocal / count;
        for (c, (x, dx)) in x.chunks_exact(pixels).zip(dx.chunks_exact_mut(pixels)).enumerate() {
            let scale = reciprocal * scales[c];
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = fma::<FMA>(*dx, scale, fma::<FMA>(x - mean, slope, shift));
            }
        }
    }
}

#[derive(Debug, Clone)]
struct GroupNormGradient {
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    /// Mean and reciprocal standard deviation of each group.
    statistics: Arc<[f32]>,
    sizes: Sizes,
}

impl Gradient<3> for GroupNormGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Sizes {
            batch,
            channels,
            groups,
            pixels,
            silu,
        } = self.sizes;
        let grad = grad.to_contiguous();
        let (input, g) = (values(&self.x), values(&grad));
        let mut dx = buffer(input.len());
        let mut sums = vec![0.0; 2 * batch * channels];
        let (target, partial) = (Output::new(&mut dx), Output::new(&mut sums));
        let (width, len) = (self.sizes.width(), self.sizes.group_len());
        run(batch * groups, 4 * input.len(), |i| {
            let first = i % groups * width;
            let range = i * len..(i + 1) * len;
            #[expect(unsafe_code, reason = "each task writes the group it is named after")]
            // SAFETY: group `i` of dx and its channels' sums belong to task `i` alone.
            let (dx, sums) = unsafe {
                (
                    target.part(i * len, len),
                    partial.part(2 * i * width, 2 * width),
                )
            };
            normalise_gradient(
                &input[range.clone()],
                &g[range],
                dx,
                sums,
                &self.statistics[2 * i..],
                &values(&self.gamma)[first..first + width],
                &values(&self.beta)[first..first + width],
                pixels,
                silu,
            );
        });
        let over_batch = |offset: usize| {
            let total = |c| {
                (0..batch)
                    .map(|b| sums[2 * (b * channels + c) + offset])
                    .sum()
            };
            tensor((0..channels).map(total).collect(), [channels])
        };
        [
            wanted[0].then(|| tensor(dx, self.x.shape())),
            wanted[1].then(|| over_batch(1)),
            wanted[2].then(|| over_batch(0)),
        ]
    }
}
