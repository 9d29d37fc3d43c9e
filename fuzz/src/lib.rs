//! The readers of files, one function per format. They are those of the property tests.

#![allow(clippy::expect_used, reason = "a target fails by panicking")]

#[path = "../../core-eval/tests/integration/readers.rs"]
pub mod experiments;
#[path = "../../core-model/tests/integration/readers.rs"]
pub mod models;
#[path = "../../core-model/tests/integration/scratch.rs"]
mod scratch;
