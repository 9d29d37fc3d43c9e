//! Integration tests of core-eval: whole experiments on a tiny model, and every command of the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod common;
mod configuration;
mod coverage;
mod experiments;
mod key_tables;
mod merge;
mod score;
mod small_experiment;
