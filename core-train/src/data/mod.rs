//! What is trained on: photos and prompts.

pub mod concept;
pub mod prompts;
