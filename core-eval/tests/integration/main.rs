//! Integration tests of core-eval: whole experiments on a tiny model, and every command of the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod aligned_faces;
mod attention;
mod base_images;
mod common;
mod configuration;
mod coverage;
#[path = "../../../core-model/tests/integration/damage.rs"]
mod damage;
mod disk;
mod experiments;
mod faces;
mod figures;
mod for_programs;
mod keep;
mod key_tables;
mod machines;
mod merge;
mod plan;
mod readers;
mod report_page;
mod score;
mod score_any_tool;
#[path = "../../../core-model/tests/integration/scratch.rs"]
mod scratch;
mod small_experiment;
mod study;
mod test_time;
mod tuning_free;
mod untrusted;
mod workers;
