//! The additive angular margin of ArcFace (Deng et al., CVPR 2019): an image's feature has to point
//! to the centre of its identity more closely, by an angle, than to every other centre.
//!
//! For the cosines `cos theta_j` of a feature with all centres and its own centre `y` the logits are
//! `s cos(theta_y + m)` and `s cos(theta_j)`, and the loss is their cross-entropy with `y`.
//!
//! `cos(theta + m) = cos theta cos m - sin theta sin m` needs no arc cosine, whose slope at 1 is
//! infinite. For `theta > pi - m` the cosine of the sum would rise again; there the logit is
//! `s (cos theta - m sin m)`, which falls with the angle.

use burn::tensor::activation::log_softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

/// Least square of the sine: `sin(theta + m) / sin theta`, the derivative by the cosine, is infinite
/// for a feature that points exactly to its centre, and stays below a thousand with it.
const LEAST_SQUARE: f64 = 1e-6;

/// How the margin enters the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarginGradient {
    /// The derivative of the formula.
    #[default]
    True,
    /// As in the authors' PyTorch code, which adds the margin outside of autograd: the logit of an
    /// identity's own centre has derivative `s` by the cosine, without the factor
    /// `sin(theta + m) / sin theta`.
    Reference,
}

/// Scale and margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AngularMargin {
    /// The factor `s` of all logits.
    pub scale: f64,
    /// The angle `m`, in radians.
    pub margin: f64,
    /// How the margin enters the gradient.
    #[serde(default)]
    pub gradient: MarginGradient,
}

impl AngularMargin {
    /// Cosines [features, centres] to logits of the same shape; `labels` `[features]` are the indices
    /// of the features' own centres.
    pub fn logits(&self, cosines: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<2> {
        let labels = labels.unsqueeze_dim::<2>(1);
        let own = cosines.clone().gather(1, labels.clone());
        let mut with_margin = self.add_margin(own.clone());
        if self.gradient == MarginGradient::Reference {
            with_margin = own.clone() + (with_margin - own.clone()).detach();
        }
        let change = with_margin - own;
        cosines.scatter(1, labels, change, IndexingUpdateOp::Add) * self.scale
    }

    /// The mean cross-entropy of the logits.
    pub fn loss(&self, cosines: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
        let logits = self.logits(cosines, labels.clone());
        let right = log_softmax(logits, 1).gather(1, labels.unsqueeze_dim(1));
        -right.mean()
    }

    /// `cos(theta + m)` of `cos theta`, and what replaces it beyond `pi - m`.
    fn add_margin(&self, cosine: Tensor<2>) -> Tensor<2> {
        let (sin_m, cos_m) = self.margin.sin_cos();
        let square = (cosine.clone().square() * -1.0 + 1.0).clamp_min(LEAST_SQUARE);
        let sum = cosine.clone() * cos_m - square.sqrt() * sin_m;
        let is_beyond = cosine.clone().lower_elem(-cos_m);
        sum.mask_where(is_beyond, cosine - self.margin * sin_m)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn logits(margin: AngularMargin, degrees: &[f64]) -> Vec<f32> {
        let device = Device::flex();
        let cosines: Vec<f64> = degrees.iter().map(|d| d.to_radians().cos()).collect();
        let rows = cosines.len();
        let cosines = Tensor::<1>::from_floats(cosines.as_slice(), &device).reshape([rows, 1]);
        let labels = Tensor::<1, Int>::from_data(TensorData::zeros::<i64, _>([rows]), &device);
        let logits = margin.logits(cosines, labels).into_data();
        logits.try_into_vec_as::<f32>().unwrap_or_default()
    }

    const HALF: AngularMargin = AngularMargin {
        scale: 2.0,
        margin: std::f64::consts::FRAC_PI_6,
        gradient: MarginGradient::True,
    };

    #[test]
    fn thirty_degrees_are_added_to_the_angle() {
        // 2 cos 60, 2 cos 90, 2 cos 120 degrees.
        let found = logits(HALF, &[30.0, 60.0, 90.0]);
        for (found, expected) in found.into_iter().zip([1.0, 0.0, -1.0]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn the_logit_falls_with_the_angle_everywhere() {
        let degrees: Vec<f64> = (0..=180).map(f64::from).collect();
        let found = logits(HALF, &degrees);
        assert_eq!(found.len(), 181);
        for pair in found.windows(2) {
            assert!(pair[1] < pair[0], "{pair:?}");
        }
    }

    #[test]
    fn other_centres_are_only_scaled() {
        let device = Device::flex();
        let cosines = Tensor::<2>::from_floats([[0.5, -0.25, 0.125]], &device);
        let labels = Tensor::<1, Int>::from_ints([0], &device);
        let found = HALF.logits(cosines, labels).into_data();
        let found = found.try_into_vec_as::<f32>().unwrap_or_default();
        assert_eq!(found[1..], [-0.5, 0.25]);
    }
}
