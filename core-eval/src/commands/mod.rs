//! The commands of `core-eval`, one file each.

pub mod doctor;
pub mod experiment;
pub mod merge;
pub mod plots;
pub mod precision;
pub mod score;

pub(crate) use core_train::commands::say;
