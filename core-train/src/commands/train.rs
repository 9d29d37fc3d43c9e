//! `core-train train`: learns a concept as a TOML file says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use core_model::photos::PhotoFolder;

use super::say;
use core_train::config::RunConfig;
use core_train::cost;
use core_train::data::rendered::say_other_photos;
use core_train::interrupt::stop_on_signals;
use core_train::run::folder::{RunDir, Unfinished};
use core_train::trainer::{self, RunOptions};

/// Arguments of `core-train train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// What to learn and how; see experiments/
    config: PathBuf,
    /// Where to compute: cpu, wgpu[:i] or cuda[:i]; wins over the file
    #[arg(long)]
    device: Option<String>,
    /// The run folder (results/NAME for NAME.toml when absent)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Change a value of the file, as in stages.0.learning_rate=1e-3; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Take the randomness of the first stage from a file
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Continue an unfinished run
    #[arg(long)]
    resume: bool,
    /// Only say what would run, how long it would take and how much memory
    #[arg(long)]
    dry_run: bool,
}

/// Trains, or says what would be trained.
///
/// # Errors
/// Everything that can be wrong with the file, the model, the photos and the folder.
pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let mut config = RunConfig::load(&args.config, &args.sets)?;
    if let Some(device) = &args.device {
        config.device.clone_from(device);
    }
    // A run that replays its only stage reads no photos and needs none.
    if let Ok(photos) = PhotoFolder::read(&config.concept.images) {
        photos.say_skipped();
        say_other_photos(&config.concept.images);
    }
    if args.dry_run {
        say(cost::describe(&config, args.replay.as_deref())?.trim_end());
        return Ok(());
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None => Path::new("results").join(args.config.file_stem().unwrap_or_default()),
    };
    let scratch = RunDir::scratch_of(&output);
    if args.resume && !scratch.exists() {
        if output.exists() {
            say(&format!("{} is complete", output.display()));
            return Ok(());
        }
        bail!(
            "{} does not exist, so there is nothing to resume",
            scratch.display()
        );
    }
    let stop = stop_on_signals().context("signals cannot be caught")?;
    let options = RunOptions {
        output: &output,
        scratch: None,
        unfinished: if args.resume {
            Unfinished::Resume
        } else {
            Unfinished::Refuse
        },
        replay: args.replay.as_deref(),
        stop: &stop,
        keep_state: false,
        show_progress: true,
    };
    let folder = trainer::run(&config, &options)?;
    say(&folder.display().to_string());
    Ok(())
}
