//! Sums of two tensors, for residual connections.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::memory::{buffer, chunks, tensor, values};
use super::plain;
use super::simd::vectorised;
use super::tape::{Gradient, Operand, is_fused, record};

/// Elements that one task handles.
const CHUNK: usize = 16_384;

/// `x + y` of equal shapes.
pub fn add<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    if !(is_fused(&x) && is_fused(&y) && x.dims() == y.dims()) {
        return plain::add(x, y);
    }
    record([Operand::from(x), y.into()], |[x, y]| {
        let (x, y) = (x.to_contiguous(), y.to_contiguous());
        let (a, b) = (values(&x), values(&y));
        let mut output = buffer(a.len());
        chunks(&mut output, CHUNK, a.len() / 4, |i, part| {
            sum(&a[i * CHUNK..], &b[i * CHUNK..], part);
        });
        (tensor(output, x.shape()), SumGradient)
    })
}

vectorised! {
    fn sum<const FMA: bool>(a: &[f32], b: &[f32], output: &mut [f32]) {
        for ((o, &a), &b) in output.iter_mut().zip(a).zip(b) {
            *o = a + b;
        }
    }
}

#[derive(Debug, Clone)]
struct SumGradient;

impl Gradient<2> for SumGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        wanted.map(|wanted| wanted.then(|| grad.clone()))
    }
}
