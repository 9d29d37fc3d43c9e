//! `--quick`: every step of an experiment in a minute.

use core_losses::LossTerm;
use core_train::config::{Group, Rescale, StageConfig};

use crate::experiment::Experiment;

/// Optimiser steps per stage.
const STEPS: usize = 4;
/// Denoising steps.
const DENOISING_STEPS: usize = 3;
/// Concepts: two, so that claims have intervals.
const CONCEPTS: usize = 2;
/// Class images of prior preservation.
const CLASS_IMAGES: usize = 4;
/// Prompts per group.
const PROMPTS: usize = 3;

impl Experiment {
    /// The same experiment with fewer steps, concepts, seeds, prompts and images, in another folder.
    #[must_use]
    pub fn quick(mut self) -> Self {
        self.name.push_str("-quick");
        self.concepts.truncate(CONCEPTS);
        self.absent.truncate(CONCEPTS - self.concepts.len());
        self.seeds.truncate(1);
        for recipe in self.variants.iter_mut().filter_map(|v| v.recipe.as_mut()) {
            recipe.stages.iter_mut().for_each(shorten);
        }
        for test_time in self
            .variants
            .iter_mut()
            .filter_map(|v| v.test_time.as_mut())
        {
            test_time.steps = test_time.steps.min(STEPS);
        }
        self.sampling.steps = self.sampling.steps.min(DENOISING_STEPS);
        self.sampling.images_per_prompt = 1;
        let mut kept = Vec::new();
        for group in [Group::Animate, Group::Inanimate] {
            let prompts = self.prompts.iter().filter(|prompt| prompt.group == group);
            kept.extend(prompts.take(PROMPTS).cloned());
        }
        self.prompts = kept;
        self
    }
}

/// Reduces the steps of a stage and scales its rescaling window.
fn shorten(stage: &mut StageConfig) {
    let steps = stage.steps.min(STEPS);
    if let Rescale::Window(window) = &mut stage.rescale {
        let scaled = |step: usize| step * steps / stage.steps.max(1);
        window.from = scaled(window.from);
        window.to = scaled(window.to).max(window.from + 1);
    }
    stage.steps = steps;
    for term in &mut stage.regularizers {
        if let LossTerm::PriorPreservation(prior) = term {
            prior.num_images = prior.num_images.min(CLASS_IMAGES);
        }
    }
}
