//! `core-eval merge`: one table of the variants of several experiments.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::say;

/// Arguments of `core-eval merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Results folders of experiments; the first variant of the first folder is the baseline
    #[arg(required = true, num_args = 2.., value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// The protocol whose scores are merged [default: the first protocol of the first folder]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the files and prints the table.
///
/// # Errors
/// As [`merge`](core_eval::merge::merge).
pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    let table = core_eval::merge::merge(&args.folders, args.protocol.as_deref(), &args.out)?;
    say(table.trim_end());
    Ok(())
}
