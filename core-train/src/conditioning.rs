//! The text encoder's side of a step: as few prompts as possible, each as often as needed.
//!
//! What does not depend on trained weights is computed once, when first needed: the
//! super-category's encodings always, the concept's where its embedding is frozen. Every such
//! prompt is encoded alone, so that its bits do not depend on when that was.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use core_model::text_encoder::TextEncoder;

use crate::data::prompts::{ConceptWords, RegularizationPrompt};
use crate::draws::Batch;
use crate::error::Result;
use crate::step::{Conditioning, ContextConditioning};

/// The tokenised prompts of a stage.
#[derive(Debug)]
pub struct StagePrompts {
    training: Vec<Vec<u32>>,
    regularization: Vec<RegularizationPrompt>,
}

impl StagePrompts {
    /// Fills and tokenises templates.
    ///
    /// # Errors
    /// [`Error::Template`](crate::Error::Template) naming the first that does not fit.
    pub fn new(
        words: &ConceptWords<'_>,
        training: &[String],
        regularization: &[String],
    ) -> Result<Self> {
        let training = training
            .iter()
            .map(|template| words.training_prompt(template));
        let regularization = regularization
            .iter()
            .map(|template| words.regularization_prompt(template));
        Ok(Self {
            training: training.collect::<Result<_>>()?,
            regularization: regularization.collect::<Result<_>>()?,
        })
    }

    /// The number of training prompts.
    pub fn training(&self) -> usize {
        self.training.len()
    }

    /// The number of regularisation templates.
    pub fn templates(&self) -> usize {
        self.regularization.len()
    }
}

/// Encodes the prompts of a stage's steps.
#[derive(Debug)]
pub struct PromptEncoder<'a> {
    text_encoder: &'a TextEncoder,
    prompts: &'a StagePrompts,
    references: BTreeMap<usize, Tensor<3>>,
    frozen_training: BTreeMap<usize, Tensor<3>>,
    frozen_learned: BTreeMap<usize, Tensor<3>>,
}

impl<'a> PromptEncoder<'a> {
    /// An encoder that has encoded nothing yet.
    pub fn new(text_encoder: &'a TextEncoder, prompts: &'a StagePrompts) -> Self {
        Self {
            text_encoder,
            prompts,
            references: BTreeMap::new(),
            frozen_training: BTreeMap::new(),
            frozen_learned: BTreeMap::new(),
        }
    }

    /// The hidden states for a batch; `rows` [num_vectors, d] are the concept's input embeddings.
    /// Tracked rows are encoded anew, frozen ones must be the same in every call.
    pub fn encode(&mut self, batch: &Batch, rows: &Tensor<2>) -> Conditioning {
        let template = self.prompts.regularization.get(batch.template);
        let reference = template.map(|template| {
            let encoder = self.text_encoder;
            let entry = self.references.entry(batch.template);
            let encode = || encoder.forward(std::slice::from_ref(&template.reference), None);
            entry.or_insert_with(encode).clone()
        });
        let (prompts, learned) = if rows.is_require_grad() {
            self.encode_tracked(batch, rows)
        } else {
            self.look_up_frozen(batch, rows)
        };
        let context = match (template, learned, reference) {
            (Some(template), Some(learned), Some(reference)) => Some(ContextConditioning {
                learned,
                reference,
                pair: template.pair.clone(),
            }),
            _ => None,
        };
        Conditioning { prompts, context }
    }

    /// The distinct prompts of the batch and y* as one forward pass.
    fn encode_tracked(&self, batch: &Batch, rows: &Tensor<2>) -> (Tensor<3>, Option<Tensor<3>>) {
        let mut distinct = batch.prompts.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let mut ids: Vec<Vec<u32>> = distinct
            .iter()
            .map(|prompt| self.prompts.training[*prompt].clone())
            .collect();
        let template = self.prompts.regularization.get(batch.template);
        ids.extend(template.map(|template| template.learned.clone()));
        let hidden = self.text_encoder.forward(&ids, Some(rows.clone()));

        let place = |prompt: &usize| distinct.binary_search(prompt).unwrap_or(0) as i64;
        let places: Vec<i64> = batch.prompts.iter().map(place).collect();
        let prompts = if distinct.len() == 1 {
            hidden.clone().narrow(0, 0, 1).repeat_dim(0, places.len())
        } else {
            let count = places.len();
            let places = TensorData::new(places, [count]);
            let places = Tensor::<1, Int>::from_data(places, &hidden.device());
            hidden.clone().select(0, places)
        };
        let learned = template.map(|_| hidden.narrow(0, distinct.len(), 1));
        (prompts, learned)
    }

    fn look_up_frozen(
        &mut self,
        batch: &Batch,
        rows: &Tensor<2>,
    ) -> (Tensor<3>, Option<Tensor<3>>) {
        let encoder = self.text_encoder;
        let encode =
            |ids: &Vec<u32>| encoder.forward(std::slice::from_ref(ids), Some(rows.clone()));
        let training = &self.prompts.training;
        let prompts = batch.prompts.iter().map(|prompt| {
            let entry = self.frozen_training.entry(*prompt);
            entry.or_insert_with(|| encode(&training[*prompt])).clone()
        });
        let prompts = Tensor::cat(prompts.collect(), 0);
        let learned = self
            .prompts
            .regularization
            .get(batch.template)
            .map(|template| {
                let entry = self.frozen_learned.entry(batch.template);
                entry.or_insert_with(|| encode(&template.learned)).clone()
            });
        (prompts, learned)
    }
}
