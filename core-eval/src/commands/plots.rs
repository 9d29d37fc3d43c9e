//! `core-eval plots`: the plots of a results folder, from its CSV files alone.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use super::say;
use core_eval::report::plot::draw_all;

/// Arguments of `core-eval plots`.
#[derive(Debug, Args)]
pub(crate) struct PlotsArgs {
    /// Folder with summary.csv, tokens.csv and curves.csv, as results/reference/ablation, or with learning
    /// curves, as models/curves
    folder: PathBuf,
}

/// Draws every plot for which there are rows.
///
/// # Errors
/// An absent or unwritable folder; no CSV files, or damaged ones.
pub(crate) fn run(args: &PlotsArgs) -> Result<()> {
    let folder = args.folder.display();
    ensure!(
        args.folder.is_dir(),
        "{folder}: no such folder; name one that an experiment wrote, as results/reference/ablation"
    );
    let drawn = draw_all(&args.folder)?;
    ensure!(
        !drawn.is_empty(),
        "{folder}: holds no rows to draw; expected summary.csv, tokens.csv, curves.csv or \
         the learning curves of core-train pretrain"
    );
    for path in drawn {
        say(&path.display().to_string());
    }
    Ok(())
}
