//! Prompt templates: checked, filled and tokenised before the first step.

use core_losses::{ContextPair, PromptSpan};
use core_model::tokenizer::Tokenizer;

use crate::error::{Error, Result};

/// What stands for the concept in a template.
pub const SLOT: &str = "{}";

/// Fails unless a template names the concept exactly once.
///
/// # Errors
/// [`Error::Template`].
pub fn check_template(template: &str) -> Result<()> {
    let reason = match template.matches(SLOT).count() {
        1 => return Ok(()),
        0 => "has no {} for the concept; write for example \"a photo of a {}\"".to_string(),
        count => format!("has {count} places {{}} for the concept, expected one"),
    };
    Err(refuse(template, reason))
}

/// The template with `words` in place of the concept.
pub fn fill(template: &str, words: &str) -> String {
    template.replace(SLOT, words)
}

fn refuse(template: &str, reason: String) -> Error {
    Error::Template {
        template: template.to_string(),
        reason,
    }
}

/// The concept as the tokenizer knows it.
#[derive(Debug, Clone, Copy)]
pub struct ConceptWords<'a> {
    /// With the placeholder added.
    pub tokenizer: &'a Tokenizer,
    /// What stands for the concept.
    pub placeholder_token: &'a str,
    /// What kind of thing it is.
    pub super_category: &'a str,
}

/// A template filled with the learned concept and with the super-category.
#[derive(Debug, Clone)]
pub struct RegularizationPrompt {
    /// Ids of y*, padded.
    pub learned: Vec<u32>,
    /// Ids of y_cat, padded.
    pub reference: Vec<u32>,
    /// Which of their positions correspond.
    pub pair: ContextPair,
}

impl ConceptWords<'_> {
    /// The ids of a template filled with the concept, padded.
    ///
    /// # Errors
    /// [`Error::Template`] when the concept would be cut off.
    pub fn training_prompt(&self, template: &str) -> Result<Vec<u32>> {
        Ok(self.learned(template)?.0)
    }

    /// A template filled both ways.
    ///
    /// # Errors
    /// [`Error::Template`] when the concept would be cut off or the context tokens do not
    /// correspond.
    pub fn regularization_prompt(&self, template: &str) -> Result<RegularizationPrompt> {
        let (learned, learned_span) = self.learned(template)?;
        // Start and end are no words.
        let words = self.tokenizer.encode(self.super_category).length - 2;
        let reference = self.tokenizer.encode(&fill(template, self.super_category));
        let start = learned_span.concept.start;
        let reference_span = PromptSpan {
            length: reference.length,
            concept: start..start + words,
            context_length: self.tokenizer.context_length(),
        };
        let pair = ContextPair::new(learned_span, reference_span)
            .map_err(|error| refuse(template, error.to_string()))?;
        Ok(RegularizationPrompt {
            learned,
            reference: reference.ids,
            pair,
        })
    }

    fn learned(&self, template: &str) -> Result<(Vec<u32>, PromptSpan)> {
        check_template(template)?;
        let encoding = self
            .tokenizer
            .encode(&fill(template, self.placeholder_token));
        let context_length = self.tokenizer.context_length();
        let Some(concept) = encoding.placeholder else {
            let reason = format!(
                "is too long: the concept lies beyond the {context_length} tokens that the text \
                 encoder reads; shorten what comes before it"
            );
            return Err(refuse(template, reason));
        };
        let span = PromptSpan {
            length: encoding.length,
            concept,
            context_length,
        };
        Ok((encoding.ids, span))
    }
}

/// The ids of words alone, without start and end.
pub fn word_ids(tokenizer: &Tokenizer, words: &str) -> Vec<u32> {
    let encoding = tokenizer.encode(words);
    encoding.ids[1..encoding.length - 1].to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_the_concept_once() {
        assert!(check_template("a photo of a {}").is_ok());
        for (template, part) in [("a photo", "has no {}"), ("{} and {}", "2 places")] {
            let message = check_template(template).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains(template),
                "{message}"
            );
        }
    }
}
