//! `[[stages]]`: one after the other, each with its own weights, steps and terms.

use std::path::{Path, PathBuf};

use core_losses::RegularizerConfig;
use serde::{Deserialize, Serialize};

use super::concept::Group;
use super::paths;
use super::prompt_source::PromptSource;
use crate::error::{Error, Result};
use crate::optimizer::AdamWConfig;
use crate::trainable::TrainSet;

/// A method: `[[stages]]` and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// First to last.
    pub stages: Vec<StageConfig>,
}

impl Recipe {
    /// Takes prompt files relative to the recipe's own place, so that the stages can be put into
    /// a [`RunConfig`](super::RunConfig) that lies elsewhere.
    #[must_use]
    pub fn anchored(mut self, path: &Path) -> Self {
        let base = paths::folder_of(path);
        let resolve = |file: &mut PathBuf| *file = paths::resolve(&base, file);
        for stage in &mut self.stages {
            let sources = [
                Some(&mut stage.prompts),
                stage.regularization_prompts.as_mut(),
            ];
            for source in sources.into_iter().flatten() {
                match source {
                    PromptSource::List(_) => {}
                    PromptSource::File(file) => resolve(file),
                    PromptSource::ByGroup { animate, inanimate } => {
                        resolve(animate);
                        resolve(inanimate);
                    }
                }
            }
        }
        self
    }
}

/// One entry of `[[stages]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Names the stage in messages and metrics; `stage-1` and so on when absent.
    #[serde(default)]
    pub name: String,
    /// Which weights move.
    pub train: Vec<TrainSet>,
    /// Optimiser steps.
    pub steps: usize,
    /// Samples of one forward pass.
    pub batch_size: usize,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Forward passes whose gradients are averaged for one optimiser step.
    #[serde(default = "one")]
    pub gradient_accumulation_steps: usize,
    /// Templates of the diffusion loss; one is drawn for each sample.
    pub prompts: PromptSource,
    /// Templates of the regularisers; one is drawn for each step. Absent: the project's own for
    /// the concept's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularization_prompts: Option<PromptSource>,
    /// Eq. 6: `{ from, to }`, or `false` for off.
    #[serde(default)]
    pub rescale: Rescale,
    /// Recompute activations on the way back instead of keeping them.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// `[stages.optimizer]`.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// `[[stages.regularizers]]`; none when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regularizers: Vec<RegularizerConfig>,
}

fn one() -> usize {
    1
}

impl StageConfig {
    /// Whether the concept's embedding moves.
    pub fn trains_embedding(&self) -> bool {
        self.train.contains(&TrainSet::Embedding)
    }

    /// Whether any weight of the U-Net moves.
    pub fn trains_unet(&self) -> bool {
        self.train.iter().any(|set| *set != TrainSet::Embedding)
    }

    /// The rescaling window, if there is one.
    pub fn rescale_window(&self) -> Option<RescaleWindow> {
        match self.rescale {
            Rescale::Window(window) => Some(window),
            Rescale::Off(_) => None,
        }
    }

    pub(super) fn complete(
        &mut self,
        index: usize,
        base: &Path,
        group: Option<Group>,
        origin: &Path,
    ) -> Result<()> {
        if self.name.is_empty() {
            self.name = format!("stage-{}", index + 1);
        }
        let refuse = |key: &str| {
            let key = format!("stages.{index}.{key}");
            move |reason| Error::Config {
                path: origin.to_path_buf(),
                key: key.clone(),
                reason,
            }
        };
        self.prompts = self.prompts.read(base, group, refuse("prompts"))?;
        let refuse = refuse("regularization_prompts");
        self.regularization_prompts = match (&self.regularization_prompts, group) {
            _ if self.regularizers.is_empty() => None,
            (Some(source), _) => Some(source.read(base, group, refuse)?),
            (None, Some(group)) => Some(PromptSource::default_regularization(group)),
            (None, None) => {
                let reason = "is absent, and which default to take depends on the concept's \
                              group; give either, `concept.group` being \"animate\" or \
                              \"inanimate\"";
                return Err(refuse(reason.into()));
            }
        };
        Ok(())
    }
}

/// Embedding rescaling, Eq. 6 of the paper: `rescale = { from = 120, to = 180 }` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected { from = STEP, to = STEP } or false")]
pub enum Rescale {
    /// On.
    Window(RescaleWindow),
    /// `false`.
    Off(Off),
}

impl Default for Rescale {
    fn default() -> Self {
        Self::Off(Off)
    }
}

/// The value `false`; `true` says too little and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct Off;

impl TryFrom<bool> for Off {
    type Error = String;

    fn try_from(on: bool) -> Result<Self, String> {
        if on {
            Err("rescale = true names no steps; write { from = STEP, to = STEP }".into())
        } else {
            Ok(Self)
        }
    }
}

impl From<Off> for bool {
    fn from(_: Off) -> Self {
        false
    }
}

/// The steps of rescaling. The norm is recorded after step `from` (0: before the first) and
/// restored after the steps `from`+1 to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescaleWindow {
    /// The step after which the norm is recorded.
    pub from: usize,
    /// The last step after which it is restored.
    pub to: usize,
}

/// `[stages.optimizer]`: AdamW, torch's defaults, which are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Decay of first and second moment.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; off when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// How the learning rate goes after the warm-up.
    pub lr_schedule: LrSchedule,
    /// Steps in which the learning rate rises from 0.
    pub lr_warmup_steps: usize,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = AdamWConfig::default();
        Self {
            betas: [beta1, beta2],
            eps,
            weight_decay,
            max_grad_norm: None,
            lr_schedule: LrSchedule::Constant,
            lr_warmup_steps: 0,
        }
    }
}

impl OptimizerConfig {
    /// The constants of AdamW.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.betas[0],
            beta2: self.betas[1],
            eps: self.eps,
            weight_decay: self.weight_decay,
        }
    }

    /// What the learning rate of a step, from 1, is multiplied with; as diffusers' `get_scheduler`
    /// of the same names.
    pub fn lr_factor(&self, step: usize, steps: usize) -> f64 {
        let (done, warmup) = ((step - 1) as f64, self.lr_warmup_steps as f64);
        if done < warmup {
            return done / warmup;
        }
        let progress = (done - warmup) / (steps as f64 - warmup).max(1.0);
        match self.lr_schedule {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => (1.0 - progress).max(0.0),
            LrSchedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
        }
    }
}

/// The course of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Stays.
    #[default]
    Constant,
    /// Falls to 0 in a line.
    Linear,
    /// Falls to 0 in half a cosine.
    Cosine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_follow_their_schedule() {
        let mut config = OptimizerConfig::default();
        assert_eq!(config.lr_factor(1, 10), 1.0);
        config.lr_warmup_steps = 2;
        assert_eq!([1, 2, 3].map(|s| config.lr_factor(s, 10)), [0.0, 0.5, 1.0]);
        config.lr_schedule = LrSchedule::Linear;
        assert_eq!(config.lr_factor(7, 10), 0.5);
        config.lr_schedule = LrSchedule::Cosine;
        assert!((config.lr_factor(7, 10) - 0.5).abs() < 1e-12);
    }
}
