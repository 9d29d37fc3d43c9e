//! `core-eval figures`: the figures and tables of a results folder, from its files.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use super::say;
use core_eval::report::figures::{FigureOptions, draw_all};
use core_eval::report::redraw_tables;

/// Arguments of `core-eval figures`.
#[derive(Debug, Args)]
pub(crate) struct FiguresArgs {
    /// Folder that an experiment wrote, as results/ablation, or one with its tables alone, as
    /// results/reference/ablation, or with learning curves, as models/curves
    folder: PathBuf,
    /// Also compare this prompt in every method, with attention maps, which takes the runs and the
    /// model; {} stands for the concept
    #[arg(long, value_name = "TEMPLATE")]
    prompt: Option<String>,
    /// The concept that --prompt is about [default: the first]
    #[arg(long, value_name = "NAME", requires = "prompt")]
    concept: Option<String>,
    /// The word that --prompt shows beside the class word [default: the nearest in the vocabulary]
    #[arg(long, value_name = "WORD", requires = "prompt")]
    sibling: Option<String>,
    /// Draw only this variant; may be repeated
    #[arg(long = "variant", value_name = "NAME")]
    variants: Vec<String>,
}

/// Draws every figure for which there are rows or images, and writes the tables again.
///
/// # Errors
/// An absent or unwritable folder; no files to draw, or damaged ones; a prompt that cannot be drawn.
pub(crate) fn run(args: &FiguresArgs) -> Result<()> {
    let folder = args.folder.display();
    ensure!(
        args.folder.is_dir(),
        "{folder}: no such folder; name one that an experiment wrote, as results/reference/ablation"
    );
    let options = FigureOptions {
        prompt: args.prompt.clone(),
        concept: args.concept.clone(),
        sibling: args.sibling.clone(),
        variants: args.variants.clone(),
    };
    let drawn = draw_all(&args.folder, &options)?;
    ensure!(
        !drawn.files.is_empty(),
        "{folder}: holds no rows to draw; expected summary.csv, tokens.csv, curves.csv or \
         the learning curves of core-train pretrain"
    );
    for path in drawn.files.iter().chain(&redraw_tables(&args.folder)?) {
        say(&path.display().to_string());
    }
    for what in &drawn.left_out {
        say(&format!("left out: {what}"));
    }
    Ok(())
}
