//! `core-train pretrain`: trains one network of the mini world.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use core_model::device::parse_device;

use super::say;
use core_train::pretrain::{self, Action};

/// Arguments of `core-train pretrain`.
#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    /// The network's TOML file, as in experiments/pretrain/.
    config: PathBuf,
    /// Device to compute on: cpu, wgpu, wgpu:1, cuda and so on.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Train nothing; print the held-out quality of the existing weights.
    #[arg(long)]
    evaluate: bool,
    /// Replace the existing weights even if they are better than the new ones.
    #[arg(long, conflicts_with = "evaluate")]
    replace: bool,
}

/// Trains, or measures, and prints the held-out quality.
///
/// # Errors
/// A wrong file or device, absent parts, an unwritable output, a loss that is NaN or infinite, existing weights
/// that are better than the new ones.
pub(crate) fn run(args: &PretrainArgs) -> Result<()> {
    let device = parse_device(&args.device)?;
    let action = match (args.evaluate, args.replace) {
        (true, _) => Action::Evaluate,
        (false, false) => Action::Train,
        (false, true) => Action::TrainAndReplace,
    };
    let quality = pretrain::run(&args.config, &device, action)?;
    for (name, value) in quality {
        say(&format!("{name} {value:.4}"));
    }
    Ok(())
}
