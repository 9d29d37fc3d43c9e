//! What is trained on: rendered scenes, photographs, prompts.

pub mod world;
