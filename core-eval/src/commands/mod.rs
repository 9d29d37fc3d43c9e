//! The commands of `core-eval`, one file each.

pub(crate) mod doctor;
pub(crate) mod experiment;
pub(crate) mod figures;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod precision;
pub(crate) mod report;
pub(crate) mod score;
pub(crate) mod study;
pub(crate) mod submit;

use std::io::Write;

use anyhow::Result;
use core_train::manual::ManArgs;

/// Writes a line to standard output. A closed pipe, as by `head`, is not an error: the results are in
/// files.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a text to standard output.
pub(crate) fn print(text: &[u8]) {
    let _ = std::io::stdout().lock().write_all(text);
}

/// Writes the manual pages and says how many.
///
/// # Errors
/// A folder that cannot be made or written to.
pub(crate) fn man(args: &ManArgs, program: clap::Command) -> Result<()> {
    let count = args.write(program)?;
    say(&format!("{count} manual pages"));
    Ok(())
}
