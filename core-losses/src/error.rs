//! What can be wrong with a pair of prompts.

use std::ops::Range;

/// Two prompts whose context tokens cannot be brought together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The concept is not between start and end of the prompt.
    #[error(
        "the concept at positions {concept:?} does not lie between start and end of a prompt of \
         {length} tokens (of {context_length} at most); shorten what comes before it"
    )]
    ConceptOutside {
        /// Where the concept stands.
        concept: Range<usize>,
        /// Tokens from start to end, both counted.
        length: usize,
        /// The text encoder's positions.
        context_length: usize,
    },
    /// The prompts differ in more than the concept.
    #[error(
        "{learned} tokens surround the learned concept but {reference} the super-category, so \
         they cannot be compared; put spaces around the braces, or shorten the prompt if it was cut"
    )]
    ContextDiffers {
        /// Tokens outside the concept in the prompt with the learned concept.
        learned: usize,
        /// Tokens outside the concept in the prompt with the super-category.
        reference: usize,
    },
}
