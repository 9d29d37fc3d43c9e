//! Every operation as a composition of Burn's own.
//!
//! An operation computes in the format of its input, to which weights are cast: float32, or half
//! precision inside a network that [`Precision`](crate::Precision) makes compute so. Activations,
//! norms and softmax are computed in float32 either way, and so are convolutions on wgpu.

use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, activation};

use super::tape::is_wgpu;

/// A tensor in another number format; nothing happens to one that has it already.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, to: DType) -> Tensor<D> {
    match x.dtype() == to {
        true => x,
        false => x.cast(FloatDType::from(to)),
    }
}

/// What `f` makes of `x` in float32, in the format of `x`.
fn in_float32<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let format = x.dtype();
    cast(f(cast(x, DType::F32)), format)
}

/// `x * sigmoid(x)`, Hendrycks and Gimpel 2016.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_float32(x, activation::silu)
}

/// `x * Phi(x)` with the exact normal distribution function. Burn's own has the derivative of the
/// tanh approximation.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_float32(x, |x| {
        let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
        x * phi * 0.5
    })
}

/// GELU in its tanh approximation.
pub fn gelu_approximate<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_float32(x, activation::gelu_approximate)
}

/// `x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_float32(x, |x| x.clone() * activation::sigmoid(x * 1.702))
}

/// Softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_float32(x, |x| activation::softmax(x, D - 1))
}

/// `a * gelu(b)` where `a`, `b` are the halves of the last dimension: [.., 2d] to [.., d].
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let half = x.dims()[D - 1] / 2;
    let a = x.clone().narrow(D - 1, 0, half);
    a * gelu(x.narrow(D - 1, half, half))
}

/// Layer normalisation over the last dimension; `gamma`, `beta` `[channels]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    in_float32(x, |x| {
        let mean = x.clone().mean_dim(D - 1);
        let centred = x - mean;
        let variance = centred.clone().square().mean_dim(D - 1);
        centred / (variance + eps).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
    })
}

/// Group normalisation of [batch, channels, ..]; `gamma`, `beta` `[channels]`.
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let (batch, channels) = (shape[0], shape[1]);
    in_float32(x, |x| {
        let x: Tensor<3> = x.reshape([batch as i64, groups as i64, -1]);
        let mean = x.clone().mean_dim(2);
        let centred = x - mean;
        let variance = centred.clone().square().mean_dim(2);
        let x: Tensor<3> =
            (centred / (variance + eps).sqrt()).reshape([batch as i64, channels as i64, -1]);
        (x * gamma.reshape([1, channels, 1]) + beta.reshape([1, channels, 1])).reshape(shape)
    })
}

/// [`group_norm`] followed by [`silu`].
pub fn group_norm_silu<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    in_float32(x, |x| silu(group_norm(x, groups, gamma, beta, eps)))
}

/// `x W^T + b`: [.., in] with `weight` [out, in] to [.., out].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let format = x.dtype();
    let bias = bias.map(|bias| cast(bias, format));
    module::linear(x, cast(weight, format).transpose(), bias)
}

/// Convolution of [batch, in, height, width] with `weight` [out, in, kernel, kernel]; `padding`
/// are zeros at top, left, bottom, right.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: [usize; 4],
) -> Tensor<4> {
    let [top, left, bottom, right] = padding;
    let options =
        ConvOptions::new_with_padding([stride; 2], [(top, bottom), (left, right)], [1, 1], 1);
    let given = x.dtype();
    let format = convolved_in(given, &x.device());
    let bias = bias.map(|bias| cast(bias, format));
    let y = module::conv2d(cast(x, format), cast(weight, format), bias, options);
    cast(y, given)
}

/// The format in which a device convolves what is in `format`. Burn's kernel for wgpu adds up in the
/// format of its input, and thousands of terms lose most of float16's digits on the way.
fn convolved_in(format: DType, device: &Device) -> DType {
    match is_wgpu(device) {
        true => DType::F32,
        false => format,
    }
}

/// Scaled dot-product attention on [batch, heads, n, d]; with `causal`, position i sees 0..=i.
/// Scores are in the format of queries and keys, softmax in float32, and the result in that of the
/// values.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, causal: bool, scale: f64) -> Tensor<4> {
    attention_of_slice(q, k, v, causal.then_some(0), scale)
}

/// [`attention`] of some queries; `first` is the position of the first one where it is causal.
pub(super) fn attention_of_slice(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    first: Option<usize>,
    scale: f64,
) -> Tensor<4> {
    // Before the product, as scores of large networks leave the range of float16.
    let scores = (q * scale).matmul(k.swap_dims(2, 3));
    let mut scores = cast(scores, DType::F32);
    if let Some(first) = first {
        let [_, _, rows, keys] = scores.dims();
        let mask = Tensor::<2, Bool>::tril_mask([rows, keys], first as i64, &scores.device());
        scores = scores.mask_fill(mask.unsqueeze(), f32::NEG_INFINITY);
    }
    cast(softmax(scores), v.dtype()).matmul(v)
}

/// Attention that also gives its probabilities [batch, heads, n, m], in float32; both are
/// differentiable.
pub fn attention_with_probabilities(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
) -> (Tensor<4>, Tensor<4>) {
    let scores = (q * scale).matmul(k.swap_dims(2, 3));
    let probabilities = softmax(cast(scores, DType::F32));
    let weights = cast(probabilities.clone(), v.dtype());
    (weights.matmul(v), probabilities)
}

/// `x + y`.
pub fn add<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    x + y
}

/// Every pixel four times: [b, c, h, w] to [b, c, 2h, 2w].
pub fn upsample_nearest_2x(x: Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    let options =
        InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([2 * h, 2 * w]);
    module::interpolate(x, options)
}

/// The constants of AdamW, as `torch.optim.AdamW` names them and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 1e-2,
        }
    }
}

/// Step `step`, from 1, of AdamW (Loshchilov and Hutter 2019) on tensors off the tape: the new
/// parameter, first and second moment.
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    exp_avg: Tensor<D>,
    exp_avg_sq: Tensor<D>,
    config: &AdamW,
    lr: f64,
    step: u64,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let AdamW {
        betas: [beta1, beta2],
        eps,
        weight_decay,
    } = *config;
    let exp_avg = exp_avg * beta1 + grad.clone() * (1.0 - beta1);
    let exp_avg_sq = exp_avg_sq * beta2 + grad.square() * (1.0 - beta2);
    let correction1 = 1.0 - beta1.powf(step as f64);
    let correction2 = 1.0 - beta2.powf(step as f64);
    let denominator = exp_avg_sq.clone().sqrt() / correction2.sqrt() + eps;
    let param = param * (1.0 - lr * weight_decay);
    let param = param - exp_avg.clone() / denominator * (lr / correction1);
    (param, exp_avg, exp_avg_sq)
}
