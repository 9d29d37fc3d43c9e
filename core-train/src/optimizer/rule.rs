//! The rules by which an optimiser moves a tensor: one variant and its lines below for each.

use burn::tensor::Tensor;
use core_model::ops::{AdamW, adamw_step};

use super::SphericalSgd;

/// How a tensor moves by its gradient. Tensors are flattened and off the tape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019), computed as `torch.optim.AdamW` does.
    AdamW(AdamW),
    /// Steps of the direction alone (Directional Textual Inversion).
    SphericalSgd(SphericalSgd),
}

impl From<AdamW> for Rule {
    fn from(config: AdamW) -> Self {
        Self::AdamW(config)
    }
}

impl Rule {
    /// The names of the two tensors that it keeps for each parameter.
    pub(super) fn kept(&self) -> [&'static str; 2] {
        match self {
            Self::AdamW(_) => ["exp_avg", "exp_avg_sq"],
            Self::SphericalSgd(_) => ["start", "second_moment"],
        }
    }

    /// What it keeps for a parameter of so many rows before its first step.
    pub(super) fn first(&self, value: &Tensor<1>, rows: usize) -> [Tensor<1>; 2] {
        match self {
            Self::AdamW(_) => [value.zeros_like(), value.zeros_like()],
            Self::SphericalSgd(_) => SphericalSgd::first(value, rows),
        }
    }

    /// Step `step`, from 1: the new value, and what is kept for the next step.
    pub(super) fn step(
        &self,
        value: Tensor<1>,
        grad: Tensor<1>,
        kept: [Tensor<1>; 2],
        learning_rate: f64,
        step: u64,
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        match self {
            Self::AdamW(config) => {
                let [exp_avg, exp_avg_sq] = kept;
                let (value, exp_avg, exp_avg_sq) = adamw_step(
                    value,
                    grad,
                    exp_avg,
                    exp_avg_sq,
                    config,
                    learning_rate,
                    step,
                );
                (value, [exp_avg, exp_avg_sq])
            }
            Self::SphericalSgd(config) => config.step(value, grad, kept, learning_rate, step),
        }
    }
}
