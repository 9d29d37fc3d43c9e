//! What is trained on: rendered scenes, photographs, prompts.

pub mod concept;
pub mod prompts;
pub mod world;
