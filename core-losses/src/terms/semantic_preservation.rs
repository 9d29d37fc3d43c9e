//! Semantic preservation of ClassDiffusion (Huang et al. 2024): a sentence about the concept means
//! what the same sentence about its super-category means.
//!
//! `L = 1 - cos(e(y), e(y_cat))`: e is the text encoder's last hidden state at the end of text, y the
//! term's own prompt with the concept and y_cat with the super-category, which is constant.
//!
//! The end of text is where the prompt ends. The authors' code takes the largest token number instead
//! (what `eos_token_id = 2` in published configs means), which with an added token is the concept's
//! own position, and it leaves the concept's position embedding out; neither is inherited here. Its
//! diffusion loss is four times the mean, so its weight 1 is 0.25 beside a loss that is the mean.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::term::{Observed, Reading, Term};

/// Smallest norm to divide by, as in `torch.nn.functional.cosine_similarity`.
const EPS: f64 = 1e-8;

/// Semantic preservation of ClassDiffusion: a sentence about the concept means what it means about the
/// super-category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticPreservation {
    /// Its factor in the total loss. The paper's value is 1 beside a diffusion loss that is summed over
    /// the four channels, as with `augmentation = "custom_diffusion"`, and 0.25 beside the mean.
    pub weight: f64,
    /// The sentence. `{}` stands for the concept.
    pub prompt: String,
}

impl Default for SemanticPreservation {
    fn default() -> Self {
        Self {
            weight: 1.0,
            prompt: "a photo of a {}".into(),
        }
    }
}

impl Term for SemanticPreservation {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::Sentence]
    }

    fn sentence(&self) -> Option<&str> {
        Some(&self.prompt)
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let [learned, reference] = observed.ends_of_sentence();
        // Clamped before the root, whose slope at zero is infinite.
        let norm = |x: &Tensor<2>| x.clone().square().sum_dim(1).clamp_min(EPS * EPS).sqrt();
        let product = (learned.clone() * reference.clone()).sum_dim(1);
        let cosine = product / (norm(&learned) * norm(&reference));
        (-cosine + 1.0).mean()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::span::PromptSpan;
    use crate::term::Pass;

    /// Of prompts with four and three tokens, padded to five; the last rows are padding.
    fn value(learned: [[f32; 2]; 5], reference: [[f32; 2]; 5]) -> f32 {
        let pass = |rows: [[f32; 2]; 5], length| Pass {
            spans: vec![PromptSpan::of_token(length, 1..2, 5)],
            hidden: Some(Tensor::<2>::from_floats(rows, &Device::flex()).unsqueeze::<3>()),
            prediction: None,
            attention: None,
        };
        let observed = Observed {
            sentence: Some(pass(learned, 4)),
            class_sentence: Some(pass(reference, 3)),
            ..Observed::default()
        };
        let value = SemanticPreservation::default().forward(&observed);
        value.into_scalar::<f32>()
    }

    const LEARNED: [[f32; 2]; 5] = [[0.0, 0.0], [9.0, 9.0], [1.0, 1.0], [3.0, 4.0], [7.0, 0.0]];

    #[test]
    fn sentences_that_end_alike_cost_nothing_whatever_stands_before_and_after() {
        let reference = [[5.0, 1.0], [0.0, 2.0], [3.0, 4.0], [8.0, 0.0], [0.0, 1.0]];
        assert!(value(LEARNED, reference).abs() < 1e-6);
    }

    #[test]
    fn it_is_one_minus_the_cosine_of_the_ends() {
        // (3, 4) and (2, 0): cosine .6.
        let reference = [[3.0, 4.0], [3.0, 4.0], [2.0, 0.0], [3.0, 4.0], [3.0, 4.0]];
        assert!((value(LEARNED, reference) - 0.4).abs() < 1e-6);
    }
}
