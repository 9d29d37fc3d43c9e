//! The direction of the concept's vectors, whose length is set once and kept (Directional Textual
//! Inversion).

use burn::tensor::Tensor;
use core_model::params::to_vec;
use core_model::personalized::PersonalizedModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::optimizer::norms;

/// The direction of the vectors alone is trained; all have the same length, which stays what it is (Directional Textual
/// Inversion). The optimiser must be `kind = "spherical_sgd"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// The length of every vector: the mean, smallest or largest length of the text encoder's token embeddings, or a
    /// number.
    pub scale: Scale,
}

/// A length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected `scale` to be \"mean\", \"min\", \"max\" or a number"
)]
pub enum Scale {
    /// That of the token embeddings.
    OfTable(OfTable),
    /// A number.
    Length(f64),
}

/// Which of the lengths of the token embeddings; those of length 0 do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OfTable {
    /// Their mean.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl Direction {
    /// The model with the concept's vectors at this length.
    ///
    /// # Errors
    /// A vector of length 0, which has no direction.
    pub(super) fn apply(self, mut model: PersonalizedModel) -> Result<PersonalizedModel> {
        let Some(concept) = model.embedding() else {
            return Ok(model);
        };
        let vectors = concept.vectors().inner();
        let lengths = norms(vectors.clone());
        if to_vec(lengths.clone()).contains(&0.0) {
            let reason = "the concept starts at a vector of length 0, which has no direction; set \
                          `initializer` to a word whose embedding is not zero";
            return Err(core_model::Error::Invalid(reason.into()).into());
        }
        let length = self.scale.length(model.text_encoder().token_table());
        model.set_vectors(vectors / lengths * length);
        Ok(model)
    }
}

impl Scale {
    fn length(self, table: Tensor<2>) -> f64 {
        let of = match self {
            Self::Length(length) => return length,
            Self::OfTable(of) => of,
        };
        let lengths = to_vec(norms(table)).into_iter().map(f64::from);
        let lengths: Vec<f64> = lengths.filter(|length| *length > 0.0).collect();
        let values = lengths.iter().copied();
        match of {
            OfTable::Mean => values.sum::<f64>() / lengths.len() as f64,
            OfTable::Min => values.fold(f64::INFINITY, f64::min),
            OfTable::Max => values.fold(0.0, f64::max),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn token_embeddings_of_length_zero_do_not_count() {
        let rows = [[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]];
        let table = || Tensor::from_floats(rows, &Device::flex());
        let lengths = [OfTable::Mean, OfTable::Min, OfTable::Max];
        let lengths = lengths.map(|of| Scale::OfTable(of).length(table()));
        assert_eq!(lengths, [3.0, 1.0, 5.0]);
        assert_eq!(Scale::Length(2.5).length(table()), 2.5);
    }
}
