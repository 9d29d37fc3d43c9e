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
use std::path::Path;

use anyhow::Result;
use core_eval::experiment::Experiment;

/// Writes a line to standard output. A closed pipe, as by `head`, is not an error: the results are in
/// files.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The experiment of a file with what a command line changes of it; the baseline stays beside the named
/// variants.
///
/// # Errors
/// A file that cannot be read or does not fit, a variant that it does not have.
fn load_experiment(
    file: &Path,
    device: Option<&String>,
    quick: bool,
    variants: &[String],
) -> Result<Experiment> {
    let mut experiment = Experiment::load(file)?;
    if let Some(device) = device {
        experiment.device.clone_from(device);
    }
    if quick {
        experiment = experiment.quick();
    }
    experiment.only(variants)
}
