//! The text encoder's side of a step: each distinct prompt once, then repeated for the batch.
//!
//! What does not depend on weights that the stage trains is encoded once, when it is first needed,
//! and alone, so that its bits do not depend on when that was.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use core_model::conditioning::Conditioning;
use core_model::neti::NetiMapper;
use core_model::personalized::PersonalizedModel;

use crate::data::batch::{Batch, Samples};
use crate::data::prompts::StagePrompts;

/// What a stage trains, as far as it decides which encodings stay the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moving {
    /// The concept's vectors.
    pub concept: bool,
    /// Any weight of the text encoder.
    pub text_encoder: bool,
}

/// Which hidden states a step needs.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Those of the training prompts.
    pub photos: bool,
    /// Those of the class images.
    pub prior: bool,
    /// Those of the template with the concept.
    pub template: bool,
    /// Those of the template with the super-category.
    pub class_template: bool,
    /// Those of a term's own sentence, with the concept and with the super-category.
    pub sentence: bool,
}

/// The hidden states of one step, as far as they are wanted.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    /// Of each sample's training prompt, [batch, n, d]; of other layers others, where a mapper makes
    /// them.
    pub photos: Option<Conditioning>,
    /// Of each class image's prompt, [batch, n, d].
    pub prior: Option<Tensor<3>>,
    /// Of y*, [1, n, d].
    pub template: Option<Tensor<3>>,
    /// Of y_cat, [1, n, d]; never tracked.
    pub class_template: Option<Tensor<3>>,
    /// Of a term's own sentence with the concept, [1, n, d].
    pub sentence: Option<Tensor<3>>,
    /// Of the sentence with the super-category, [1, n, d]; never tracked.
    pub class_sentence: Option<Tensor<3>>,
}

/// Encodes the prompts of one stage's steps.
#[derive(Debug, Default)]
pub struct PromptEncoder {
    moving: Moving,
    photos: BTreeMap<usize, Tensor<3>>,
    prior: BTreeMap<usize, Tensor<3>>,
    templates: BTreeMap<usize, Tensor<3>>,
    class_templates: BTreeMap<usize, Tensor<3>>,
    sentence: Option<Tensor<3>>,
    class_sentence: Option<Tensor<3>>,
}

impl PromptEncoder {
    /// An encoder for a stage that has encoded nothing yet.
    pub fn new(moving: Moving) -> Self {
        Self {
            moving,
            ..Self::default()
        }
    }

    /// The hidden states for a batch.
    pub fn encode(
        &mut self,
        model: &PersonalizedModel,
        prompts: &StagePrompts,
        batch: &Batch,
        wanted: Wanted,
    ) -> Encoded {
        let class_template = wanted
            .class_template
            .then(|| self.encode_class(model, prompts, batch.template));
        let mapper = model.mapper().filter(|_| wanted.photos);
        let mapped = mapper.map(|mapper| encode_mapped(mapper, model, prompts, batch));
        let wanted = Wanted {
            photos: wanted.photos && mapped.is_none(),
            ..wanted
        };
        let sentence = prompts.sentence.as_ref().filter(|_| wanted.sentence);
        let class_sentence =
            sentence.map(|sentence| self.encode_class_sentence(model, &sentence.reference.ids));
        let encoded = match self.moving.concept || self.moving.text_encoder {
            true => encode_moving(model, prompts, batch, wanted),
            false => self.look_up(model, prompts, batch, wanted),
        };
        let prior = batch.prior.as_ref().filter(|_| wanted.prior);
        Encoded {
            photos: mapped.or(encoded.photos),
            prior: prior.map(|samples| self.encode_prior(model, prompts, &samples.prompts)),
            class_template,
            class_sentence,
            ..encoded
        }
    }

