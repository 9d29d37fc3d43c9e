//! The subcommands of `core-train`, one file each.

pub mod embedding;
pub mod export;
pub mod generate;
mod inspect_model;
pub mod model;
pub mod pretrain;
pub mod train;
pub mod world;

use std::io::Write;

/// Writes a line of a report to standard output. A reader that has seen enough, as `head`, is no
/// failure: what was made is in files.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
