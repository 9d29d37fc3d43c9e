//! The diffusion loss, Eq. 1 and 2 of the paper, and the masked one of Custom Diffusion (Kumari et al.,
//! CVPR 2023) for photos of which an augmentation shows a part.

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
        match &observed.photo_mask {
            Some(mask) => masked_diffusion_loss(model_pred.clone(), target.clone(), mask.clone()),
            None => diffusion_loss(model_pred.clone(), target.clone()),
        }
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

/// `L = 1/b sum_b (sum_chw m (target - model_pred)^2 / sum_hw m)`, shape `[1]`: as in diffusers'
/// `train_custom_diffusion.py`, the sum over the channels divided by the area of the mask, so that
/// with a mask of ones it is the mean of [`diffusion_loss`] times the number of channels (4). Prior
/// preservation of the same weight therefore weighs a quarter of what it does beside the mean.
///
/// * `model_pred`, `target`: as in [`diffusion_loss`].
/// * `mask`: m, [batch, 1, h, w] of 0 and 1, in each sample at least one 1.
///
/// # Panics
/// When the shapes do not fit.
pub fn masked_diffusion_loss(
    model_pred: Tensor<4>,
    target: Tensor<4>,
    mask: Tensor<4>,
) -> Tensor<1> {
    let [batch, channels, height, width] = model_pred.dims();
    assert_eq!(
        mask.dims(),
        [batch, 1, height, width],
        "one mask per sample"
    );
    let errors = (model_pred - target).square() * mask.clone();
    let errors = errors
        .reshape([batch, channels * height * width])
        .sum_dim(1);
    let area = mask.reshape([batch, height * width]).sum_dim(1);
    (errors / area).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn it_is_the_mean_squared_error() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device).reshape([1, 1, 2, 2]);
        let y = Tensor::<1>::from_floats([1.0, 0.0, 3.0, 0.0], &device).reshape([1, 1, 2, 2]);
        // (0 + 4 + 0 + 16) / 4
        assert_eq!(diffusion_loss(x, y).into_scalar::<f32>(), 5.0);
    }

    #[test]
    fn under_a_mask_channels_are_added_up_and_samples_averaged_by_their_own_area() {
        let device = Device::flex();
        let zeros = Tensor::<4>::zeros([2, 2, 1, 2], &device);
        let errors = [1.0, 3.0, 2.0, 100.0, 1.0, 1.0, 2.0, 2.0];
        let errors = Tensor::<1>::from_floats(errors, &device).reshape([2, 2, 1, 2]);
        let mask = Tensor::<1>::from_floats([1.0, 0.0, 1.0, 1.0], &device).reshape([2, 1, 1, 2]);
        // First sample: (1 + 4) / 1; second: (1 + 1 + 4 + 4) / 2.
        let loss = masked_diffusion_loss(errors, zeros, mask);
        assert_eq!(loss.into_scalar::<f32>(), 5.0);
    }

    #[test]
    fn a_mask_of_ones_gives_the_mean_times_the_channels() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device).reshape([1, 2, 1, 2]);
        let y = Tensor::<4>::zeros([1, 2, 1, 2], &device);
        let mask = Tensor::<4>::ones([1, 1, 1, 2], &device);
        let masked = masked_diffusion_loss(x.clone(), y.clone(), mask);
        let mean = diffusion_loss(x, y);
        assert_eq!(masked.into_scalar::<f32>(), 2.0 * mean.into_scalar::<f32>());
    }
}
