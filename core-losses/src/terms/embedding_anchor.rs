//! The anchor of Cross Initialization (Pang et al., CVPR 2024): the concept's vectors stay near where
//! learning began.
//!
//! `L = 1/n sum_i ||v_i - v_i^0 + 1e-6||`: the mean over the n vectors of the Euclidean distance,
//! not squared. The constant is added to every component of the difference, as torch's
//! `pairwise_distance` does, so that the gradient at the start is finite.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::term::{Observed, Reading, Term};

/// The constant that is added to every component of the difference.
const EPS: f64 = 1e-6;

/// The anchor of Cross Initialization: the concept's vectors stay near where learning began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingAnchor {
    /// Its factor in the total loss. The paper's value is 1e-5.
    pub weight: f64,
}

impl Default for EmbeddingAnchor {
    fn default() -> Self {
        Self { weight: 1e-5 }
    }
}

impl Term for EmbeddingAnchor {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::Embedding]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let [now, start] = observed.vectors();
        let distance = (now.clone() - start.clone() + EPS)
            .square()
            .sum_dim(1)
            .sqrt();
        distance.mean()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn it_is_the_mean_distance_and_has_a_slope_where_learning_begins() {
        let device = Device::flex();
        let start = Tensor::<2>::from_floats([[0.0, 0.0], [1.0, 1.0]], &device);
        let value = |now: Tensor<2>| {
            EmbeddingAnchor::default().forward(&Observed {
                embedding: Some([now, start.clone()]),
                ..Observed::default()
            })
        };
        // Distances 5 and 0.
        let now = Tensor::<2>::from_floats([[3.0, 4.0], [1.0, 1.0]], &device);
        assert!((value(now).into_scalar::<f32>() - 2.5).abs() < 1e-5);
        let now = start.clone().autodiff().require_grad();
        let grads = value(now.clone()).backward();
        let slope = now.grad(&grads).map(|grad| grad.into_data());
        let slope = slope.and_then(|data| data.try_into_vec_as::<f32>().ok());
        // 1/sqrt(d) per component, over two vectors.
        let expected = 0.5 / 2.0_f32.sqrt();
        for slope in slope.unwrap_or_default() {
            assert!((slope - expected).abs() < 1e-3, "{slope}");
        }
    }
}
