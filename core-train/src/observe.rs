//! What the networks compute in one training step: the passes that its terms read, and no other.

use burn::module::Module;
use burn::tensor::Tensor;
use core_losses::{LossTerm, Observed, Pass, PromptSpan, Reading, Term};
use core_model::conditioning::Conditioning;
use core_model::device::is_cpu;
use core_model::noise_scheduler::DdpmScheduler;
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::unet::{Probabilities, UNet2DConditionModel};

use crate::data::batch::{Batch, Samples};
use crate::data::prompts::StagePrompts;
use crate::prompt_encoder::{PromptEncoder, Wanted};

/// What the terms of a stage read.
#[derive(Debug, Clone, Default)]
pub struct Reads(Vec<Reading>);

impl Reads {
    /// What terms with a weight read.
    pub fn of(terms: &[LossTerm]) -> Self {
        let weighted = terms.iter().filter(|term| term.weight() != 0.0);
        Self(weighted.flat_map(|term| term.reads()).copied().collect())
    }

    fn any(&self, readings: &[Reading]) -> bool {
        self.0.iter().any(|reading| readings.contains(reading))
    }

    fn photos(&self) -> bool {
        self.any(&[Reading::PhotoPrediction, Reading::PhotoAttention])
    }

    /// Which prompts must be encoded.
    fn prompts(&self) -> Wanted {
        Wanted {
            photos: self.photos(),
            prior: self.any(&[Reading::PriorPrediction]),
            template: self.any(&[Reading::TemplateHidden, Reading::TemplateAttention]),
            class_template: self.any(&[Reading::ClassHidden, Reading::ClassAttention]),
            sentence: self.any(&[Reading::Sentence]),
        }
    }
}

/// What a step looks at besides the model.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Photos, noise and choices.
    pub batch: &'a Batch,
    /// The prompts that the batch chooses from.
    pub prompts: &'a StagePrompts,
    /// The noise schedule.
    pub noise_scheduler: &'a DdpmScheduler,
    /// The concept's vectors at the start of the run, [vectors, channels].
    pub first_vectors: Option<&'a Tensor<2>>,
}

/// Runs the passes that `reads` names.
///
/// The pass over the photos and the one with y* share noisy latents and timesteps and run as one
/// batch. The pass with y_cat depends on no trained embedding and stays off the tape.
pub fn observe(
    model: &PersonalizedModel,
    encoder: &mut PromptEncoder,
    scene: Scene<'_>,
    reads: &Reads,
) -> Observed {
    let Scene {
        batch,
        prompts,
        noise_scheduler,
        ..
    } = scene;
    let encoded = encoder.encode(model, prompts, batch, reads.prompts());
    let template = prompts.templates.get(batch.template);
    let mut observed = Observed {
        pair: template.map(|template| template.pair.clone()),
        photo_mask: batch.photos.mask.clone(),
        embedding: embedding(model, scene, reads),
        ..Observed::default()
    };
    let sentence = prompts.sentence.as_ref();
    if let Some((sentence, hidden)) = sentence.zip(encoded.sentence) {
        observed.sentence = Some(text_pass(&sentence.learned.span, hidden));
    }
    if let Some((sentence, hidden)) = sentence.zip(encoded.class_sentence) {
        observed.class_sentence = Some(text_pass(&sentence.reference.span, hidden));
    }
    let photos = Noisy::new(&batch.photos, noise_scheduler);

    // 1. y, what the photos say; the class images; and y*, what the context tokens attend to
    let mut parts = Vec::new();
    if let Some(states) = &encoded.photos {
        let maps = reads.any(&[Reading::PhotoAttention]);
        parts.push(photos.part(states.clone()).with_attention(maps));
    }
    let prior = batch.prior.as_ref();
    let noisy_prior = prior.map(|samples| Noisy::new(samples, noise_scheduler));
    if let Some((hidden, noisy)) = encoded.prior.as_ref().zip(noisy_prior.as_ref()) {
        parts.push(noisy.part(hidden.clone()));
    }
    let template_maps = reads.any(&[Reading::TemplateAttention]);
    if let Some(hidden) = encoded.template.as_ref().filter(|_| template_maps) {
        parts.push(photos.part(hidden.clone()).attention_alone());
    }
    // The cpu keeps probabilities, whose means have bits of their own.
    let class_attention = match is_cpu(&batch.photos.latents.device()) {
        true => Probabilities::Whole,
        false => Probabilities::Means,
    };
    let attention = match reads.any(&[Reading::PhotoAttention]) {
        true => Probabilities::Whole,
        false => class_attention,
    };
    let mut outputs = run(model.unet(), parts, attention).into_iter();
    let target = |samples: &Samples| {
        let (latents, noise) = (samples.latents.clone(), samples.noise.clone());
        noise_scheduler.target(latents, noise, &samples.timesteps)
    };
    observed.photos = encoded.photos.map(|states| {
        let output = outputs.next().unwrap_or_default();
        let spans = batch.photos.prompts.iter();
        Pass {
            spans: spans.map(|p| prompts.training[*p].span.clone()).collect(),
            hidden: states.shared().cloned(),
            prediction: output.prediction.map(|p| [p, target(&batch.photos)]),
            attention: output.attention,
        }
    });
    observed.prior = encoded.prior.zip(prior).map(|(hidden, samples)| {
        let output = outputs.next().unwrap_or_default();
        Pass {
            spans: Vec::new(),
            hidden: Some(hidden),
            prediction: output.prediction.map(|p| [p, target(samples)]),
            attention: None,
        }
    });
    observed.template = encoded.template.map(|hidden| Pass {
        spans: template.iter().map(|t| t.pair.learned().clone()).collect(),
        hidden: Some(hidden),
        prediction: None,
        attention: outputs.next().and_then(|output| output.attention),
    });

    // 2. y_cat, what they should attend to
    observed.class_template = encoded.class_template.map(|hidden| {
        let maps = reads.any(&[Reading::ClassAttention]).then(|| {
            let Part { noisy, prompt, .. } = photos.part(hidden.clone());
            let (latents, frozen) = (noisy.latents.clone(), model.unet().valid());
            let times = &noisy.timesteps;
            let (_, maps) = frozen.forward_some(latents, times, prompt, 0, class_attention);
            maps
        });
        Pass {
            spans: template
                .iter()
                .map(|t| t.pair.reference().clone())
                .collect(),
            hidden: Some(hidden),
            prediction: None,
            attention: maps,
        }
    });
    observed
}

