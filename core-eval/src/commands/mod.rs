//! The commands of `core-eval`, one file each.

pub(crate) mod doctor;
pub(crate) mod experiment;
pub(crate) mod merge;
pub(crate) mod plots;
pub(crate) mod precision;
pub(crate) mod report;
pub(crate) mod score;
pub(crate) mod study;

use std::io::Write;

/// Writes a line to standard output. A closed pipe, as by `head`, is not an error: the results are in
/// files.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
