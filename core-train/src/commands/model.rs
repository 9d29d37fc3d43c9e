//! `core-train model`: what a checkpoint is; checkpoints of other layouts.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, Subcommand};
use core_model::Precision;
use core_model::noise_scheduler::PredictionType;
use core_model::original_layout;

use super::inspect_model::{self, InspectArgs};
use super::{one_of, say};

/// Arguments of `core-train model`.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what a model is, and what memory it needs.
    Inspect(InspectArgs),
    /// Make the model folder of a one-file checkpoint of Stable Diffusion 1.x or 2.x.
    Import {
        /// Checkpoint in the layout of the original code (safetensors)
        file: PathBuf,
        /// The folder to write
        out: PathBuf,
        /// What the U-Net predicts; files of 2.x do not contain this [default for 1.x: epsilon]
        #[arg(long, value_parser = one_of(PredictionType::ALL, PredictionType::name))]
        prediction_type: Option<PredictionType>,
        /// Number format of the folder's weights
        #[arg(long, default_value = "float16", value_parser = one_of(Precision::ALL, Precision::name))]
        dtype: Precision,
    },
}

/// Inspects or imports a model.
///
/// # Errors
/// A file that is not a complete model of the family, an existing or unwritable folder.
pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        Command::Inspect(args) => inspect_model::run(args),
        Command::Import {
            file,
            out,
            prediction_type,
            dtype,
        } => {
            original_layout::import(file, out, *prediction_type, *dtype, &Device::flex())?;
            say(&format!(
                "{}: a model folder; name it as `model.path` or with --model",
                out.display()
            ));
            Ok(())
        }
    }
}
