//! Activation functions, element by element.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::memory::{buffer, chunks, dims, tensor, values};
use super::plain;
use super::simd::{exp, fma, normal_cdf, normal_pdf, sigmoid, tanh, vectorised};
use super::tape::{Gradient, Operand, is_fused, record};

/// Elements that one task handles: 32 KiB.
const CHUNK: usize = 8192;

/// `x * sigmoid(x)`, Hendrycks and Gimpel 2016.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused(&x) {
        true => apply::<Silu, D>(x),
        false => plain::silu(x),
    }
}

/// `x * Phi(x)` with the exact normal distribution function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused(&x) {
        true => apply::<Gelu, D>(x),
        false => plain::gelu(x),
    }
}

/// GELU in its tanh approximation.
pub fn gelu_approximate<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused(&x) {
        true => apply::<GeluApproximate, D>(x),
        false => plain::gelu_approximate(x),
    }
}

/// `x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_fused(&x) {
        true => apply::<QuickGelu, D>(x),
        false => plain::quick_gelu(x),
    }
}

/// `a * gelu(b)` where `a`, `b` are the halves of the last dimension: [.., 2d] to [.., d].
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return plain::geglu(x);
    }
    record([x.into()], |[x]| {
        let x = x.to_contiguous();
        let mut shape: [usize; D] = dims(&x);
        shape[D - 1] /= 2;
        let width = shape[D - 1];
        let mut output = buffer(shape.iter().product());
        let (rows, input) = (rows_in(CHUNK, width), values(&x));
        chunks(&mut output, rows * width, 2 * input.len(), |i, part| {
            geglu_rows(&input[2 * i * rows * width..], part, width);
        });
        (tensor(output, shape), GegluGradient { x })
    })
}

/// A smooth function of one number and its slope.
pub(super) trait Curve: Debug + Clone + Send + Sync + 'static {
    /// The function.
    fn value<const FMA: bool>(x: f32) -> f32;
    /// Its derivative.
    fn slope<const FMA: bool>(x: f32) -> f32;
}

/// `x * sigmoid(x)`.
#[derive(Debug, Clone)]
pub(super) struct Silu;

impl Curve for Silu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x / (1.0 + exp::<FMA>(-x))
    }

    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let s = sigmoid::<FMA>(x);
        s * fma::<FMA>(x, 1.0 - s, 1.0)
    }
}

#[derive(Debug, Clone)]
struct Gelu;

impl Curve for Gelu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x * normal_cdf::<FMA>(x)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        fma::<FMA>(x, normal_pdf::<FMA>(x), normal_cdf::<FMA>(x))
    }
}

#[derive(Debug, Clone)]
struct GeluApproximate;

impl GeluApproximate {
    /// sqrt(2 / pi) and the cubic coefficient.
    const SCALE: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;
}

impl Curve for GeluApproximate {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        let t = tanh::<FMA>(Self::SCALE * x * fma::<FMA>(Self::CUBIC, x * x, 1.0));
        0.5 * x * (1.0 + t)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let t = tanh::<FMA>(Self::SCALE * x * fma::<FMA>(Self::CUBIC, x * x, 1.0));
        let inner = Self::SCALE * fma::<FMA>(3.0 * Self::CUBIC, x * x, 1.0);
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
    }
}

#[derive(Debug, Clone)]
struct QuickGelu;

impl Curve for QuickGelu {
    #[inline(always)]
    fn value<const FMA: bool>(x: f32) -> f32 {
        x * sigmoid::<FMA>(1.702 * x)
    }

    #[inline(always)]
    fn slope<const FMA: bool>(x: f32) -> f32 {
        let s = sigmoid::<FMA>(1.702 * x);
        s * fma::<FMA>(1.702 * x, 1.0 - s, 1.0)
    }
}

vectorised! {
    fn map<const FMA: bool, C: Curve>(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = C::value::<FMA>(x);
        }
    }
}

vectorised! {
    fn map_gradient<const FMA: bool, C: Curve>(x: &[f32], g: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
            *dx = g * C::slope::<FMA>(x);
        }
    }
}

vectorised! {
    fn geglu_rows<const FMA: bool>(x: &[f32], y: &mut [f32], width: usize) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
            let (a, b) = x.split_at(width);
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = a * Gelu::value::<FMA>(b);
            }
        }
    }
}

vectorised! {
    fn geglu_gradient_rows<const FMA: bool>(
        x: &[f32],
        g: &[f32],
        dx: &mut [f32],
        width: usize,
    ) {
        let rows = dx.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width));
        for ((dx, x), g) in rows.zip(g.chunks_exact(width)) {
            let ((da, db), (a, b)) = (dx.split_at_mut(width), x.split_at(width));
            for i in 0..width {
                let phi = normal_cdf::<FMA>(b[i]);
                da[i] = g[i] * b[i] * phi;
                db[i] = g[i] * a[i] * fma::<FMA>(b[i], normal_pdf::<FMA>(b[i]), phi);
            }
        }
    }
}

/// How many rows of this width make about `size` elements.
fn rows_in(size: usize, width: usize) -> usize {
    (size / width.max(1)).max(1)
}

fn apply<C: Curve, const D: usize>(x: Tensor<D>) -> Tensor<D> {
    record([Operand::from(x)], |[x]| {
        let x = x.to_contiguous();
        let input = values(&x);
        let mut output = buffer(input.len());
        chunks(&mut output, CHUNK, input.len(), |i, part| {
            map::<C>(&input[i * CHUNK..], part);
        });
        let output = tensor(output, x.shape());
        let curve = PhantomData::<C>;
        (output, ActivationGradient { x, curve })
    })
}

#[derive(Debug, Clone)]
struct ActivationGradient<C> {
    x: FlexTensor,
    curve: PhantomData<C>,
}

impl<C: Curve> Gradient<1> for ActivationGradient<C> {
    fn backward(self, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let grad = grad.to_contiguous();
        let (x, g) = (values(&self.x), values(&grad));
        let mut dx = buffer(x.len());
        chunks(&mut dx, CHUNK, x.len(), |i, part| {
            map_gradient::<C>(&x[i * CHUNK..], &g[i * CHUNK..], part);
        });
        [Some(tensor(dx, self.x.shape()))]
    }
}

#[derive(Debug, Clone)]
struct GegluGradient {
    x: FlexTensor,
}

impl Gradient<1> for GegluGradient {
    fn backward(self, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let grad = grad.to_contiguous();
        let (x, g) = (values(&self.x), values(&grad));
        let shape = self.x.shape();
        let width = shape[shape.num_dims() - 1] / 2;
        let rows = rows_in(CHUNK, width);
        let mut dx = buffer(x.len());
        chunks(&mut dx, 2 * rows * width, 2 * x.len(), |i, part| {
            let start = i * rows * width;
            geglu_gradient_rows(&x[2 * start..], &g[start..], part, width);
        });
        [Some(tensor(dx, shape))]
    }
}
