//! Where learning a concept starts from: `initializer = ..` of a recipe. An initialiser is one
//! file here, one variant below and its line.

mod vocabulary;

use core_model::personalized::PersonalizedModel;
use core_model::tokenizer::Tokenizer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

impl InitializerConfig {
    /// What computes the vectors.
    pub fn initializer(&self) -> &dyn Initializer {
        match self {
            Self::SuperCategory => &SuperCategory,
            Self::Word(word) => word,
            Self::Id(id) => id,
        }
    }
}
