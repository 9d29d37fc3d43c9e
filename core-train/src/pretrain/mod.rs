//! How the networks of the mini world are trained: one TOML file per network.
//!
//! Every training can be resumed, shows its progress, writes a learning curve, and ends with the
//! network's quality on held-out scenes.

mod clip;
mod clipseg;
mod config;
mod contrast;
mod dino;
mod face2diffusion;
mod identity;
mod objective;
mod pattern;
mod people_sheet;
mod person_latents;
mod photomaker;
mod portraits;
mod questions;
mod replace;
mod scenes;
mod session;
mod sharpness;
mod siblings;
mod taught;
mod tokenizer;
mod triples;
mod unet;
mod vae;
mod verification;
mod vocabulary;
mod word_rows;
mod zero_shot;

use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;

pub use config::{PretrainConfig, Task};
pub use objective::Quality;
pub use pattern::{PatternClassifier, PatternClassifierConfig};
pub use scenes::pixels;
pub use session::Schedule;
pub use sharpness::sharpness;

use clip::ClipObjective;
use clipseg::ClipSegObjective;
use dino::DinoObjective;
use face2diffusion::Face2DiffusionObjective;
use identity::IdentityObjective;
use objective::Objective;
use pattern::PatternObjective;
use photomaker::PhotoMakerObjective;
use session::train;
use unet::UnetObjective;
use vae::VaeObjective;

/// What is done with a pretraining file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Measure the existing network and train nothing.
    Evaluate,
    /// Train, and keep the existing weights if they are better.
    Train,
    /// Train, and replace the existing weights whatever they are.
    TrainAndReplace,
}

/// Trains what the file describes, or only measures the network that it has.
///
/// # Errors
/// A wrong file, absent parts, an unwritable output, a loss that is NaN or infinite, existing weights that are
/// better than the new ones.
pub fn run(path: &Path, device: &Device, action: Action) -> Result<Quality> {
    let config = &PretrainConfig::load(path)?;
    let (seed, schedule) = (config.seed, config.schedule);
    let batch_size = schedule.map_or(1, |schedule| schedule.batch_size);
    let work = Work {
        config,
        device,
        action,
    };
    match &config.task {
        Task::Tokenizer(task) => {
            if action != Action::Evaluate {
                tokenizer::train(task, seed)?;
            }
            tokenizer::evaluate(task, seed)
        }
        Task::Vae(task) => work.finish(VaeObjective {
            task,
            seed,
            batch_size,
            device,
        }),
        Task::Clip(task) => work.finish(ClipObjective::new(task, seed, batch_size, device)?),
        Task::ClipSeg(task) => work.finish(ClipSegObjective::new(task, seed, batch_size, device)?),
        Task::Dino(task) => work.finish(DinoObjective {
            task,
            seed,
            batch_size,
            device,
        }),
        Task::Identity(task) => work.finish(IdentityObjective {
            task,
            seed,
            batch_size,
            steps: schedule.map_or(1, |schedule| schedule.steps),
            device,
        }),
        Task::Pattern(task) => work.finish(PatternObjective {
            task,
            seed,
            batch_size,
            device,
        }),
        Task::PhotoMaker(task) => {
            work.finish(PhotoMakerObjective::new(task, seed, batch_size, device)?)
        }
        Task::Face2Diffusion(task) => work.finish(Face2DiffusionObjective::new(
            task, seed, batch_size, device,
        )?),
        Task::Unet(task) => work.finish(UnetObjective::new(task, seed, batch_size, device)?),
    }
}

/// What is done with the objective of a file.
struct Work<'a> {
    config: &'a PretrainConfig,
    device: &'a Device,
    action: Action,
}

impl Work<'_> {
    fn finish<O: Objective>(&self, mut objective: O) -> Result<Quality> {
        let Self {
            config,
            device,
            action,
        } = *self;
        if action == Action::Evaluate {
            let Some(folder) = objective.folder() else {
                let curve = config.curve.as_deref().unwrap_or(Path::new(""));
                bail!(
                    "only a part of this network is kept, which cannot be evaluated by itself; its \
                 quality during training is in {}",
                    curve.display()
                );
            };
            let network = objective.stored(device)?.with_context(|| {
            format!(
                "{}: there is no finished network to evaluate; train it first, without --evaluate",
                folder.display()
            )
        })?;
            return objective.final_quality(&network);
        }
        let schedule = config.schedule.context("[schedule] is missing")?;
        let curve = config.curve.as_deref().context("curve is missing")?;
        let network = objective.start(device)?;
        objective.prepare()?;
        let network = train(&objective, network, schedule, &config.state, curve, device)?;
        let replace = action == Action::TrainAndReplace;
        replace::save(&objective, &network, &config.state, replace, device)?;
        objective.final_quality(&network)
    }
}
