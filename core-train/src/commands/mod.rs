//! The subcommands of `core-train`, one file each.

pub mod generate;
pub mod pretrain;
pub mod train;
pub mod world;
