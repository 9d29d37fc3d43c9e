//! The whole objective, Eq. 5 of the paper: `L = L_diffusion + sum of lambda * term`.

use burn::tensor::Tensor;

use crate::LossTerm;
use crate::term::{Observed, Term};

/// The objective of one step with its parts.
#[derive(Debug, Clone)]
pub struct Losses {
    /// The weighted sum, shape `[1]`, of which the gradient is taken.
    pub total: Tensor<1>,
    /// The unweighted value of every term by its `kind`, in the order given, shape `[1]` each;
    /// `None` for a term of weight zero, which is not computed.
    pub terms: Vec<(&'static str, Option<Tensor<1>>)>,
}

/// Adds up the weighted terms; `None` when no term has a weight.
///
/// # Panics
/// When `observed` lacks what a term reads: a programmer's error.
pub fn total_loss(terms: &[LossTerm], observed: &Observed) -> Option<Losses> {
    let mut total: Option<Tensor<1>> = None;
    let mut values = Vec::with_capacity(terms.len());
    for term in terms {
        let weight = term.weight();
        let value = (weight != 0.0).then(|| term.forward(observed));
        if let Some(value) = &value {
            let weighted = match weight {
                1.0 => value.clone(),
                _ => value.clone() * weight,
            };
            total = Some(match total {
                Some(sum) => sum + weighted,
                None => weighted,
            });
        }
        values.push((term.kind(), value));
    }
    let terms = values;
    total.map(|total| Losses { total, terms })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::span::{ContextPair, PromptSpan};
    use crate::term::Pass;
    use crate::{ContextAttention, ContextEmbedding, Diffusion};

    #[test]
    fn terms_are_weighted_in_the_sum_and_unweighted_in_the_list() {
        let device = Device::flex();
        let span = PromptSpan::of_token(3, 1..2, 3);
        let pass = |rows: [[f32; 2]; 3]| Pass {
            spans: vec![span.clone()],
            hidden: Some(Tensor::<2>::from_floats(rows, &device).unsqueeze::<3>()),
            prediction: None,
            attention: None,
        };
        let images = |value: f32| Tensor::<4>::full([1, 1, 1, 1], value, &device);
        let learned = pass([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let observed = Observed {
            photos: Some(Pass {
                prediction: Some([images(3.0), images(1.0)]),
                ..learned.clone()
            }),
            template: Some(learned),
            class_template: Some(pass([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])),
            pair: Some(ContextPair::new(span.clone(), span.clone()).unwrap()),
            ..Observed::default()
        };
        let terms = [
            LossTerm::Diffusion(Diffusion::default()),
            LossTerm::ContextEmbedding(ContextEmbedding {
                weight: 4.0,
                ..Default::default()
            }),
            // Without attention maps this would panic if it were computed.
            LossTerm::ContextAttention(ContextAttention {
                weight: 0.0,
                ..Default::default()
            }),
        ];
        let losses = total_loss(&terms, &observed).unwrap();
        // (3 - 1)^2 + 4 * (0 + 1) / 2
        assert_eq!(losses.total.into_scalar::<f32>(), 6.0);
        let values: Vec<_> = losses
            .terms
            .into_iter()
            .map(|(kind, value)| (kind, value.map(Tensor::into_scalar::<f32>)))
            .collect();
        assert_eq!(
            values,
            [
                ("diffusion", Some(4.0)),
                ("context_embedding", Some(0.5)),
                ("context_attention", None)
            ]
        );
    }

    #[test]
    fn nothing_to_add_up_is_no_loss() {
        assert!(total_loss(&[], &Observed::default()).is_none());
    }
}