    /// Class prompts hold no concept: only a text encoder that moves changes them.
    fn encode_prior(
        &mut self,
        model: &PersonalizedModel,
        prompts: &StagePrompts,
        numbers: &[usize],
    ) -> Tensor<3> {
        if self.moving.text_encoder {
            let ids: Vec<Vec<u32>> = prompts.class_prompts.clone();
            let hidden = model.text_encoder().forward(&ids, None);
            let rows: Vec<i64> = numbers.iter().map(|number| *number as i64).collect();
            let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &hidden.device());
            return hidden.select(0, rows);
        }
        let states = numbers.iter().map(|number| {
            let ids = std::slice::from_ref(&prompts.class_prompts[*number]);
            let entry = self.prior.entry(*number);
            let encode = || model.text_encoder().forward(ids, None);
            entry.or_insert_with(encode).clone()
        });
        Tensor::cat(states.collect(), 0)
    }

    fn encode_class(
        &mut self,
        model: &PersonalizedModel,
        prompts: &StagePrompts,
        template: usize,
    ) -> Tensor<3> {
        let ids = std::slice::from_ref(&prompts.templates[template].reference);
        if self.moving.text_encoder {
            return model.text_encoder().valid().forward(ids, None);
        }
        let entry = self.class_templates.entry(template);
        let encode = || model.text_encoder().forward(ids, None);
        entry.or_insert_with(encode).clone()
    }

    fn encode_class_sentence(&mut self, model: &PersonalizedModel, ids: &Vec<u32>) -> Tensor<3> {
        let ids = std::slice::from_ref(ids);
        if self.moving.text_encoder {
            return model.text_encoder().valid().forward(ids, None);
        }
        let encode = || model.text_encoder().forward(ids, None);
        self.class_sentence.get_or_insert_with(encode).clone()
    }

    /// Prompts that no trained weight changes.
    fn look_up(
        &mut self,
        model: &PersonalizedModel,
        prompts: &StagePrompts,
        batch: &Batch,
        wanted: Wanted,
    ) -> Encoded {
        let encode = |ids: &Vec<u32>| model.encode(std::slice::from_ref(ids));
        let photos = wanted.photos.then(|| {
            let states = batch.photos.prompts.iter().map(|prompt| {
                let entry = self.photos.entry(*prompt);
                let ids = &prompts.training[*prompt].ids;
                entry.or_insert_with(|| encode(ids)).clone()
            });
            Tensor::cat(states.collect(), 0).into()
        });
        let template = wanted.template.then(|| {
            let entry = self.templates.entry(batch.template);
            let ids = &prompts.templates[batch.template].learned;
            entry.or_insert_with(|| encode(ids)).clone()
        });
        let sentence = prompts.sentence.as_ref().filter(|_| wanted.sentence);
        let sentence = sentence.map(|sentence| {
            let ids = &sentence.learned.ids;
            self.sentence.get_or_insert_with(|| encode(ids)).clone()
        });
        Encoded {
            photos,
            template,
            sentence,
            ..Encoded::default()
        }
    }
}

/// The prompt of every sample at its own timestep.
fn encode_mapped(
    mapper: &NetiMapper,
    model: &PersonalizedModel,
    prompts: &StagePrompts,
    batch: &Batch,
) -> Conditioning {
    let Samples {
        prompts: numbers,
        timesteps,
        ..
    } = &batch.photos;
    let ids: Vec<Vec<u32>> = numbers
        .iter()
        .map(|number| prompts.training[*number].ids.clone())
        .collect();
    let timesteps: Vec<f32> = timesteps.iter().map(|timestep| *timestep as f32).collect();
    let kept = batch.truncation.as_deref();
    mapper.conditioning(model.text_encoder(), &ids, &timesteps, kept)
}

/// The distinct prompts of the batch, y* and a term's sentence as one forward pass.
fn encode_moving(
    model: &PersonalizedModel,
    prompts: &StagePrompts,
    batch: &Batch,
    wanted: Wanted,
) -> Encoded {
    let mut distinct = match wanted.photos {
        true => batch.photos.prompts.clone(),
        false => Vec::new(),
    };
    distinct.sort_unstable();
    distinct.dedup();
    let mut ids: Vec<Vec<u32>> = distinct
        .iter()
        .map(|prompt| prompts.training[*prompt].ids.clone())
        .collect();
    if wanted.template {
        ids.push(prompts.templates[batch.template].learned.clone());
    }
    let sentence = prompts.sentence.as_ref().filter(|_| wanted.sentence);
    if let Some(sentence) = sentence {
        ids.push(sentence.learned.ids.clone());
    }
    if ids.is_empty() {
        return Encoded::default();
    }
    let hidden = model.encode(&ids);
    let photos = wanted.photos.then(|| {
        let count = batch.photos.prompts.len();
        if distinct.len() == 1 {
            return hidden.clone().narrow(0, 0, 1).repeat_dim(0, count).into();
        }
        let place = |prompt: &usize| distinct.binary_search(prompt).unwrap_or(0) as i64;
        let places: Vec<i64> = batch.photos.prompts.iter().map(place).collect();
        let places = TensorData::new(places, [count]);
        let places = Tensor::<1, Int>::from_data(places, &hidden.device());
        hidden.clone().select(0, places).into()
    });
    let last = hidden.dims()[0] - 1;
    Encoded {
        photos,
        template: wanted
            .template
            .then(|| hidden.clone().narrow(0, distinct.len(), 1)),
        sentence: sentence.map(|_| hidden.narrow(0, last, 1)),
        ..Encoded::default()
    }
}
