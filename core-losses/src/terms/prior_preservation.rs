//! Prior preservation of DreamBooth (Ruiz et al., CVPR 2023): images of the super-category, drawn
//! by the untuned model, are to be predicted as before.
//!
//! `L = mean((target - model_pred)^2)` over the class images of the pass, channels and pixels.

use std::path::PathBuf;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diffusion::diffusion_loss;
use crate::term::{Observed, Reading, Term};

/// `kind = "prior_preservation"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriorPreservation {
    /// Its factor in the total.
    pub weight: f64,
    /// How many class images the untuned model draws; they are kept for all runs that want the same.
    pub num_images: usize,
    /// What they are drawn from and trained with; `{class}` is the super-category.
    pub prompts: Vec<String>,
    /// A folder of class images instead of drawn ones; image i has the i-th prompt, counted around.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
}

impl Default for PriorPreservation {
    fn default() -> Self {
        Self {
            weight: 1.0,
            num_images: 200,
            prompts: vec!["a photo of {class}".into()],
            images: None,
        }
    }
}

impl Term for PriorPreservation {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::PriorPrediction]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let [model_pred, target] = observed.prior_prediction();
        diffusion_loss(model_pred.clone(), target.clone())
    }
}
