//! How the networks of the mini world are trained: one TOML file per network.
//!
//! Every training can be resumed, shows its progress, writes a learning curve, and ends with the
//! network's quality on held-out scenes.

mod clip;
mod clipseg;
mod config;
mod contrast;
mod dino;
mod questions;
mod scenes;
mod session;
mod tokenizer;
mod triples;
mod unet;
mod vae;
mod zero_shot;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;

pub use config::{PretrainConfig, Task};
pub use session::{Quality, Schedule};

use clip::ClipObjective;
use clipseg::ClipSegObjective;
use dino::DinoObjective;
use session::{Objective, train};
use unet::UnetObjective;
use vae::VaeObjective;

/// Trains what the file describes, or with `evaluate` only measures the committed network.
///
/// # Errors
/// A wrong file, absent parts, an unwritable output, or a loss that is NaN or infinite.
pub fn run(path: &Path, device: &Device, evaluate: bool) -> Result<Quality> {
    let config = PretrainConfig::load(path)?;
    let seed = config.seed;
    let batch_size = config.schedule.map_or(1, |schedule| schedule.batch_size);
    match &config.task {
        Task::Tokenizer(task) => {
            if !evaluate {
                tokenizer::train(task, seed)?;
            }
            tokenizer::evaluate(task, seed)
        }
        Task::Vae(task) => finish(
            &VaeObjective {
                task,
                seed,
                batch_size,
                device,
            },
            &config,
            device,
            evaluate,
        ),
        Task::Clip(task) => finish(
            &ClipObjective::new(task, seed, batch_size, device)?,
            &config,
            device,
            evaluate,
        ),
        Task::ClipSeg(task) => finish(
            &ClipSegObjective::new(task, seed, batch_size, device)?,
            &config,
            device,
            evaluate,
        ),
        Task::Dino(task) => finish(
            &DinoObjective {
                task,
                seed,
                batch_size,
                device,
            },
            &config,
            device,
            evaluate,
        ),
        Task::Unet(task) => {
            let mut objective = UnetObjective::new(task, seed, batch_size, device)?;
            if !evaluate {
                objective.fill_pool()?;
            }
            finish(&objective, &config, device, evaluate)
        }
    }
}

fn finish<O: Objective>(
    objective: &O,
    config: &PretrainConfig,
    device: &Device,
    evaluate: bool,
) -> Result<Quality> {
    if evaluate {
        let Some(folder) = objective.folder() else {
            let curve = config.curve.as_deref().unwrap_or(Path::new(""));
            bail!(
                "only a part of this network is kept, which cannot be evaluated by itself; its \
                 quality during training is in {}",
                curve.display()
            );
        };
        ensure!(
            folder.join("config.json").exists(),
            "{}: there is no finished network to evaluate; train it first, without --evaluate",
            folder.display()
        );
        return objective.final_quality(&objective.network(device)?);
    }
    let schedule = config.schedule.context("[schedule] is missing")?;
    let curve = config.curve.as_deref().context("curve is missing")?;
    train(objective, schedule, &config.state, curve, device)
}
