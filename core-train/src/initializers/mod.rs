//! Where learning a concept starts from: `initializer = ..` of a recipe. An initialiser is one
//! file here, one variant below and its line.

mod encoder_output;
mod vocabulary;

use std::path::{Path, PathBuf};

use core_model::personalized::PersonalizedModel;
use core_model::tokenizer::Tokenizer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use encoder_output::{EncoderOutput, Names};
pub use vocabulary::{Id, SuperCategory, Word};

use crate::error::Result;

/// What an initialiser may look at.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The base model's.
    pub tokenizer: &'a Tokenizer,
    /// The base model's networks.
    pub model: &'a PersonalizedModel,
    /// The words that the concept names as its start: its super-category, unless it says otherwise.
    pub words: &'a str,
    /// The number of vectors to be learned.
    pub num_vectors: usize,
}

impl Start<'_> {
    /// The mean of these rows of the token table, of which there is at least one.
    fn mean_row(&self, ids: &[u32]) -> Vec<f32> {
        let encoder = self.model.text_encoder();
        let rows: Vec<Vec<f32>> = ids.iter().map(|id| encoder.token_embedding(*id)).collect();
        let sum = |i: usize| rows.iter().map(|row| f64::from(row[i])).sum::<f64>();
        let width = rows.first().map_or(0, Vec::len);
        (0..width)
            .map(|i| (sum(i) / rows.len() as f64) as f32)
            .collect()
    }
}

/// One way to begin.
pub trait Initializer {
    /// The first vectors of the concept, `num_vectors` rows as wide as the text encoder's tokens.
    ///
    /// # Errors
    /// A word or an id that the vocabulary does not have.
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>>;
}

/// The start of learning: a name, or a table with a name and a value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitializerConfig {
    /// The mean of the token embeddings of the super-category.
    #[default]
    SuperCategory,
    /// The mean of the token embeddings of these words.
    Word(Word),
    /// The embedding of the vocabulary's entry with this number.
    Id(Id),
    /// The output of the text encoder for the super-category (Cross Initialization). It has as many
    /// tokens as vectors are learned, or one, which is then written once for each vector.
    EncoderOutput,
    /// The output of the text encoder for the mean of these names (Cross Initialization): vector i is
    /// that of the mean of their i-th tokens. A list, or a text file with one name per line.
    EncoderOutputOfNames(Names),
}

impl InitializerConfig {
    /// The file that it names, if it names one.
    pub(crate) fn file(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::EncoderOutputOfNames(Names::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The same with its file read, relative to `base`.
    ///
    /// # Errors
    /// A file that cannot be read or holds no names.
    pub(crate) fn complete(self, base: &Path) -> Result<Self> {
        Ok(match self {
            Self::EncoderOutputOfNames(names) => Self::EncoderOutputOfNames(names.read(base)?),
            other => other,
        })
    }

    /// What computes the vectors.
    pub fn initializer(&self) -> &dyn Initializer {
        match self {
            Self::SuperCategory => &SuperCategory,
            Self::Word(word) => word,
            Self::Id(id) => id,
            Self::EncoderOutput => &EncoderOutput,
            Self::EncoderOutputOfNames(names) => names,
        }
    }
}
