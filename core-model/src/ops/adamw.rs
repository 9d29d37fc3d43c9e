//! The optimiser's step in one pass over memory.

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::memory::values;
use super::plain::{self, AdamW};
use super::simd::vectorised;
use super::tape::{constant, is_fused, value};

/// Elements that one task handles.
const CHUNK: usize = 16_384;

/// Step `step`, from 1, of AdamW (Loshchilov and Hutter 2019) with the learning rate `lr` on tensors
/// off the tape, as `torch.optim.AdamW` does it: the new parameter, first and second moment.
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    exp_avg: Tensor<D>,
    exp_avg_sq: Tensor<D>,
    config: &AdamW,
    lr: f64,
    step: u64,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let all = [&param, &grad, &exp_avg, &exp_avg_sq];
    if all.iter().any(|x| !is_fused(x) || x.is_autodiff()) {
        return plain::adamw_step(param, grad, exp_avg, exp_avg_sq, config, lr, step);
    }
    let grad = value(grad).to_contiguous();
    let g = values(&grad);
    // Each is written in place where no one else holds it.
    let [mut p, mut m, mut v] = [param, exp_avg, exp_avg_sq].map(|x| {
        let x = value(x);
        assert_eq!(x.shape(), grad.shape(), "adamw_step: shapes differ");
        match x.as_slice::<f32>().map(<[f32]>::len) == Some(x.storage::<f32>().len()) {
            true => x,
            false => x.to_contiguous(),
        }
    });
    let constants = Constants::new(config, lr, step);
    let (ps, ms, vs) = (
        p.storage_mut::<f32>(),
        m.storage_mut::<f32>(),
        v.storage_mut::<f32>(),
    );
    if g.len() <= CHUNK {
        update(ps, g, ms, vs, &constants);
    } else {
        ps.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(ms.par_chunks_mut(CHUNK))
            .zip(vs.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), m), v)| update(p, g, m, v, &constants));
    }
    (constant(p), constant(m), constant(v))
}

/// The scalars of one step, in float32 as torch applies them.
struct Constants {
    decay: f32,
    weight1: f32,
    beta2: f32,
    weight2: f32,
    correction2: f32,
    eps: f32,
    step_size: f32,
}

impl Constants {
    fn new(config: &AdamW, lr: f64, step: u64) -> Self {
        let AdamW {
            betas: [beta1, beta2],
            eps,
            weight_decay,
        } = *config;
        let correction1 = 1.0 - beta1.powf(step as f64);
        let correction2 = 1.0 - beta2.powf(step as f64);
        Self {
            decay: (1.0 - lr * weight_decay) as f32,
            weight1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            weight2: (1.0 - beta2) as f32,
            correction2: correction2.sqrt() as f32,
            eps: eps as f32,
            step_size: (lr / correction1) as f32,
        }
    }
}

vectorised! {
    fn update<const FMA: bool>(
        p: &mut [f32],
        g: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        constants: &Constants,
    ) {
        let Constants { decay, weight1, beta2, weight2, correction2, eps, step_size } = *constants;
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
            *m += weight1 * (g - *m);
            *v = *v * beta2 + weight2 * g * g;
            let denominator = v.sqrt() / correction2 + eps;
            *p = *p * decay - step_size * (*m / denominator);
        }
    }
}
