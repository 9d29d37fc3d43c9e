//! Test-time optimisation (paper, Fig. 7 and Appendix G): a few more steps of the concept's embedding on the
//! very prompt that is to be drawn, with the context terms alone.

use std::path::Path;

use burn::tensor::Device;
use core_losses::Regularizer;
use core_model::learned_embedding::LearnedEmbedding;

use crate::config::{PromptSource, Rescale, RunConfig, StageConfig};
use crate::data::prompts::SLOT;
use crate::draws::Source;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run_dir::{CONFIG, EMBEDDING, UNET};
use crate::trainable::TrainSet;
use crate::trainer::Learner;

/// The learned concept of a run, fitted to `prompt`, which names it by its placeholder token.
///
/// The run's configuration gives photos, super-category and, by its first stage with regularisers,
/// batch size and terms; noisy latents are made of the photos as in training. The run itself stays
/// as it is.
///
/// # Errors
/// A folder that is no complete run, a run without regularisers, a prompt that does not name the
/// concept exactly once, a loss that is no number.
pub fn optimize_for_prompt(
    run: &Path,
    prompt: &str,
    steps: usize,
    learning_rate: f64,
    device: &Device,
) -> Result<LearnedEmbedding> {
    let config_path = run.join(CONFIG);
    let mut config = RunConfig::load(&config_path, &[])?;
    let token = config.concept.placeholder_token();
    if prompt.matches(&token).count() != 1 {
        return Err(Error::Template {
            template: prompt.to_string(),
            reason: format!(
                "does not name the concept exactly once, by its placeholder `{token}`; only then \
                 can the concept be optimised for it"
            ),
        });
    }
    let number = config.stages.len();
    let stage = stage_on(
        &config,
        &config_path,
        &prompt.replace(&token, SLOT),
        steps,
        learning_rate,
    )?;
    config.stages = vec![stage];
    let config = config.complete(&config_path)?;

    let tuned = run.join(UNET);
    let tuned = tuned.is_dir().then_some(&*tuned);
    let model = config.model.source().locate()?;
    let mut learner = Learner::load(&config, model, device, None, tuned)?;
    let embedding = LearnedEmbedding::load(&run.join(EMBEDDING))?;
    learner.first_rows = embedding.to_tensor(device);

    let mut stage = learner.stage(0);
    stage.diffusion = false;
    // Other draws than any stage of the run had.
    if let Source::Random { stage: of, .. } = &mut stage.source {
        *of = number;
    }
    let mut weights = learner.first_weights();
    let mut progress = Progress::new("optimising", 0, steps as u64);
    for step in 1..=steps {
        let (gradients, terms) =
            stage
                .gradients(&weights, step)
                .map_err(|fault| Error::NotFinite {
                    stage: stage.config.name.clone(),
                    step,
                    what: fault.what,
                    value: fault.value,
                    kept: 0,
                    folder: run.to_path_buf(),
                })?;
        weights = stage.update(weights, &gradients, step);
        progress.advance(&format!(
            "loss {:.6}",
            stage.row(&terms, &weights, step).loss
        ));
    }
    progress.finish();
    learner.learned(&weights)
}

/// The stage that optimises on one template.
fn stage_on(
    config: &RunConfig,
    path: &Path,
    template: &str,
    steps: usize,
    learning_rate: f64,
) -> Result<StageConfig> {
    let has_terms =
        |stage: &&StageConfig| stage.regularizers.iter().any(|term| term.weight() > 0.0);
    let Some(stage) = config.stages.iter().find(has_terms) else {
        return Err(Error::Config {
            path: path.to_path_buf(),
            key: "stages".into(),
            reason: "have no regularisers, whose terms test-time optimisation needs; \
                     train with CoRe's recipe"
                .into(),
        });
    };
    let templates = PromptSource::List(vec![template.to_string()]);
    Ok(StageConfig {
        name: "test-time optimisation".into(),
        train: vec![TrainSet::Embedding],
        steps,
        learning_rate,
        prompts: templates.clone(),
        regularization_prompts: Some(templates),
        rescale: Rescale::default(),
        ..stage.clone()
    })
}
