//! `core-eval report`: the report page of results folders, from their files alone.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::say;
use core_eval::page::{self, Embed, Options, Source};

/// Arguments of `core-eval report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Results folders of experiments; several are joined as `merge` joins them
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The folder to write [default: the results folder, when there is one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Which images the page itself holds
    #[arg(long, value_enum, default_value_t)]
    embed: Embed,
    /// How many megabytes of image files the page holds at most, with `--embed full`
    #[arg(long, value_name = "MB", default_value_t = 60.0)]
    embed_limit: f64,
}

/// Writes the page and prints what it lacks.
///
/// # Errors
/// As [`Source::read`] and [`page::write`]; several folders without `--out`.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let out = match (&args.out, args.folders.as_slice()) {
        (Some(out), _) => out,
        (None, [folder]) => folder,
        (None, _) => {
            return None
                .context("several folders are joined; name a folder for the page with --out");
        }
    };
    let limit = args.embed_limit;
    ensure!(
        limit.is_finite() && limit >= 0.0,
        "--embed-limit is {limit}; expected a number of megabytes, 0 or more"
    );
    let source = Source::read(&args.folders)?;
    let options = Options {
        embed: args.embed,
        limit: (limit * 1e6) as u64,
    };
    let written = page::write(&source, out, &options)?;
    for name in &written.files {
        say(&out.join(name).display().to_string());
    }
    for text in &written.missing {
        say(&format!("missing: {text}"));
    }
    Ok(())
}
