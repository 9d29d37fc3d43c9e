//! The diffusion loss, Eq. 1 and 2 of the paper.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::term::{Observed, Reading, Term};

/// The diffusion loss, Eq. 1 and 2 of the paper. It is part of every stage, with weight 1 unless the
/// stage lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Diffusion {
    /// Its factor in the total loss. 0 leaves it out.
    pub weight: f64,
}

impl Default for Diffusion {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}

impl Term for Diffusion {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::PhotoPrediction]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let [model_pred, target] = observed.photo_prediction();
        diffusion_loss(model_pred.clone(), target.clone())
    }
}

/// `L = mean((target - model_pred)^2)` over batch, channels and pixels: shape `[1]`.
///
/// * `model_pred`: eps_theta(z_t, t, c(y, v*)), the U-Net's output, [batch, channels, h, w].
/// * `target`: the noise eps, or the velocity for checkpoints that predict it; same shape.
///
/// # Panics
/// When the shapes differ.
pub fn diffusion_loss(model_pred: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    assert_eq!(
        model_pred.dims(),
        target.dims(),
        "prediction and target have one shape"
    );
    (model_pred - target).square().mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::diffusion_loss;

    #[test]
    fn it_is_the_mean_squared_error() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device).reshape([1, 1, 2, 2]);
        let y = Tensor::<1>::from_floats([1.0, 0.0, 3.0, 0.0], &device).reshape([1, 1, 2, 2]);
        // (0 + 4 + 0 + 16) / 4
        assert_eq!(diffusion_loss(x, y).into_scalar::<f32>(), 5.0);
    }
}
