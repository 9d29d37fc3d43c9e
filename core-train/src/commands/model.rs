//! `core-train model`: what a checkpoint is; checkpoints of other layouts.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, Subcommand, ValueEnum};
use core_model::checkpoint::Precision;
use core_model::noise_scheduler::PredictionType;
use core_model::original_layout;
use core_model::params::WeightPrecision;

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
        #[arg(long, default_value = "float16")]
        dtype: Dtype,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FrozenPrecision {
    /// As trained weights.
    Float32,
    /// Half the memory.
    Float16,
    /// The same with the range of float32; not on wgpu.
    Bfloat16,
}

impl From<FrozenPrecision> for WeightPrecision {
    fn from(precision: FrozenPrecision) -> Self {
        match precision {
            FrozenPrecision::Float32 => Self::Float32,
            FrozenPrecision::Float16 => Self::Float16,
            FrozenPrecision::Bfloat16 => Self::Bfloat16,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Dtype {
    /// Half the size.
    Float16,
    /// Nothing is rounded.
    Float32,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float16 => Self::Half,
            Dtype::Float32 => Self::Full,
        }
    }
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
            let precision = (*dtype).into();
            original_layout::import(file, out, *prediction_type, precision, &Device::flex())?;
            say(&format!(
                "{}: a model folder; name it as `model.path` or with --model",
                out.display()
            ));
            Ok(())
        }
    }
}
