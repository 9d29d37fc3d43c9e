//! Personalisation recipes, the training loop and the mini world.
//!
//! | what | module |
//! |---|---|
//! | TOML files | [`config`] |
//! | training, top to bottom | [`trainer`] |
//! | one optimiser step | [`stepper`] |
//! | which passes a step computes | [`observe`], [`prompt_encoder`] |
//! | which weights move, and how | [`adapters`], [`optimizer`], [`rescale`] |
//! | how the concept is written, where it starts | [`phrase`], [`initializers`] |
//! | test-time optimisation of the embedding for one prompt | [`optimize`] |
//! | photos, prompts, randomness | [`data`], [`augmentations`] |
//! | what a run writes while it trains | [`logging`] |
//! | what a run leaves behind, and opening it again | [`mod@run`] |
//! | time and memory | [`cost`] |
//! | completions for shells, manual pages, exit codes | [`manual`] |
//! | Ctrl-C and SIGTERM | [`interrupt`] |
//! | people from photos without training | [`tuning_free`] |
//! | scenes of the mini world, drawn by code | [`world`] |
//! | how the mini models were trained | [`pretrain`] |

pub mod adapters;
pub mod augmentations;
pub mod base_model;
pub mod config;
pub mod cost;
pub mod data;
pub mod error;
pub mod fault;
pub mod initializers;
pub mod interrupt;
pub mod logging;
mod loss_scale;
pub mod manual;
pub mod observe;
mod off;
pub mod optimize;
pub mod optimizer;
pub mod phrase;
pub mod pretrain;
pub mod progress;
pub mod prompt_encoder;
mod readings;
pub mod rescale;
pub mod run;
mod setup;
pub mod stepper;
pub mod trainer;
pub mod tuning_free;
mod validation;
pub mod world;

pub use base_model::BaseModel;
pub use config::RunConfig;
pub use error::{Error, Result};
pub use run::Run;
pub use trainer::{RunOptions, run, run_on};
