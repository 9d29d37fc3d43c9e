//! Personalisation recipes, the training loop and the mini world.

pub mod data;
pub mod optimizer;
pub mod progress;
