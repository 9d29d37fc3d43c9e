//! Cross-attention map regularisation of AttnDreamBooth (Pang et al., NeurIPS 2024): the concept's
//! token draws as much attention as the class word that follows it.
//!
//! `L = mean * M + variance * V` with, for the means mu of the maps,
//! `M = 1/L sum_l sum_b 1/n sum_a (mu_{i+a} - mu_j)^2`, and V the same for their variances.
//!
//! P^l is [batch, heads, pixels, n] of cross-attention layer l in the pass over the photos, i the
//! first of the concept's n positions, j the class word's first. Mean and variance are over heads and
//! pixels together, the variance with Bessel's correction. The sum runs over the batch, as in the
//! authors' code: the published factors belong to batches of 8. Gradients flow through both maps.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::PromptSpan;
use crate::term::{Observed, Reading, Term};

/// How the term is computed; only one form is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionStatisticsFormulation {
    /// The authors' public PyTorch code.
    #[default]
    ReferenceCode,
}

/// Cross-attention map regularisation of AttnDreamBooth: the concept's token draws as much attention
/// as the class word that follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionStatistics {
    /// The factor of both parts together.
    pub weight: f64,
    /// The factor of the means. The paper's value is 0.1 in its first stage and 2 in the others.
    pub mean: f64,
    /// The factor of the variances. The paper's value is 0 in its first stage and 5 in the others.
    pub variance: f64,
    /// The published form of the term.
    pub formulation: AttentionStatisticsFormulation,
}

impl Default for AttentionStatistics {
    fn default() -> Self {
        Self {
            weight: 1.0,
            mean: 2.0,
            variance: 5.0,
            formulation: AttentionStatisticsFormulation::default(),
        }
    }
}

impl Term for AttentionStatistics {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn reads(&self) -> &'static [Reading] {
        &[Reading::PhotoAttention, Reading::ClassWord]
    }

    fn forward(&self, observed: &Observed) -> Tensor<1> {
        let (maps, spans) = observed.photo_attention();
        let mut total: Option<Tensor<1>> = None;
        for map in maps {
            let [_, heads, pixels, tokens] = map.dims();
            assert!(
                heads * pixels > 1 || self.variance == 0.0,
                "a map of one value has no variance"
            );
            for (sample, span) in spans.iter().enumerate() {
                let map = map.clone().narrow(0, sample, 1);
                let of_sample = self.sample(map.reshape([heads * pixels, tokens]), span);
                total = Some(match total {
                    Some(sum) => sum + of_sample,
                    None => of_sample,
                });
            }
        }
        match total {
            Some(total) => total / maps.len() as f64,
            None => panic!("a U-Net has cross-attention"),
        }
    }
}

impl AttentionStatistics {
    /// Of one map [heads x pixels, tokens], shape `[1]`.
    fn sample(&self, map: Tensor<2>, span: &PromptSpan) -> Tensor<1> {
        let Some(class_word) = span.class_word else {
            panic!("the phrase has a class word after the concept's token");
        };
        let (first, vectors) = (span.token.start, span.token.len());
        let mut value: Option<Tensor<1>> = None;
        for (factor, statistic) in [
            (self.mean, map.clone().mean_dim(0)),
            (self.variance, variance(map)),
        ] {
            if factor == 0.0 {
                continue;
            }
            let concept = statistic.clone().narrow(1, first, vectors);
            let class = statistic.narrow(1, class_word, 1);
            let part = (concept - class).square().mean() * factor;
            value = Some(match value {
                Some(sum) => sum + part,
                None => part,
            });
        }
        value.unwrap_or_else(|| panic!("one of the factors is above zero"))
    }
}

/// Over the first dimension, with Bessel's correction, [1, tokens].
fn variance(map: Tensor<2>) -> Tensor<2> {
    let [count, _] = map.dims();
    let mean = map.clone().mean_dim(0);
    (map - mean).square().sum_dim(0) / (count.max(2) - 1) as f64
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::term::Pass;

    /// Maps of `batch` equal samples with two pixels, for BOS S* class EOT.
    fn value(batch: usize, concept: [f32; 2], class: [f32; 2]) -> f32 {
        let device = Device::flex();
        let span = PromptSpan {
            length: 4,
            concept: 1..3,
            token: 1..2,
            class_word: Some(2),
            context_length: 4,
        };
        let pixel = |i: usize| [0.1, concept[i], class[i], 0.2];
        let map = Tensor::<2>::from_floats([pixel(0), pixel(1)], &device).reshape([1, 1, 2, 4]);
        let observed = Observed {
            photos: Some(Pass {
                spans: vec![span; batch],
                hidden: Some(Tensor::zeros([batch, 4, 1], &device)),
                prediction: None,
                attention: Some(vec![map.repeat_dim(0, batch)]),
            }),
            ..Observed::default()
        };
        let value = AttentionStatistics::default().forward(&observed);
        value.into_scalar::<f32>()
    }

    #[test]
    fn equal_maps_cost_nothing() {
        assert_eq!(value(2, [0.3, 0.5], [0.3, 0.5]), 0.0);
    }

    #[test]
    fn means_and_variances_are_compared_and_samples_added_up() {
        // Means .4 and .2; variances .02 and 0: 2 * .04 + 5 * .0004.
        let one = value(1, [0.3, 0.5], [0.2, 0.2]);
        assert!((one - 0.082).abs() < 1e-6, "{one}");
        assert!((value(3, [0.3, 0.5], [0.2, 0.2]) - 3.0 * one).abs() < 1e-6);
    }
}
