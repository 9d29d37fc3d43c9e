//! Personalisation recipes, the training loop and the mini world.

pub mod commands;
pub mod data;
pub mod optimizer;
pub mod pretrain;
pub mod progress;
