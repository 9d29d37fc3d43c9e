//! Doubling of an image's sides.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::memory::{buffer, chunks, dims, tensor, values};
use super::plain;
use super::simd::vectorised;
use super::tape::{Gradient, Operand, is_fused, record};

/// Every pixel four times: [b, c, h, w] to [b, c, 2h, 2w].
pub fn upsample_nearest_2x(x: Tensor<4>) -> Tensor<4> {
    if !is_fused(&x) {
        return plain::upsample_nearest_2x(x);
    }
    record([Operand::from(x)], |[x]| {
        let x = x.to_contiguous();
        let shape = dims(&x);
        let [b, c, h, w] = shape;
        let input = values(&x);
        let mut output = buffer(4 * input.len());
        chunks(&mut output, 4 * h * w, input.len(), |i, part| {
            spread(&input[i * h * w..][..h * w], part, w);
        });
        (
            tensor(output, [b, c, 2 * h, 2 * w]),
            UpsampleGradient { shape },
        )
    })
}

vectorised! {
    fn spread<const FMA: bool>(x: &[f32], y: &mut [f32], width: usize) {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(4 * width)) {
            let (first, second) = y.split_at_mut(2 * width);
            for (y, &x) in first.chunks_exact_mut(2).zip(x) {
                y.fill(x);
            }
            second.copy_from_slice(first);
        }
    }
}

vectorised! {
    fn gather<const FMA: bool>(g: &[f32], dx: &mut [f32], width: usize) {
        for (dx, g) in dx.chunks_exact_mut(width).zip(g.chunks_exact(4 * width)) {
            let (first, second) = g.split_at(2 * width);
            let pairs = first.chunks_exact(2).zip(second.chunks_exact(2));
            for (dx, (a, b)) in dx.iter_mut().zip(pairs) {
                *dx = (a[0] + a[1]) + (b[0] + b[1]);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct UpsampleGradient {
    /// Of the input.
    shape: [usize; 4],
}

impl Gradient<1> for UpsampleGradient {
    fn backward(self, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let grad = grad.to_contiguous();
        let g = values(&grad);
        let [.., h, w] = self.shape;
        let mut dx = buffer(g.len() / 4);
        chunks(&mut dx, h * w, g.len(), |i, part| {
            gather(&g[4 * i * h * w..][..4 * h * w], part, w);
        });
        [Some(tensor(dx, self.shape))]
    }
}
