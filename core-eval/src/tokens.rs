//! How far a learned concept pulls the other words of a prompt (the paper's Fig. 2): the cosine of
//! every context token's output embedding with the one in the prompt with the super-category.

use std::path::Path;

use anyhow::{Context as _, Result};
use core_losses::Context;
use core_model::Network;
use core_model::files::read_to_string;
use core_model::folder::ModelFolder;
use core_model::params::to_vec;
use core_model::pipeline::StableDiffusionPipeline;
use core_model::text_encoder::TextEncoderConfig;
use core_model::tokenizer::Tokenizer;
use core_train::Run;
use core_train::config::ConceptConfig;
use core_train::data::prompts::ConceptWords;
use core_train::tuning_free::class_word;

use crate::base::Base;
use crate::experiment::{EvaluationPrompt, Experiment};
use crate::metrics::dot;
use crate::plan::Cell;
use crate::protocol::is_unrelated;
use crate::report::TokenRow;

/// Compares how prompts are encoded with the learned concept and with the super-category.
#[derive(Debug)]
pub struct TokenProbe<'a> {
    experiment: &'a Experiment,
    /// The base model's.
    tokenizer: Tokenizer,
}

impl<'a> TokenProbe<'a> {
    /// Loads the tokenizer.
    ///
    /// # Errors
    /// Absent or damaged files.
    pub fn load(experiment: &'a Experiment, model: &ModelFolder) -> Result<Self> {
        let config = model.path().join("text_encoder/config.json");
        let config: TextEncoderConfig = serde_json::from_str(&read_to_string(&config)?)
            .with_context(|| config.display().to_string())?;
        let tokenizer = Tokenizer::from_dir(&model.path().join("tokenizer"))?;
        Ok(Self {
            experiment,
            tokenizer: tokenizer.fit(&config)?,
        })
    }

    /// Refuses prompts that are too long for the text encoder, and placeholders that are words of its
    /// vocabulary.
    ///
    /// # Errors
    /// Naming concept and prompt.
    pub fn check_prompts(&self, cells: &[Cell]) -> Result<()> {
        for run in cells.iter().filter_map(|cell| cell.run.as_ref()) {
            let concept = &run.config.concept;
            let failed = || format!("concept `{}`", concept.name);
            let mut tokenizer = self.tokenizer.clone();
            let phrase = run.config.phrase();
            if let Some(word) = class_word(&run.config, &tokenizer)? {
                for prompt in related(self.experiment, concept) {
                    let checked = word.check(&phrase.fill(&prompt.prompt), &tokenizer);
                    checked.with_context(failed)?;
                }
                continue;
            }
            if run.config.rare_token.is_none() {
                let added = tokenizer.add_placeholder(phrase.token(), concept.num_vectors());
                added.with_context(failed)?;
            }
            let words = ConceptWords {
                tokenizer: &tokenizer,
                phrase: &phrase,
            };
            for prompt in related(self.experiment, concept) {
                words
                    .regularization_prompt(&prompt.prompt)
                    .with_context(failed)?;
            }
        }
        Ok(())
    }

    /// The rows of one cell by prompt and position; none for a variant without training, and none where
    /// a mapper (`neti`) gives tokens other states at every timestep and for every layer.
    ///
    /// # Errors
    /// An unreadable run.
    pub fn rows(&self, cell: &Cell, base: &Base, results: &Path) -> Result<Vec<TokenRow>> {
        let experiment = self.experiment;
        let Some(run) = cell.run.as_ref().filter(|run| run.config.neti().is_none()) else {
            return Ok(Vec::new());
        };
        let concept = &experiment.concepts[cell.concept];
        let base = base.get()?;
        let run = Run::open(&run.folder(results))?;
        let pipeline = run.prompt_pipeline(base)?;
        let phrase = run.phrase();
        let words = ConceptWords {
            tokenizer: &pipeline.tokenizer,
            phrase: &phrase,
        };
        let mut rows = Vec::new();
        for prompt in related(experiment, concept) {
            let tokens = context_cosines(&pipeline, &base.pipeline, &words, &prompt.prompt)?;
            rows.extend(tokens.into_iter().map(|token| TokenRow {
                variant: experiment.variants[cell.variant].name.clone(),
                concept: concept.name.clone(),
                seed: cell.seed,
                prompt: prompt.prompt.clone(),
                position: token.position,
                token: token.token,
                cosine: token.cosine,
            }));
        }
        Ok(rows)
    }
}

/// The prompts that name the concept.
pub(crate) fn related(
    experiment: &Experiment,
    concept: &ConceptConfig,
) -> impl Iterator<Item = EvaluationPrompt> {
    let prompts = experiment.prompts_for(concept).into_iter();
    prompts.filter(|prompt| !is_unrelated(&prompt.kind))
}

/// A context token of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContextToken {
    /// The position in the prompt with the concept.
    pub(crate) position: usize,
    /// The token.
    pub(crate) token: String,
    /// The cosine of its output embedding with the one in the prompt with the super-category.
    pub(crate) cosine: f64,
}

/// The context tokens of a template, encoded with the concept by its own text encoder, and with the
/// super-category by the base model's.
///
/// # Errors
/// A template that does not fit the text encoder.
pub(crate) fn context_cosines(
    pipeline: &StableDiffusionPipeline,
    base: &StableDiffusionPipeline,
    words: &ConceptWords<'_>,
    template: &str,
) -> Result<Vec<ContextToken>> {
    let width = pipeline.model.text_encoder().config().hidden_size;
    let filled = words.regularization_prompt(template)?;
    let ours = to_vec(pipeline.model.encode(std::slice::from_ref(&filled.learned)));
    let reference = std::slice::from_ref(&filled.reference);
    let theirs = to_vec(base.model.encode(reference));
    let [kept, counterparts] = filled.pair.kept(Context::Prompt);
    let pairs = kept.into_iter().zip(counterparts);
    let token = |(position, counterpart): (usize, usize)| ContextToken {
        position,
        token: pipeline.tokenizer.token(filled.learned[position]),
        cosine: cosine(
            &ours[position * width..][..width],
            &theirs[counterpart * width..][..width],
        ),
    };
    Ok(pairs.map(token).collect())
}

/// The cosine of two vectors of any length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)).clamp(-1.0, 1.0)
}
