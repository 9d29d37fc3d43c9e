//! `[[stages]]`: one after the other, each with its own weights, steps and terms.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use core_losses::{Diffusion, LossTerm, PriorPreservation, Reading, Term};
use core_model::personalized::ConceptEmbedding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::concept::Group;
use super::optimizer::OptimizerConfig;
use super::prompt_source::PromptSource;
use super::train_entry::TrainEntry;
use crate::adapters::{AdapterConfig, Neti};
use crate::augmentations::AugmentationConfig;
use crate::error::{Error, Result};
use crate::off::Off;

/// A stage of training. Stages run one after the other; each trains its own weights with its own
/// prompts and loss terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// The name of the stage in messages and in `metrics.csv`. Absent: `stage-1` and so on.
    #[serde(default)]
    pub name: String,
    /// The sets of weights that are trained: names, or tables with keys of their own.
    pub train: Vec<TrainEntry>,
    /// The number of optimiser steps.
    pub steps: usize,
    /// The number of samples per forward pass.
    pub batch_size: usize,
    /// The learning rate of AdamW, for sets of weights without one of their own.
    pub learning_rate: f64,
    /// The number of forward passes whose gradients are averaged for one optimiser step.
    #[serde(default = "one")]
    pub gradient_accumulation_steps: usize,
    /// The prompts of the photos. One is drawn for each sample.
    pub prompts: PromptSource,
    /// The prompts that regularisers compare with and without the concept. One is drawn for each
    /// step. Absent: a hundred prompts for the concept's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularization_prompts: Option<PromptSource>,
    /// The random change of a photo each time it is shown. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<AugmentationConfig>,
    /// Embedding rescaling, Eq. 6 of the paper. The norm of the embedding is recorded after step `from`
    /// and restored after each step up to `to`; `false` turns it off.
    #[serde(default)]
    pub rescale: Rescale,
    /// Whether activations are recomputed in the backward pass instead of stored. This takes more time
    /// and less memory.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Whether keys and values of the first text position, which is the same in every prompt, pass no
    /// gradient on in the cross-attention layers (Custom Diffusion).
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop_first_token_gradient: bool,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// The loss terms besides the diffusion loss. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regularizers: Vec<LossTerm>,
}

fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl StageConfig {
    /// Whether the stage trains the tensor of this name.
    pub fn moves(&self, name: &str) -> bool {
        self.train.iter().any(|entry| entry.moves(name))
    }

    /// Where the tensor of this name is after a step that brought it to `value`, flattened.
    pub fn constrain(&self, name: &str, value: Tensor<1>) -> Tensor<1> {
        let entry = self.train.iter().find(|entry| entry.moves(name));
        match entry {
            Some(entry) => entry.adapter.adapter().constrain(value),
            None => value,
        }
    }

    /// Whether the concept's embedding moves.
    pub fn trains_embedding(&self) -> bool {
        self.moves(ConceptEmbedding::NAME)
    }

    /// The mapper that the stage trains, if it trains one.
    pub fn neti(&self) -> Option<&Neti> {
        self.train.iter().find_map(|entry| match &entry.adapter {
            AdapterConfig::Neti(neti) => Some(neti),
            _ => None,
        })
    }

    /// The terms of the objective, the diffusion loss first; it has weight 1 where the file does
    /// not list it.
    pub fn terms(&self) -> Vec<LossTerm> {
        let is_diffusion = |term: &&LossTerm| matches!(term, LossTerm::Diffusion(_));
        let listed = self.regularizers.iter().find(is_diffusion).cloned();
        let diffusion = listed.unwrap_or(LossTerm::Diffusion(Diffusion::default()));
        let others = self.regularizers.iter().filter(|term| !is_diffusion(term));
        std::iter::once(diffusion).chain(others.cloned()).collect()
    }

    /// Whether a term, whatever its weight, compares templates, so that the stage needs some.
    pub fn reads_templates(&self) -> bool {
        let mut reads = self.regularizers.iter().flat_map(|term| term.reads());
        reads.any(|reading| Reading::needs_template(*reading))
    }

    /// Prior preservation, if it is among the terms and has a weight.
    pub fn prior(&self) -> Option<&PriorPreservation> {
        self.regularizers.iter().find_map(|term| match term {
            LossTerm::PriorPreservation(prior) if prior.weight != 0.0 => Some(prior),
            _ => None,
        })
    }

    /// The template of a term that compares one of its own, if such a term has a weight.
    pub fn sentence(&self) -> Option<&str> {
        let mut terms = self.regularizers.iter().filter(|term| term.weight() != 0.0);
        terms.find_map(Term::sentence)
    }

    /// The learning rate of step `step`, from 1, for sets that have none of their own.
    pub fn learning_rate_of_step(&self, step: usize) -> f64 {
        self.learning_rate * self.optimizer.lr_factor(step, self.steps)
    }

    /// The learning rate of the tensor of this name in step `step`, from 1.
    pub fn learning_rate_of(&self, name: &str, step: usize) -> f64 {
        let entry = self.train.iter().find(|entry| entry.moves(name));
        match entry.and_then(|entry| entry.learning_rate) {
            Some(own) => own * self.optimizer.lr_factor(step, self.steps),
            None => self.learning_rate_of_step(step),
        }
    }

    /// Folders of class images that the stage names.
    pub(super) fn class_image_folders(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.regularizers.iter_mut().filter_map(|term| match term {
            LossTerm::PriorPreservation(prior) => prior.images.as_mut(),
            _ => None,
        })
    }

    /// Where the stage takes its prompts from.
    pub(super) fn prompt_sources(&mut self) -> impl Iterator<Item = &mut PromptSource> {
        let templates = self.regularization_prompts.as_mut();
        std::iter::once(&mut self.prompts).chain(templates)
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
        self.optimizer.complete();
        self.prompts = self.prompts.read(base, group, refuse("prompts"))?;
        let refuse = refuse("regularization_prompts");
        self.regularization_prompts = match (&self.regularization_prompts, group) {
            _ if !self.reads_templates() => None,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected { from = STEP, to = STEP } or false")]
pub enum Rescale {
    /// The steps in which the norm is restored.
    Window(RescaleWindow),
    /// No rescaling.
    Off(Off),
}

impl Default for Rescale {
    fn default() -> Self {
        Self::Off(Off)
    }
}

/// The steps of embedding rescaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RescaleWindow {
    /// The step after which the norm is recorded; 0 means before the first step.
    pub from: usize,
    /// The last step after which the norm is restored.
    pub to: usize,
}
