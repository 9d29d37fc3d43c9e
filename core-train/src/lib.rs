//! Personalisation recipes, the training loop and the mini world.

pub mod optimizer;
pub mod progress;
