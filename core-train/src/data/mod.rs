//! What is trained on: photos, prompts, and the randomness that chooses among them.

pub mod batch;
pub mod draws;
pub mod landmarks;
pub mod nested_dropout;
pub mod photos;
pub mod prior;
pub mod prompts;
pub mod rendered;
pub mod replay;
pub mod shots;
