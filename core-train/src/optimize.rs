//! Test-time optimisation of the concept's embedding for one prompt (paper, Fig. 7 and Appendix G):
//! a few more steps on the prompt that is to be drawn, with the context terms alone.

use core_losses::{LossTerm, Reading, Term};
use core_model::pipeline::StableDiffusionPipeline;

use crate::adapters::{AdapterConfig, Embedding};
use crate::base_model::BaseModel;
use crate::config::{PromptSource, Rescale, RunConfig, StageConfig};
use crate::error::{Error, Result};
use crate::phrase::SLOT;
use crate::progress::Progress;
use crate::run::Run;
use crate::run::folder::CONFIG;
use crate::setup::ClassImages;
use crate::stepper::Stepper;

/// The run's pipeline with its concept fitted to `prompt`, which names the concept once, as in
/// the prompts of its training (by its placeholder token, unless the recipe has a `phrase`).
///
/// The run's configuration gives photos, super-category and, by its first stage whose terms compare
/// two prompts, batch size and terms; noisy latents are made of the photos as in training. The run
/// itself stays as it is.
///
/// # Errors
/// A run without such terms or without a learned embedding, a prompt that does not name the
/// concept exactly once, a loss that is NaN or infinite.
pub fn optimize_for_prompt(
    run: &Run,
    base: &BaseModel,
    prompt: &str,
    steps: usize,
    learning_rate: f64,
) -> Result<StableDiffusionPipeline> {
    let phrase = run.phrase();
    let words = phrase.words();
    if prompt.matches(words).count() != 1 {
        return Err(Error::Template {
            template: prompt.to_string(),
            reason: format!(
                "does not name the concept exactly once, as `{words}`; only then can the concept \
                 be optimised for it"
            ),
        });
    }
    let stage = stage_on(run, &prompt.replace(words, SLOT), steps, learning_rate)?;
    let number = run.config.stages.len();
    let terms = template_terms(&stage);
    let config = RunConfig {
        stages: vec![stage],
        ..run.config.clone()
    };
    let pipeline = run.pipeline(base)?;
    let mut stepper = Stepper::on(&config, base, pipeline, None, ClassImages::StandIns)?
        .with_draws_of_stage(number)
        .with_terms(terms);
    let mut progress = Progress::new("optimising", 0, steps as u64);
    while let Some(step) = stepper.next_step() {
        let done = stepper.position().step;
        let stage = &stepper.stage_config().name;
        let step = step.map_err(|fault| fault.at(stage, done + 1, 0, run.folder()))?;
        progress.advance(&format!("loss {:.6}", step.row.loss));
    }
    progress.finish();
    Ok(stepper.pipeline())
}

/// The terms that compare two prompts; the others, the diffusion loss among them, are left out.
fn template_terms(stage: &StageConfig) -> Vec<LossTerm> {
    let compares = |term: &LossTerm| term.reads().iter().any(|r| Reading::needs_template(*r));
    let mut terms = stage.terms();
    terms.retain(|term| compares(term) && term.weight() > 0.0);
    terms
}

/// The stage that optimises on one template.
fn stage_on(run: &Run, template: &str, steps: usize, learning_rate: f64) -> Result<StageConfig> {
    let refuse = |key: &str, reason: &str| Error::Config {
        path: run.folder().join(CONFIG),
        key: key.into(),
        reason: reason.into(),
    };
    if run.config.rare_token.is_some() {
        let reason = "is the concept, so there is no embedding that could be optimised";
        return Err(refuse("rare_token", reason));
    }
    let mut stages = run.config.stages.iter();
    let Some(stage) = stages.find(|stage| !template_terms(stage).is_empty()) else {
        return Err(refuse(
            "stages",
            "have no regularisers that compare two prompts, which test-time optimisation needs; \
             train with CoRe's recipe",
        ));
    };
    let templates = PromptSource::List(vec![template.to_string()]);
    Ok(StageConfig {
        name: "test-time optimisation".into(),
        train: vec![AdapterConfig::Embedding(Embedding::default()).into()],
        steps,
        learning_rate,
        prompts: templates.clone(),
        regularization_prompts: Some(templates),
        rescale: Rescale::default(),
        ..stage.clone()
    })
}
