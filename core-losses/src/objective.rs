//! The whole objective, Eq. 5 of the paper.

use burn::tensor::Tensor;

use crate::RegularizerConfig;
use crate::regularizer::{Regularizer, RegularizerInput};

/// The objective of one step with its parts.
#[derive(Debug, Clone)]
pub struct LossTerms {
    /// `L = L_diffusion + sum of lambda * term`, shape `[1]`; what is differentiated.
    pub total: Tensor<1>,
    /// The diffusion loss, shape `[1]`; absent in test-time optimisation.
    pub diffusion: Option<Tensor<1>>,
    /// The unweighted value of every term by its `kind`, in the order given, shape `[1]` each;
    /// `None` for a term of weight zero, which is not computed.
    pub terms: Vec<(&'static str, Option<Tensor<1>>)>,
}

/// Adds the weighted regularisers to the diffusion loss.
///
/// `input` may be absent when no regulariser has a weight. Returns `None` when there is nothing
/// to add up at all.
///
/// # Panics
/// When a regulariser has a weight but `input` is absent: a programmer's error.
pub fn total_loss(
    diffusion: Option<Tensor<1>>,
    regularizers: &[RegularizerConfig],
    input: Option<&RegularizerInput<'_>>,
) -> Option<LossTerms> {
    let mut total = diffusion.clone();
    let mut terms = Vec::with_capacity(regularizers.len());
    for regularizer in regularizers {
        let value = (regularizer.weight() != 0.0).then(|| {
            let Some(input) = input else {
                panic!("{} needs two prompts to compare", regularizer.kind());
            };
            regularizer.forward(input)
        });
        if let Some(value) = &value {
            let weighted = value.clone() * regularizer.weight();
            total = Some(match total {
                Some(sum) => sum + weighted,
                None => weighted,
            });
        }
        terms.push((regularizer.kind(), value));
    }
    total.map(|total| LossTerms {
        total,
        diffusion,
        terms,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{ContextAttention, ContextEmbedding, ContextPair, PromptSpan};

    #[test]
    fn terms_are_weighted_in_the_sum_and_unweighted_in_the_list() {
        let device = Device::flex();
        let span = PromptSpan {
            length: 3,
            concept: 1..2,
            context_length: 3,
        };
        let pair = ContextPair::new(span.clone(), span).unwrap();
        let x = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], &device);
        let y = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], &device);
        let (x, y) = (x.unsqueeze::<3>(), y.unsqueeze::<3>());
        let input = RegularizerInput {
            pair: &pair,
            embeddings: [&x, &y],
            attention: None,
        };
        let regularizers = [
            RegularizerConfig::ContextEmbedding(ContextEmbedding {
                weight: 4.0,
                ..Default::default()
            }),
            // Without attention maps this would panic if it were computed.
            RegularizerConfig::ContextAttention(ContextAttention {
                weight: 0.0,
                ..Default::default()
            }),
        ];
        let diffusion = Tensor::<1>::from_floats([3.0], &device);
        let terms = total_loss(Some(diffusion), &regularizers, Some(&input)).unwrap();
        assert_eq!(terms.total.into_scalar::<f32>(), 5.0);
        assert_eq!(terms.terms[0].0, "context_embedding");
        let value = terms.terms[0].1.clone().unwrap();
        assert_eq!(value.into_scalar::<f32>(), 0.5);
        assert!(terms.terms[1].1.is_none());
    }

    #[test]
    fn nothing_to_add_up_is_no_loss() {
        assert!(total_loss(None, &[], None).is_none());
    }
}
