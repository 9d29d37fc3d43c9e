//! Starts from entries of the text encoder's vocabulary.

use core_model::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Initializer, Start};
use crate::data::prompts::word_ids;
use crate::error::Result;

/// `"super_category"`: the mean of the rows of the super-category's tokens, or of the concept's
/// `initializer_token` where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperCategory;

impl Initializer for SuperCategory {
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
        mean_of_words(start.words, start)
    }
}

/// `{ word = "toy" }`: the mean of the rows of these words' tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Word(pub String);

impl Initializer for Word {
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
        mean_of_words(&self.0, start)
    }
}

/// `{ id = 42170 }`: the row of one entry of the vocabulary, taken literally (Custom Diffusion
/// begins at entries that stand inside of words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Id(pub u32);

impl Initializer for Id {
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
        let rows = start.model.text_encoder().config().vocab_size;
        if self.0 as usize >= rows {
            let reason = format!(
                "`initializer` names entry {} of the vocabulary, which ends at {}",
                self.0,
                rows - 1
            );
            return Err(core_model::Error::Invalid(reason).into());
        }
        let row = start.model.text_encoder().token_embedding(self.0);
        Ok(vec![row; start.num_vectors])
    }
}

/// Every vector is the mean of the words' rows of the token table.
fn mean_of_words(words: &str, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
    let ids = word_ids(start.tokenizer, words);
    if ids.is_empty() {
        let reason = format!("the initializer token {words:?} has no token in the vocabulary");
        return Err(core_model::Error::Invalid(reason).into());
    }
    Ok(vec![start.mean_row(&ids); start.num_vectors])
}
