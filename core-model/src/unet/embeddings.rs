//! The timestep on its way into the network (`Timesteps`, `TimestepEmbedding` in diffusers).

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::Result;
use crate::nn::Linear;
use crate::ops;
use crate::params::ParamBuilder;

/// The longest period of the sinusoids.
const MAX_PERIOD: f64 = 10_000.0;

/// Sinusoids of every timestep, [batch, channels].
pub(crate) fn timestep_embedding(
    timesteps: &[f32],
    channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    device: &Device,
) -> Tensor<2> {
    let half = channels / 2;
    // diffusers computes in float32 up to the angle.
    let frequency = |index: usize| {
        (-MAX_PERIOD.ln() as f32 * index as f32 / (half as f64 - freq_shift) as f32).exp()
    };
    let mut values = Vec::with_capacity(timesteps.len() * channels);
    for timestep in timesteps {
        let angle = |index: usize| f64::from(timestep * frequency(index));
        let sines = (0..half).map(|i| angle(i).sin() as f32);
        let cosines = (0..half).map(|i| angle(i).cos() as f32);
        if flip_sin_to_cos {
            values.extend(cosines.chain(sines));
        } else {
            values.extend(sines.chain(cosines));
        }
        // An odd number of channels ends with a zero.
        values.extend(std::iter::repeat_n(0.0, channels % 2));
    }
    Tensor::from_data(TensorData::new(values, [timesteps.len(), channels]), device)
}

/// Two linear layers over the sinusoids.
#[derive(Module, Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(inputs: usize, outputs: usize, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(inputs, outputs, true, &pb.pp("linear_1"))?,
            linear_2: Linear::new(outputs, outputs, true, &pb.pp("linear_2"))?,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(ops::silu(self.linear_1.forward(x)))
    }
}
