//! Context embedding regularisation (CER), Eq. 3 of the paper.
//!
//! `L_emb = 1/(n-1) sum_{i != k} (1 - cos(E(v_i), E(v'_i)))`: the text encoder's outputs for the
//! context tokens are to be what they are when the super-category stands in place of S*.
//!
//! E(v) is [1, n, d] with S*, E(v') the same with the super-category, k the concept's positions.
//! `paper` takes the cosine of each kept token over its d channels, then the mean over tokens.
//! `reference_code` takes the cosine of each channel over the kept tokens, then the mean over
//! channels, as the authors' code does; the paper does not mention it.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Context;
use crate::term::{Formulation, Observed, Reading, Term, keep};

/// Smallest norm to divide by, as in `torch.nn.functional.cosine_similarity`.
const EPS: f64 = 1e-8;

/// Context embedding regularisation (CER), Eq. 3 of the paper: the text encoder's outputs for
/// context tokens stay what they are when the super-category stands in place of the concept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContextEmbedding {
    /// lambda_emb of Eq. 5. The paper's value is 1.5e-4.
    pub weight: f64,
    /// The axis along which the cosine is taken.
    pub formulation: Formulation,
    /// The tokens that are compared.
    pub context: Context,
}

impl Default for ContextEmbedding {
    fn default() -> Self {
        Self {
            weight: 1.5e-4,
            formulation: Formulation::default(),
            context: Context::default(),
        }
    }
}

impl Term for ContextEmbedding {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::TemplateHidden, Reading::ClassHidden]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let hidden = observed.template_hidden().map(Clone::clone);
        let [learned, reference] = keep(hidden, 1, observed.pair(), self.context);
        let axis = match self.formulation {
            Formulation::Paper => 2,
            Formulation::ReferenceCode => 1,
        };
        (-cosine_similarity(learned, reference, axis) + 1.0).mean()
    }
}

/// Cosine along `dim`, which is kept with length 1.
fn cosine_similarity(x: Tensor<3>, y: Tensor<3>, dim: usize) -> Tensor<3> {
    // Clamped before the root, whose slope at zero is infinite.
    let norm = |x: Tensor<3>| x.square().sum_dim(dim).clamp_min(EPS * EPS).sqrt();
    (x.clone() * y.clone()).sum_dim(dim) / (norm(x) * norm(y))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::span::{ContextPair, PromptSpan};
    use crate::term::Pass;

    fn value(formulation: Formulation, learned: [[f32; 2]; 4], reference: [[f32; 2]; 4]) -> f32 {
        let device = Device::flex();
        let span = PromptSpan::of_token(4, 1..2, 4);
        let pass = |rows| Pass {
            spans: vec![span.clone()],
            hidden: Some(Tensor::<2>::from_floats(rows, &device).unsqueeze::<3>()),
            prediction: None,
            attention: None,
        };
        let term = ContextEmbedding {
            formulation,
            ..Default::default()
        };
        let observed = Observed {
            template: Some(pass(learned)),
            class_template: Some(pass(reference)),
            pair: Some(ContextPair::new(span.clone(), span.clone()).unwrap()),
            ..Default::default()
        };
        term.forward(&observed).into_scalar::<f32>()
    }

    const BASE: [[f32; 2]; 4] = [[1.0, 0.0], [9.0, 9.0], [0.0, 2.0], [3.0, 4.0]];

    #[test]
    fn identical_prompts_cost_nothing_whatever_the_concept_is() {
        let mut other = BASE;
        other[1] = [-5.0, 1.0];
        for formulation in [Formulation::Paper, Formulation::ReferenceCode] {
            assert!(value(formulation, BASE, other).abs() < 1e-6);
        }
    }

    #[test]
    fn the_paper_averages_over_kept_tokens() {
        // Token 2 turned by a right angle: 1 - cos = 1; the two others 0.
        let mut other = BASE;
        other[2] = [2.0, 0.0];
        assert!((value(Formulation::Paper, BASE, other) - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn the_authors_code_averages_over_channels() {
        // Channel 0: (1, 0, 3) and (1, 2, 3): 10 / sqrt(10 * 14).
        // Channel 1: (0, 2, 4) and (0, 0, 4): 16 / sqrt(20 * 16).
        let mut other = BASE;
        other[2] = [2.0, 0.0];
        let expected = 1.0 - (10.0 / 140.0_f32.sqrt() + 16.0 / 320.0_f32.sqrt()) / 2.0;
        assert!((value(Formulation::ReferenceCode, BASE, other) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_length_of_an_embedding_does_not_matter_to_the_paper() {
        let other = BASE.map(|row| row.map(|x| 3.0 * x));
        assert!(value(Formulation::Paper, BASE, other).abs() < 1e-6);
    }
}