/// A pass of the text encoder alone.
fn text_pass(span: &PromptSpan, hidden: Tensor<3>) -> Pass {
    Pass {
        spans: vec![span.clone()],
        hidden: Some(hidden),
        prediction: None,
        attention: None,
    }
}

/// The concept's vectors now and at the start, where a term reads them.
fn embedding(model: &PersonalizedModel, scene: Scene<'_>, reads: &Reads) -> Option<[Tensor<2>; 2]> {
    if !reads.any(&[Reading::Embedding]) {
        return None;
    }
    let now = model.embedding().map(ConceptEmbedding::vectors)?;
    Some([now, scene.first_vectors?.clone()])
}

/// Noisy latents and timesteps, over which prompts are passed.
struct Noisy {
    latents: Tensor<4>,
    timesteps: Vec<f32>,
}

impl Noisy {
    fn new(samples: &Samples, noise_scheduler: &DdpmScheduler) -> Self {
        let (latents, noise) = (samples.latents.clone(), samples.noise.clone());
        Self {
            latents: noise_scheduler.add_noise(latents, noise, &samples.timesteps),
            timesteps: samples.timesteps.iter().map(|t| *t as f32).collect(),
        }
    }

    /// These samples with one prompt per sample, or one for all; a prediction is wanted of them.
    fn part(&self, states: impl Into<Conditioning>) -> Part<'_> {
        Part {
            noisy: self,
            prompt: states.into().repeat(self.timesteps.len()),
            prediction: true,
            maps: false,
        }
    }
}

/// What the U-Net is to be run on, and what is wanted of it.
struct Part<'a> {
    noisy: &'a Noisy,
    /// One prompt per sample.
    prompt: Conditioning,
    prediction: bool,
    maps: bool,
}

impl Part<'_> {
    fn with_attention(self, maps: bool) -> Self {
        Self { maps, ..self }
    }

    fn attention_alone(self) -> Self {
        Self {
            prediction: false,
            maps: true,
            ..self
        }
    }

    fn size(&self) -> usize {
        self.noisy.timesteps.len()
    }
}

/// What the U-Net gave for one part.
#[derive(Default)]
struct UnetOutput {
    prediction: Option<Tensor<4>>,
    attention: Option<Vec<Tensor<4>>>,
}

/// All parts as one batch; those of which no prediction is wanted come last. Where they are prompts
/// over the same samples, the samples are given once.
fn run(
    unet: &UNet2DConditionModel,
    parts: Vec<Part<'_>>,
    attention: Probabilities,
) -> Vec<UnetOutput> {
    let Some(first) = parts.first().map(|part| part.noisy) else {
        return Vec::new();
    };
    let (latents, timesteps) = match parts.iter().all(|part| std::ptr::eq(part.noisy, first)) {
        true => (first.latents.clone(), first.timesteps.clone()),
        false => {
            let latents = parts.iter().map(|part| part.noisy.latents.clone());
            let timesteps = parts.iter().flat_map(|part| part.noisy.timesteps.clone());
            (Tensor::cat(latents.collect(), 0), timesteps.collect())
        }
    };
    let prompts: Vec<Conditioning> = parts.iter().map(|part| part.prompt.clone()).collect();
    let prompt = match prompts.len() {
        1 => parts[0].prompt.clone(),
        _ => Conditioning::cat(prompts),
    };
    let predicted = parts.iter().filter(|part| part.prediction);
    let predictions = predicted.map(Part::size).sum();
    let (prediction, all_maps) = match parts.iter().any(|part| part.maps) {
        true => unet.forward_some(latents, &timesteps, prompt, predictions, attention),
        false => (Some(unet.forward(latents, &timesteps, prompt)), Vec::new()),
    };
    let mut start = 0;
    let outputs = parts.iter().map(|part| {
        let narrow = |tensor: &Tensor<4>| match tensor.dims()[0] == part.size() {
            true => tensor.clone(),
            false => tensor.clone().narrow(0, start, part.size()),
        };
        let output = UnetOutput {
            prediction: prediction.as_ref().filter(|_| part.prediction).map(narrow),
            attention: part.maps.then(|| all_maps.iter().map(narrow).collect()),
        };
        start += part.size();
        output
    });
    outputs.collect()
}
