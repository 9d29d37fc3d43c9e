//! The two CLIP models of the mini world: one gives the generator its text encoder, the other is
//! independent of the generator and is used for evaluation.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::clip::{ClipConfig, ClipModel};
use core_model::params::{ParamNames, to_vec};
use core_model::tokenizer::Tokenizer;
use serde::Deserialize;

use super::contrast::normalised;
use super::objective::{Objective, Place, Quality, stored};
use super::questions::Questions;
use super::scenes::{LabelledScene, PeopleShare, Scenes, Split, pixels};
use super::triples::{photos, triples};
use super::vocabulary::read_tokenizer;
use super::word_rows::new_rows;

/// Weight of the questions (one cross-entropy per attribute) relative to the contrastive loss, which
/// alone hardly learns the noun.
const QUESTION_WEIGHT: f64 = 0.5;

/// The temperature may not fall below 1/100, as in the CLIP paper.
const MAX_LOGIT_SCALE: f64 = 4.6052;

/// Held-out scenes for the learning curve.
const HELD_OUT: usize = 512;

/// Held-out things that are compared with their counterfactuals.
const TRIPLES: u64 = 512;

/// `[clip]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTask {
    /// The folder to write the whole model to. Absent: it is not kept.
    pub output: Option<PathBuf>,
    /// The folder to write the text tower to, as the `text_encoder` of a generator. Absent: it is
    /// not written by itself.
    pub text_encoder_output: Option<PathBuf>,
    /// The folder of the trained tokenizer.
    pub tokenizer: PathBuf,
    /// The share of scenes that show a person, 0 to 1. Absent: 0.
    #[serde(default)]
    pub people: PeopleShare,
    /// The sizes of the network, as in its `config.json`.
    pub architecture: ClipConfig,
}

/// Contrastive training on scenes and captions, with questions about every attribute.
#[derive(Debug)]
pub(super) struct ClipObjective<'a> {
    /// The task.
    pub task: &'a ClipTask,
    /// Seed of the weights and the scenes.
    pub seed: u64,
    /// Scenes per step.
    pub batch_size: usize,
    /// The device.
    pub device: &'a Device,
    tokenizer: Tokenizer,
    questions: Questions,
    question_ids: Vec<Vec<u32>>,
}

impl<'a> ClipObjective<'a> {
    /// Reads the tokenizer and prepares the questions.
    ///
    /// # Errors
    /// An absent or damaged tokenizer folder, a tokenizer that lost a word.
    pub(super) fn new(
        task: &'a ClipTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let tokenizer = read_tokenizer(&task.tokenizer, task.people.nouns())?;
        let questions = Questions::new(task.people.nouns());
        let question_ids =
            encode_short(&tokenizer, questions.captions().iter().map(String::as_str));
        Ok(Self {
            task,
            seed,
            batch_size,
            device,
            tokenizer,
            questions,
            question_ids,
        })
    }
}

