//! How far a learned concept pulls the other words of a prompt (the paper's Fig. 2): the cosine of
//! every context token's output embedding with what the super-category leaves there.

use std::path::Path;

use anyhow::{Context as _, Result};
use burn::tensor::{Device, Tensor};
use core_losses::Context;
use core_model::Network;
use core_model::folder::ModelFolder;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::params::to_vec;
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_train::config::ConceptConfig;
use core_train::data::prompts::ConceptWords;
use core_train::run_dir::EMBEDDING;

use crate::experiment::Experiment;
use crate::plan::Cell;
use crate::report::TokenRow;

/// The half of the generator that reads prompts.
#[derive(Debug)]
pub struct Reader<'a> {
    experiment: &'a Experiment,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    device: Device,
}

impl<'a> Reader<'a> {
    /// Loads tokenizer and text encoder.
    ///
    /// # Errors
    /// Absent or damaged files.
    pub fn load(experiment: &'a Experiment, model: &ModelFolder, device: &Device) -> Result<Self> {
        let folder = model.path().join("text_encoder");
        let text_encoder = TextEncoder::load_weights(&folder, model.weights(), device)?;
        let tokenizer = Tokenizer::from_dir(&model.path().join("tokenizer"))?;
        Ok(Self {
            experiment,
            tokenizer: tokenizer.fit(text_encoder.config())?,
            text_encoder,
            device: device.clone(),
        })
    }

    /// Refuses prompts that are too long for the text encoder and placeholders that are words.
    ///
    /// # Errors
    /// Naming concept and prompt.
    pub fn check_prompts(&self) -> Result<()> {
        for concept in &self.experiment.concepts {
            let failed = || format!("concept `{}`", concept.name);
            let (tokenizer, token) = self.with_concept(concept).with_context(failed)?;
            let words = words(&tokenizer, &token, concept);
            for prompt in self.experiment.prompts_for(concept) {
                words
                    .regularization_prompt(&prompt.prompt)
                    .with_context(failed)?;
            }
        }
        Ok(())
    }

    /// The rows of one cell, prompts in order, positions in order; none for the untuned model.
    ///
    /// # Errors
    /// An unreadable run.
    pub fn rows(&self, cell: &Cell, results: &Path) -> Result<Vec<TokenRow>> {
        let experiment = self.experiment;
        let Some(run) = &cell.run else {
            return Ok(Vec::new());
        };
        let concept = &experiment.concepts[cell.concept];
        let (tokenizer, token) = self.with_concept(concept)?;
        let learned = LearnedEmbedding::load(&run.folder(results).join(EMBEDDING))?;
        let vectors = learned.to_tensor(&self.device);
        let words = words(&tokenizer, &token, concept);
        let hidden = |ids: &Vec<u32>, rows: Option<Tensor<2>>| -> Vec<f32> {
            to_vec(self.text_encoder.forward(std::slice::from_ref(ids), rows))
        };
        let width = self.text_encoder.config().hidden_size;
        let mut rows = Vec::new();
        for prompt in experiment.prompts_for(concept) {
            let filled = words.regularization_prompt(&prompt.prompt)?;
            let ours = hidden(&filled.learned, Some(vectors.clone()));
            let theirs = hidden(&filled.reference, None);
            let [kept, counterparts] = filled.pair.kept(Context::Prompt);
            for (position, counterpart) in kept.into_iter().zip(counterparts) {
                let ours = &ours[position * width..][..width];
                let theirs = &theirs[counterpart * width..][..width];
                rows.push(TokenRow {
                    variant: experiment.variants[cell.variant].name.clone(),
                    concept: concept.name.clone(),
                    seed: cell.seed,
                    prompt: prompt.prompt.clone(),
                    position,
                    token: tokenizer.token(filled.learned[position]),
                    cosine: cosine(ours, theirs),
                });
            }
        }
        Ok(rows)
    }

    fn with_concept(&self, concept: &ConceptConfig) -> Result<(Tokenizer, String)> {
        let mut tokenizer = self.tokenizer.clone();
        let token = concept.placeholder_token();
        tokenizer.add_placeholder(&token, concept.num_vectors)?;
        Ok((tokenizer, token))
    }
}

fn words<'a>(
    tokenizer: &'a Tokenizer,
    token: &'a str,
    concept: &'a ConceptConfig,
) -> ConceptWords<'a> {
    ConceptWords {
        tokenizer,
        placeholder_token: token,
        super_category: &concept.super_category,
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
}
