//! The commands of `core-eval`, one file each.

pub mod experiment;
