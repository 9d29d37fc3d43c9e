//! Which positions of two prompts correspond: the context tokens.
//!
//! The same template is filled with the learned concept S* and with its super-category. All
//! tokens but the concept's are context. Concepts of several vectors and super-categories of
//! several tokens shift what comes after them, so positions are paired after the concept's span
//! was taken out of both prompts.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which context tokens the context terms compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Start token, words and the first end token, as in the authors' code.
    #[default]
    Prompt,
    /// All positions, with the padding cut to that of the shorter prompt, as in the paper's sums.
    Padded,
}

/// The positions of the concept in one tokenised prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptSpan {
    /// Number of tokens from BOS to the first EOT, both included.
    pub length: usize,
    /// Positions of the concept as it is written, between BOS and EOT: of the whole phrase.
    pub concept: Range<usize>,
    /// Positions of the concept's token in it: one for each of its vectors.
    pub token: Range<usize>,
    /// Position of the first token of the super-category that follows the concept's token, where
    /// the phrase has it.
    pub class_word: Option<usize>,
    /// Number of positions that the text encoder reads, padding included.
    pub context_length: usize,
}

impl PromptSpan {
    /// A concept that is written as its token alone.
    pub fn of_token(length: usize, token: Range<usize>, context_length: usize) -> Self {
        Self {
            length,
            concept: token.clone(),
            token,
            class_word: None,
            context_length,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let Self {
            length,
            concept,
            context_length,
            ..
        } = self;
        // BOS comes before it and EOT after it.
        let inside = concept.start >= 1 && !concept.is_empty() && concept.end < *length;
        if inside && length <= context_length {
            Ok(())
        } else {
            Err(Error::ConceptOutside {
                concept: concept.clone(),
                length: *length,
                context_length: *context_length,
            })
        }
    }

    /// The positions below `end` that are not the concept's.
    fn outside(&self, end: usize) -> Vec<usize> {
        (0..end).filter(|i| !self.concept.contains(i)).collect()
    }
}

/// One template filled twice, with the correspondence of its context tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextPair {
    learned: PromptSpan,
    reference: PromptSpan,
}

impl ContextPair {
    /// Pairs the prompt with the learned concept and the one with the super-category.
    ///
    /// # Errors
    /// [`Error::ConceptOutside`] when truncation cut a concept off, [`Error::ContextDiffers`] when
    /// the numbers of tokens outside the concepts differ.
    pub fn new(learned: PromptSpan, reference: PromptSpan) -> Result<Self, Error> {
        learned.check()?;
        reference.check()?;
        let counts = [&learned, &reference].map(|span| span.outside(span.length).len());
        if counts[0] != counts[1] || learned.concept.start != reference.concept.start {
            return Err(Error::ContextDiffers {
                learned: counts[0],
                reference: counts[1],
            });
        }
        Ok(Self { learned, reference })
    }

    /// The span of the concept.
    pub fn learned(&self) -> &PromptSpan {
        &self.learned
    }

    /// The span of the super-category.
    pub fn reference(&self) -> &PromptSpan {
        &self.reference
    }

    /// The corresponding positions in the learned and in the reference prompt, in order; both lists
    /// have the same length.
    pub fn kept(&self, context: Context) -> [Vec<usize>; 2] {
        let spans = [&self.learned, &self.reference];
        match context {
            Context::Prompt => spans.map(|span| span.outside(span.length)),
            Context::Padded => {
                let mut kept = spans.map(|span| span.outside(span.context_length));
                let shorter = kept[0].len().min(kept[1].len());
                for positions in &mut kept {
                    positions.truncate(shorter);
                }
                kept
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn span(length: usize, concept: Range<usize>) -> PromptSpan {
        PromptSpan::of_token(length, concept, 8)
    }

    #[test]
    fn without_the_concept_equal_words_stand_at_equal_places() {
        // BOS a S* in space EOT / BOS a stuffed animal in space EOT
        let pair = ContextPair::new(span(6, 2..3), span(7, 2..4)).unwrap();
        let [learned, reference] = pair.kept(Context::Prompt);
        assert_eq!(learned, [0, 1, 3, 4, 5]);
        assert_eq!(reference, [0, 1, 4, 5, 6]);
    }

    #[test]
    fn padding_is_cut_to_the_shorter_prompt() {
        let pair = ContextPair::new(span(6, 2..3), span(7, 2..4)).unwrap();
        let [learned, reference] = pair.kept(Context::Padded);
        assert_eq!(learned, [0, 1, 3, 4, 5, 6]);
        assert_eq!(reference, [0, 1, 4, 5, 6, 7]);
    }

    #[test]
    fn concepts_of_several_vectors_are_taken_out_whole() {
        let pair = ContextPair::new(span(7, 2..5), span(5, 2..3)).unwrap();
        let [learned, reference] = pair.kept(Context::Prompt);
        assert_eq!(learned, [0, 1, 5, 6]);
        assert_eq!(reference, [0, 1, 3, 4]);
    }

    #[test]
    fn prompts_that_differ_in_more_than_the_concept_are_refused() {
        let error = ContextPair::new(span(6, 2..3), span(8, 2..4)).unwrap_err();
        assert_eq!(
            error,
            Error::ContextDiffers {
                learned: 5,
                reference: 6
            }
        );
    }

    #[test]
    fn a_concept_that_was_cut_off_is_refused() {
        for concept in [5..6, 0..1, 3..3] {
            let error = ContextPair::new(span(6, concept), span(6, 2..3)).unwrap_err();
            assert!(matches!(error, Error::ConceptOutside { .. }));
        }
    }
}
