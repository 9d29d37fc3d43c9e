//! Test-time optimisation of the concept's embedding for one prompt (paper, Fig. 7 and Appendix G):
//! a few more steps on the prompt that is to be drawn, with the context terms alone.

use std::path::Path;

use core_losses::{Diffusion, LossTerm, Reading, Term};
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adapters::{AdapterConfig, Embedding};
use crate::base_model::BaseModel;
use crate::config::{PromptSource, Recipe, Rescale, RunConfig, StageConfig};
use crate::error::{Error, Result};
use crate::phrase::SLOT;
use crate::run::Run;
use crate::run::folder::CONFIG;
use crate::setup::ClassImages;
use crate::stepper::{Step, Stepper};

/// Test-time optimisation: a few steps on the learned embedding for each prompt that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestTime {
    /// The number of optimiser steps for each prompt; the paper takes 10.
    pub steps: usize,
    /// The learning rate; the paper's authors take 5e-4.
    pub learning_rate: f64,
}

/// Why a method cannot be optimised at test time.
struct Refusal {
    /// The key at fault.
    key: &'static str,
    reason: String,
}

impl TestTime {
    /// Fails unless runs of this recipe can be optimised for a prompt.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key at fault in `origin`.
    pub fn check(&self, recipe: &Recipe, origin: &Path) -> Result<()> {
        let positive = self.learning_rate.is_finite() && self.learning_rate > 0.0;
        let checked = match (self.steps, positive) {
            (0, _) => Err(Refusal {
                key: "test_time.steps",
                reason: "is 0, expected at least 1".into(),
            }),
            (_, false) => Err(Refusal {
                key: "test_time.learning_rate",
                reason: format!("is {}, expected a number above 0", self.learning_rate),
            }),
            (_, true) => model_stage(&recipe.stages, recipe.rare_token.as_deref()).map(|_| ()),
        };
        checked.map_err(|refusal| refusal.at(origin))
    }

    /// The configuration that fits the concept of a run to a template: one stage, which trains the
    /// embedding with the terms that compare two prompts, and without the diffusion loss.
    ///
    /// # Errors
    /// [`Error::Config`] for a run without such terms or without a learned embedding, naming the
    /// key in `origin`.
    pub fn config(&self, run: &RunConfig, template: &str, origin: &Path) -> Result<RunConfig> {
        let stage = model_stage(&run.stages, run.rare_token.as_deref())
            .map_err(|refusal| refusal.at(origin))?;
        let templates = PromptSource::List(vec![template.to_string()]);
        let mut regularizers = vec![LossTerm::Diffusion(Diffusion { weight: 0.0 })];
        regularizers.extend(template_terms(stage));
        let stage = StageConfig {
            name: "test-time optimisation".into(),
            train: vec![AdapterConfig::Embedding(Embedding::default()).into()],
            steps: self.steps,
            learning_rate: self.learning_rate,
            prompts: templates.clone(),
            regularization_prompts: Some(templates),
            rescale: Rescale::default(),
            regularizers,
            ..stage.clone()
        };
        Ok(RunConfig {
            stages: vec![stage],
            ..run.clone()
        })
    }

    /// The run's pipeline with its concept fitted to `prompt`, which names the concept once, as in
    /// the prompts of its training (by its placeholder token, unless the recipe has a `phrase`).
    /// `pipeline` is the one that the run has trained.
    ///
    /// The run's configuration gives photos, super-category and, by its first stage whose terms
    /// compare two prompts, batch size and terms; noisy latents are made of the photos as in
    /// training. The run itself stays as it is.
    ///
    /// # Errors
    /// A run without such terms or without a learned embedding, a prompt that does not name the
    /// concept exactly once, a loss that is NaN or infinite.
    pub fn optimize(
        &self,
        run: &Run,
        base: &BaseModel,
        pipeline: StableDiffusionPipeline,
        prompt: &str,
        on_step: &mut dyn FnMut(&Step),
    ) -> Result<StableDiffusionPipeline> {
        let phrase = run.phrase();
        let words = phrase.words();
        if prompt.matches(words).count() != 1 {
            return Err(Error::Template {
                template: prompt.to_string(),
                reason: format!(
                    "does not name the concept exactly once, as `{words}`; only then can the \
                     concept be optimised for it"
                ),
            });
        }
        let template = prompt.replace(words, SLOT);
        let config = self.config(&run.config, &template, &run.folder().join(CONFIG))?;
        let number = run.config.stages.len();
        let mut stepper = Stepper::on(&config, base, pipeline, None, ClassImages::StandIns)?
            .with_draws_of_stage(number);
        while let Some(step) = stepper.next_step() {
            let done = stepper.position().step;
            let stage = &stepper.stage_config().name;
            on_step(&step.map_err(|fault| fault.at(stage, done + 1, 0, run.folder()))?);
        }
        Ok(stepper.pipeline())
    }
}

impl Refusal {
    fn at(self, origin: &Path) -> Error {
        Error::Config {
            path: origin.to_path_buf(),
            key: self.key.into(),
            reason: self.reason,
        }
    }
}

/// The terms that compare two prompts; the others, the diffusion loss among them, are left out.
fn template_terms(stage: &StageConfig) -> Vec<LossTerm> {
    let compares = |term: &LossTerm| term.reads().iter().any(|r| Reading::needs_template(*r));
    let mut terms = stage.terms();
    terms.retain(|term| compares(term) && term.weight() > 0.0);
    terms
}

/// The first stage whose terms compare two prompts, of a method that learns an embedding.
fn model_stage<'a>(
    stages: &'a [StageConfig],
    rare_token: Option<&str>,
) -> Result<&'a StageConfig, Refusal> {
    let refuse = |key, reason: &str| Refusal {
        key,
        reason: reason.into(),
    };
    if rare_token.is_some() {
        let reason = "is the concept, so there is no embedding that test-time optimisation could \
                      move";
        return Err(refuse("rare_token", reason));
    }
    if stages.iter().any(|stage| stage.neti().is_some()) {
        let reason = "train a mapper (`neti`) instead of an embedding, so there is none that \
                      test-time optimisation could move";
        return Err(refuse("stages", reason));
    }
    let mut stages = stages.iter();
    stages
        .find(|stage| !template_terms(stage).is_empty())
        .ok_or_else(|| {
            let reason = "have no regularisers that compare two prompts, which test-time \
                          optimisation needs; train with CoRe's recipe";
            refuse("stages", reason)
        })
}
