//! Batch normalisation with the statistics of training, which is all that a trained network needs.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::error::Result;
use crate::params::{Init, ParamBuilder};

/// `y = (x - mean) / sqrt(var + eps) * weight + bias` for every channel.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// Mean over training, `[channels]`.
    pub running_mean: Param<Tensor<1>>,
    /// Variance over training, `[channels]`.
    pub running_var: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl BatchNorm {
    /// Keys `weight`, `bias`, `running_mean` and `running_var`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(channels: usize, eps: f64, pb: &ParamBuilder) -> Result<Self> {
        let get = |name: &str, init| pb.get(name, [channels], init);
        Ok(Self {
            weight: get("weight", Init::Ones)?,
            bias: get("bias", Init::Zeros)?,
            running_mean: get("running_mean", Init::Zeros)?,
            running_var: get("running_var", Init::Ones)?,
            eps,
        })
    }

    /// [batch, channels, ..] to the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape = [1; D];
        shape[1] = x.dims()[1];
        let scale = self.weight.val() / (self.running_var.val() + self.eps).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        x * scale.reshape(shape) + shift.reshape(shape)
    }
}