impl Objective for ClipObjective<'_> {
    type Network = ClipModel;
    type Batch = Vec<LabelledScene>;

    fn fresh(&self, device: &Device) -> Result<ClipModel> {
        let architecture = &self.task.architecture;
        Ok(ClipModel::init(architecture, self.seed, device)?)
    }

    /// With a row for every token that only the tokenizer has.
    fn stored(&self, device: &Device) -> Result<Option<ClipModel>> {
        let Some(folder) = &self.task.output else {
            return Ok(None);
        };
        let Some(network) = stored::<ClipModel>(folder, device)? else {
            return Ok(None);
        };
        let table = network.text_encoder().token_table();
        Ok(Some(match new_rows(&self.tokenizer, table) {
            Some(rows) => network.with_more_tokens(rows)?,
            None => network,
        }))
    }

    fn folder(&self) -> Option<PathBuf> {
        self.task.output.clone()
    }

    fn outputs(&self) -> Vec<PathBuf> {
        let ClipTask {
            output,
            text_encoder_output,
            ..
        } = self.task;
        output.iter().chain(text_encoder_output).cloned().collect()
    }

    fn names(&self, network: &ClipModel) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Vec<LabelledScene> + Send> {
        let scenes =
            Scenes::new(self.seed, Split::Training, "clip scene").with_people(self.task.people);
        let batch_size = self.batch_size;
        Box::new(move |step| scenes.labelled(step, batch_size))
    }

    fn loss(&self, network: &ClipModel, batch: Vec<LabelledScene>, _step: u64) -> Tensor<1> {
        let images = normalised(network.image_features(images_of(&batch, self.device)));
        let captions = batch.iter().map(|scene| scene.caption.as_str());
        let captions = network.text_features(&encode_short(&self.tokenizer, captions));
        let questions = network.text_features(&self.question_ids);
        let texts = normalised(Tensor::cat(vec![captions, questions], 0));
        let (size, count) = (batch.len(), self.question_ids.len());
        let mut logits = images.matmul(texts.transpose());
        if let Some(scale) = network.logit_scale() {
            logits = logits * scale.clamp_max(MAX_LOGIT_SCALE).exp().reshape([1, 1]);
        }

        let pairs = logits.clone().narrow(1, 0, size);
        let contrastive = contrastive(pairs, &batch, self.device);
        let answers = logits.narrow(1, size, count);
        contrastive + self.questions.loss(answers, &batch, self.device) * QUESTION_WEIGHT
    }

    fn evaluate(&self, network: &ClipModel) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "clip held-out scene")
            .with_people(self.task.people);
        let texts = normalised(network.text_features(&self.question_ids));
        let mut seen = Vec::new();
        let mut answers = Vec::new();
        for batch in 0..HELD_OUT / 64 {
            let batch = scenes.labelled(batch as u64, 64);
            let images = normalised(network.image_features(images_of(&batch, self.device)));
            answers.extend(to_vec(images.matmul(texts.clone().transpose())));
            seen.extend(batch);
        }
        let labels: Vec<_> = seen.iter().map(|scene| scene.attributes).collect();
        Ok(self.questions.accuracy(&answers, &labels))
    }

    /// The answers to the questions, and whether CLIP-I tells a thing from others almost like it.
    fn final_quality(&self, network: &ClipModel) -> Result<Quality> {
        let mut quality = self.evaluate(network)?;
        let features = |images| network.image_features(images);
        quality.extend(triples(features, TRIPLES, self.device));
        quality.extend(photos(features, self.device));
        Ok(quality)
    }

    fn save(&self, network: &ClipModel, place: Place<'_>) -> Result<()> {
        if let Some(folder) = &self.task.output {
            network.save(&place(folder), Precision::Float16)?;
        }
        if let Some(folder) = &self.task.text_encoder_output {
            let text_encoder = network.text_encoder();
            text_encoder.save(&place(folder), Precision::Float16)?;
        }
        Ok(())
    }
}

/// Cuts prompts to the longest one. The encoder is causal and its result is read at the end of the
/// text, so padding would only cost time.
fn encode_short<'a>(
    tokenizer: &Tokenizer,
    prompts: impl Iterator<Item = &'a str>,
) -> Vec<Vec<u32>> {
    let encodings: Vec<_> = prompts.map(|prompt| tokenizer.encode(prompt)).collect();
    let longest = encodings
        .iter()
        .map(|encoding| encoding.length)
        .max()
        .unwrap_or(0);
    encodings
        .into_iter()
        .map(|encoding| encoding.ids[..longest].to_vec())
        .collect()
}

fn images_of(batch: &[LabelledScene], device: &Device) -> Tensor<4> {
    pixels(
        batch
            .iter()
            .flat_map(|scene| scene.pixels.iter().copied())
            .collect(),
        device,
    )
}

/// The symmetric contrastive loss of CLIP. A caption that leaves out parts may also be true of other
/// scenes of the batch; those pairs are not negatives and are left out of the sums.
fn contrastive(logits: Tensor<2>, batch: &[LabelledScene], device: &Device) -> Tensor<1> {
    let size = batch.len();
    let mut also_true = vec![0.0_f32; size * size];
    let mut diagonal = vec![0.0_f32; size * size];
    for (i, scene) in batch.iter().enumerate() {
        diagonal[i * size + i] = 1.0;
        for (j, other) in batch.iter().enumerate() {
            if i != j && other.claims.are_true_of(&scene.attributes) {
                also_true[i * size + j] = -1e4;
            }
        }
    }
    let also_true = Tensor::<2>::from_data(TensorData::new(also_true, [size, size]), device);
    let diagonal = Tensor::<2>::from_data(TensorData::new(diagonal, [size, size]), device);
    let logits = logits + also_true;
    let by_image = (log_softmax(logits.clone(), 1) * diagonal.clone()).sum();
    let by_text = (log_softmax(logits, 0) * diagonal).sum();
    (by_image + by_text) * (-0.5 / size as f64)
}
