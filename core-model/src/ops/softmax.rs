//! Softmax over the last dimension.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::memory::{buffer, chunks, tensor, values};
use super::plain;
use super::simd::{exp, fma, max, sum_of, vectorised};
use super::tape::{Gradient, Operand, is_fused, record};

/// Elements that one task handles.
const CHUNK: usize = 8192;

/// Softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return plain::softmax(x);
    }
    record([Operand::from(x)], |[x]| {
        let x = x.to_contiguous();
        let (input, width) = (values(&x), x.shape()[D - 1]);
        let chunk = width * (CHUNK / width.max(1)).max(1);
        let mut output = buffer(input.len());
        chunks(&mut output, chunk, 2 * input.len(), |i, part| {
            part.copy_from_slice(&input[i * chunk..][..part.len()]);
            softmax_rows(part, width, width, 1.0, &mut []);
        });
        let y = tensor(output, x.shape());
        (y.clone(), SoftmaxGradient { y })
    })
}

vectorised! {
    /// Each row of `width` scores times `scale` to its softmax, in place; rows begin `stride` floats
    /// apart. Into `kept`, unless it is empty, go the two numbers by which [`softmax_parts`] computes any
    /// part of a row again.
    pub(super) fn softmax_rows<const FMA: bool>(
        x: &mut [f32],
        width: usize,
        stride: usize,
        scale: f32,
        kept: &mut [f32],
    ) {
        for (i, row) in x.chunks_exact_mut(stride).enumerate() {
            let row = &mut row[..width];
            let shift = -scale * max(row);
            for x in row.iter_mut() {
                *x = exp::<FMA>(fma::<FMA>(scale, *x, shift));
            }
            let total = 1.0 / sum_of([&*row], |[x]| x);
            for x in row.iter_mut() {
                *x *= total;
            }
            if let Some(kept) = kept.get_mut(2 * i..2 * i + 2) {
                kept.copy_from_slice(&[shift, total]);
            }
        }
    }
}

vectorised! {
    /// Parts of rows of scores to what [`softmax_rows`] made of the whole rows when it kept `kept`.
    pub(super) fn softmax_parts<const FMA: bool>(
        x: &mut [f32],
        width: usize,
        stride: usize,
        scale: f32,
        kept: &[f32],
    ) {
        for (row, kept) in x.chunks_exact_mut(stride).zip(kept.as_chunks::<2>().0) {
            let [shift, total] = *kept;
            for x in row[..width].iter_mut() {
                *x = exp::<FMA>(fma::<FMA>(scale, *x, shift)) * total;
            }
        }
    }
}

vectorised! {
    /// From probabilities and their gradients, `scale` times the gradient of the scores; into the
    /// latter. Rows of `width` begin `stride` floats apart in both. `inner` has the sum of the products of
    /// each row where these are parts of rows, and is empty otherwise.
    pub(super) fn softmax_gradient_rows<const FMA: bool>(
        y: &[f32],
        g: &mut [f32],
        width: usize,
        stride: usize,
        scale: f32,
        inner: &[f32],
    ) {
        for (i, (y, g)) in y.chunks_exact(stride).zip(g.chunks_exact_mut(stride)).enumerate() {
            let (y, g) = (&y[..width], &mut g[..width]);
            let inner = match inner.get(i) {
                Some(&inner) => inner,
                None => sum_of([y, g], |[y, g]| y * g),
            };
            for (g, &y) in g.iter_mut().zip(y) {
                *g = scale * y * (*g - inner);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct SoftmaxGradient {
    y: FlexTensor,
}

impl Gradient<1> for SoftmaxGradient {
    fn backward(self, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let grad = grad.to_contiguous();
        let (y, g) = (values(&self.y), values(&grad));
        let shape = self.y.shape();
        let width = shape[shape.num_dims() - 1];
        let chunk = width * (CHUNK / width.max(1)).max(1);
        let mut dx = buffer(y.len());
        chunks(&mut dx, chunk, 2 * y.len(), |i, part| {
            let range = i * chunk..i * chunk + part.len();
            part.copy_from_slice(&g[range.clone()]);
            softmax_gradient_rows(&y[range], part, width, width, 1.0, &[]);
        });
        [Some(tensor(dx, shape))]
    }
}
