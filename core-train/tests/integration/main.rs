//! Integration tests of core-train: training against PyTorch, interrupted runs, and every command of the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapters;
mod changed_weights;
mod cli;
mod common;
mod cross_initialization;
mod custom_diffusion;
mod custom_diffusion_files;
mod direction;
mod disk;
mod embedding;
mod experiments;
mod export;
mod frozen_weights;
mod generate;
mod generate_many;
mod golden;
mod half;
mod hub;
mod init;
mod inspect_model;
mod logging;
mod manual;
mod neti;
mod networks;
mod one_file;
mod pretrain;
mod pretrain_people;
mod resume;
mod third_party;
mod trajectory;
mod tuning_free;
