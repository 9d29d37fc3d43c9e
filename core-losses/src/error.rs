//! Errors of a pair of prompts.

use std::ops::Range;

/// A pair of prompts whose context tokens do not correspond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The concept is not between start and end of the prompt.
    #[error(
        "the concept at positions {concept:?} does not lie between start and end of a prompt of \
         {length} tokens (of {context_length} at most); shorten what comes before it"
    )]
    ConceptOutside {
        /// The positions of the concept.
        concept: Range<usize>,
        /// Number of tokens from start to end, both included.
        length: usize,
        /// Number of positions that the text encoder reads.
        context_length: usize,
    },
    /// The prompts differ in more than the concept.
    #[error(
        "{learned} tokens surround the learned concept but {reference} the super-category, so \
         they cannot be compared; put spaces around the braces, or shorten the prompt if it was cut"
    )]
    ContextDiffers {
        /// Number of tokens outside the concept in the prompt with the learned concept.
        learned: usize,
        /// Number of tokens outside the concept in the prompt with the super-category.
        reference: usize,
    },
}
