//! What is trained on: rendered scenes, photographs, prompts.

pub mod concept;
pub mod contact_sheet;
pub mod prompts;
pub mod world;
