//! Personalisation recipes, the training loop and the mini world.
//!
//! | what | module |
//! |---|---|
//! | TOML files | [`config`] |
//! | the loop over stages | [`trainer`] |
//! | one step: the terms of the objective | [`step`] |
//! | which weights move, and how | [`trainable`], [`optimizer`] |
//! | one prompt made better, after training | [`optimize`] |
//! | photos, prompts, randomness | [`data`], [`conditioning`], [`draws`], [`replay`] |
//! | what a run leaves behind | [`run_dir`], [`metrics`], [`state`] |
//! | Ctrl-C | [`interrupt`] |
//! | scenes of the mini world, drawn by code | [`world`] |
//! | how the mini models were trained | [`pretrain`] |

pub mod commands;
pub mod conditioning;
pub mod config;
pub mod data;
pub mod draws;
pub mod environment;
pub mod error;
pub mod estimate;
pub mod interrupt;
pub mod memory;
pub mod metrics;
pub mod optimize;
pub mod optimizer;
pub mod pretrain;
pub mod progress;
pub mod replay;
pub mod run_dir;
mod stage;
pub mod state;
pub mod step;
pub mod timing;
pub mod trainable;
pub mod trainer;
mod validation;
pub mod world;

pub use config::RunConfig;
pub use error::{Error, Result};
pub use trainer::{RunOptions, run};
