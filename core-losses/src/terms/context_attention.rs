//! Context attention regularisation (CAR), Eq. 4 of the paper.
//!
//! `L_attn = 1/(n-1) sum_{i != k} (mu(M_i^{1:16}) - mu(M'_i^{1:16}))^2`: context tokens are to
//! draw as much attention as they do when the super-category stands in place of S*.
//!
//! M is the attention of the U-Net's cross-attention layers with S*, one [batch, heads, pixels, n]
//! per layer, M' the same with the super-category, from the same noisy latents and timesteps; mu
//! is the mean of token i's map.
//!
//! * `paper`: mu over heads, pixels and, layers weighing alike, layers; squared difference; mean
//!   over kept tokens and batch.
//! * `reference_code`: mu over heads and pixels; squared difference in each layer; mean over kept
//!   tokens and layers, SUM over the batch. (The authors' code adds up the mean squared error of
//!   every layer and sample and divides by the number of layers.) Its value is never below
//!   batch x the paper's, the square being convex.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Context;
use crate::term::{Formulation, Observed, Reading, Term, keep};

/// Context attention regularisation (CAR), Eq. 4 of the paper: context tokens draw as much
/// cross-attention as they do when the super-category stands in place of the concept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContextAttention {
    /// lambda_attn of Eq. 5. The paper's value, 0.05, belongs to `formulation = "reference_code"`.
    pub weight: f64,
    /// The order in which layers, heads, pixels and samples are averaged.
    pub formulation: Formulation,
    /// The tokens that are compared.
    pub context: Context,
}

impl Default for ContextAttention {
    fn default() -> Self {
        Self {
            weight: 0.05,
            formulation: Formulation::default(),
            context: Context::default(),
        }
    }
}

impl Term for ContextAttention {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::TemplateAttention, Reading::ClassAttention]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let maps = observed.template_attention().map(means);
        let [learned, reference] = keep(maps, 2, observed.pair(), self.context);
        let [batch, ..] = learned.dims();
        match self.formulation {
            Formulation::Paper => (learned.mean_dim(1) - reference.mean_dim(1))
                .square()
                .mean(),
            Formulation::ReferenceCode => (learned - reference).square().mean() * batch as f64,
        }
    }
}

/// The mean of each token's map over heads and pixels, [batch, layers, n].
fn means(layers: &[Tensor<4>]) -> Tensor<3> {
    let means = layers
        .iter()
        .map(|map| {
            let [batch, heads, pixels, tokens] = map.dims();
            map.clone()
                .reshape([batch, heads * pixels, tokens])
                .mean_dim(1)
        })
        .collect();
    Tensor::cat(means, 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::span::{ContextPair, PromptSpan};
    use crate::term::Pass;

    /// Two layers, batch 2, one head, one pixel, tokens BOS S* EOT; `shift` is what the learned
    /// prompt adds to EOT in the two layers of both samples.
    fn value(formulation: Formulation, shift: [f32; 2]) -> f32 {
        let device = Device::flex();
        let span = PromptSpan::of_token(3, 1..2, 3);
        let map = |shift: f32| {
            let row = [0.5, 0.3, 0.2 + shift];
            Tensor::<2>::from_floats([row, row], &device).reshape([2, 1, 1, 3])
        };
        let pass = |shift: [f32; 2]| Pass {
            spans: vec![span.clone()],
            hidden: Some(Tensor::zeros([1, 3, 1], &device)),
            prediction: None,
            attention: Some(shift.map(map).to_vec()),
        };
        let observed = Observed {
            template: Some(pass(shift)),
            class_template: Some(pass([0.0, 0.0])),
            pair: Some(ContextPair::new(span.clone(), span.clone()).unwrap()),
            ..Default::default()
        };
        let term = ContextAttention {
            formulation,
            ..Default::default()
        };
        term.forward(&observed).into_scalar::<f32>()
    }

    #[test]
    fn the_paper_averages_layers_before_squaring() {
        // Mean shift of EOT 0.2, BOS 0: (0 + 0.04) / 2 tokens.
        assert!((value(Formulation::Paper, [0.1, 0.3]) - 0.02).abs() < 1e-6);
        assert!(value(Formulation::Paper, [0.1, -0.1]).abs() < 1e-6);
    }

    #[test]
    fn the_authors_code_squares_in_each_layer_and_sums_over_the_batch() {
        // Layers: 0.01 / 2 and 0.09 / 2; their mean 0.025; times two samples.
        assert!((value(Formulation::ReferenceCode, [0.1, 0.3]) - 0.05).abs() < 1e-6);
        assert!((value(Formulation::ReferenceCode, [0.1, -0.1]) - 0.01).abs() < 1e-6);
    }
}
