//! Prompt templates: checked, filled and tokenised before the first step.

use std::ops::Range;

use core_losses::{ContextPair, PromptSpan};
use core_model::tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::phrase::{Phrase, SLOT};

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

fn refuse(template: &str, reason: String) -> Error {
    Error::Template {
        template: template.to_string(),
        reason,
    }
}

/// The concept's words, and the tokenizer that knows them.
#[derive(Debug, Clone, Copy)]
pub struct ConceptWords<'a> {
    /// The tokenizer, with the placeholder token if there is one.
    pub tokenizer: &'a Tokenizer,
    /// The text that replaces `{}`.
    pub phrase: &'a Phrase,
}

/// A template filled with the concept.
#[derive(Debug, Clone)]
pub struct TrainingPrompt {
    /// The token ids, padded.
    pub ids: Vec<u32>,
    /// The positions of the phrase.
    pub span: PromptSpan,
}

/// A template filled with the learned concept and with the super-category.
#[derive(Debug, Clone)]
pub struct RegularizationPrompt {
    /// The token ids of y*, padded.
    pub learned: Vec<u32>,
    /// The token ids of y_cat, padded.
    pub reference: Vec<u32>,
    /// The corresponding positions of the two.
    pub pair: ContextPair,
}

/// A sentence about the concept and the same about its super-category.
#[derive(Debug, Clone)]
pub struct Sentence {
    /// With the concept.
    pub learned: TrainingPrompt,
    /// With the super-category.
    pub reference: TrainingPrompt,
}

/// The tokenised prompts of a stage.
#[derive(Debug)]
pub struct StagePrompts {
    /// The prompts of the photos; after those of the stage the same with each of an augmentation's words
    /// in front.
    pub training: Vec<TrainingPrompt>,
    /// The number of the stage's own prompts.
    pub own: usize,
    /// The regularisation templates; none when no term reads them.
    pub templates: Vec<RegularizationPrompt>,
    /// Ids of the class images' prompts, padded; none where no term reads them.
    pub class_prompts: Vec<Vec<u32>>,
    /// The sentence of a term that has one of its own.
    pub sentence: Option<Sentence>,
}

impl StagePrompts {
    /// Fills and tokenises templates.
    ///
    /// # Errors
    /// [`Error::Template`] naming the first that does not fit.
    pub fn new(
        words: &ConceptWords<'_>,
        training: &[String],
        regularization: &[String],
    ) -> Result<Self> {
        let own = training.len();
        let training = training
            .iter()
            .map(|template| words.training_prompt(template));
        let templates = regularization.iter();
        let templates = templates.map(|template| words.regularization_prompt(template));
        Ok(Self {
            own,
            training: training.collect::<Result<_>>()?,
            templates: templates.collect::<Result<_>>()?,
            class_prompts: Vec::new(),
            sentence: None,
        })
    }

    /// The same with the sentence of a term, filled and tokenised.
    ///
    /// # Errors
    /// [`Error::Template`] when the sentence does not fit.
    pub fn with_sentence(self, words: &ConceptWords<'_>, template: &str) -> Result<Self> {
        Ok(Self {
            sentence: Some(Sentence {
                learned: words.training_prompt(template)?,
                reference: words.class_prompt(template)?,
            }),
            ..self
        })
    }

    /// The same with prompts that have words in front.
    ///
    /// # Errors
    /// [`Error::Template`] naming the first that does not fit.
    pub fn with_words_in_front(
        mut self,
        words: &ConceptWords<'_>,
        training: &[String],
        in_front: &[&str],
    ) -> Result<Self> {
        for front in in_front {
            for template in training {
                let prompt = words.training_prompt(&format!("{front}{template}"))?;
                self.training.push(prompt);
            }
        }
        Ok(self)
    }

    /// The same with prompts of class images.
    #[must_use]
    pub fn with_class_prompts(self, words: &ConceptWords<'_>, prompts: &[String]) -> Self {
        let encode = |prompt: &String| words.tokenizer.encode(prompt).ids;
        Self {
            class_prompts: prompts.iter().map(encode).collect(),
            ..self
        }
    }
}

impl ConceptWords<'_> {
    /// A template filled with the concept.
    ///
    /// # Errors
    /// [`Error::Template`] when the concept would be cut off.
    pub fn training_prompt(&self, template: &str) -> Result<TrainingPrompt> {
        check_template(template)?;
        let words = self.phrase.words();
        let encoding = self.tokenizer.encode(&template.replace(SLOT, words));
        let context_length = self.tokenizer.context_length();
        // Begin of text, what stands before the concept, the concept.
        let before = template.split(SLOT).next().unwrap_or_default();
        let start = 1 + self.count(before);
        let concept = start..start + self.count(words);
        if concept.end >= encoding.length {
            let reason = format!(
                "is too long: the concept lies beyond the {context_length} tokens that the text \
                 encoder reads; shorten what comes before it"
            );
            return Err(refuse(template, reason));
        }
        if encoding.ids[concept.clone()] != word_ids(self.tokenizer, words)[..] {
            let reason =
                format!("joins `{words}` to the words beside it; put spaces around the braces");
            return Err(refuse(template, reason));
        }
        let span = PromptSpan {
            length: encoding.length,
            token: self.token(start),
            class_word: self.class_word(start),
            concept,
            context_length,
        };
        Ok(TrainingPrompt {
            ids: encoding.ids,
            span,
        })
    }

    /// A template filled with the concept and with the super-category.
    ///
    /// # Errors
    /// [`Error::Template`] when the concept would be cut off or the context tokens do not
    /// correspond.
    pub fn regularization_prompt(&self, template: &str) -> Result<RegularizationPrompt> {
        let learned = self.training_prompt(template)?;
        let reference = self.class_prompt(template)?;
        let pair = ContextPair::new(learned.span, reference.span)
            .map_err(|error| refuse(template, error.to_string()))?;
        Ok(RegularizationPrompt {
            learned: learned.ids,
            reference: reference.ids,
            pair,
        })
    }

    /// A template filled with the super-category, which may be cut off.
    fn class_prompt(&self, template: &str) -> Result<TrainingPrompt> {
        check_template(template)?;
        let filled = self.phrase.fill_with_class(template);
        let encoding = self.tokenizer.encode(&filled);
        let before = template.split(SLOT).next().unwrap_or_default();
        let start = 1 + self.count(before);
        let class = start..start + self.count(self.phrase.class());
        let context_length = self.tokenizer.context_length();
        Ok(TrainingPrompt {
            span: PromptSpan::of_token(encoding.length, class, context_length),
            ids: encoding.ids,
        })
    }

    /// Positions of the concept's token in a phrase that begins at `start`.
    fn token(&self, start: usize) -> Range<usize> {
        let first = start + self.count(&self.phrase.before_token());
        first..first + self.count(self.phrase.token())
    }

    /// Position of the first token of the super-category, where it follows the concept's token.
    fn class_word(&self, start: usize) -> Option<usize> {
        let before = self.phrase.before_class()?;
        Some(start + self.count(&before))
    }

    /// The number of tokens of words on their own, at most as many as a prompt can hold.
    fn count(&self, words: &str) -> usize {
        word_ids(self.tokenizer, words).len()
    }
}

/// The token ids of words, without start and end of text.
pub(crate) fn word_ids(tokenizer: &Tokenizer, words: &str) -> Vec<u32> {
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
