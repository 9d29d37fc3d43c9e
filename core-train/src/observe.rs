//! What the networks compute in one training step: the passes that its terms read, and no other.

use burn::module::Module;
use burn::tensor::Tensor;
use core_losses::{LossTerm, Observed, Pass, Reading, Term};
use core_model::conditioning::Conditioning;
use core_model::noise_scheduler::DdpmScheduler;
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::unet::UNet2DConditionModel;

use crate::data::batch::Batch;
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
            template: self.any(&[Reading::TemplateHidden, Reading::TemplateAttention]),
            class_template: self.any(&[Reading::ClassHidden, Reading::ClassAttention]),
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
        embedding: embedding(model, scene, reads),
        ..Observed::default()
    };
    let unet = UnetPass {
        latents: noise_scheduler.add_noise(
            batch.latents.clone(),
            batch.noise.clone(),
            &batch.timesteps,
        ),
        timesteps: batch.timesteps.iter().map(|t| *t as f32).collect(),
    };

    // 1. y, what the photos say, and y*, what the context tokens attend to
    let template_maps = reads.any(&[Reading::TemplateAttention]);
    let of_photos = encoded.photos.clone().map(Conditioning::from);
    let of_template = encoded.template.clone().map(Conditioning::from);
    let of_template = of_template.filter(|_| template_maps);
    let parts = [
        Part {
            prompt: of_photos,
            maps: reads.any(&[Reading::PhotoAttention]),
        },
        Part {
            prompt: of_template,
            maps: true,
        },
    ];
    let [photos, template_pass] = unet.run(model.unet(), parts);
    observed.photos = encoded.photos.map(|hidden| {
        let output = photos.unwrap_or_default();
        let target = || {
            let (latents, noise) = (batch.latents.clone(), batch.noise.clone());
            noise_scheduler.target(latents, noise, &batch.timesteps)
        };
        let spans = batch.prompts.iter();
        Pass {
            spans: spans.map(|p| prompts.training[*p].span.clone()).collect(),
            hidden,
            prediction: output.prediction.map(|prediction| [prediction, target()]),
            attention: output.attention,
        }
    });
    observed.template = encoded.template.map(|hidden| Pass {
        spans: template.iter().map(|t| t.pair.learned().clone()).collect(),
        hidden,
        prediction: None,
        attention: template_pass.and_then(|output| output.attention),
    });

    // 2. y_cat, what they should attend to
    observed.class_template = encoded.class_template.map(|hidden| {
        let maps = reads.any(&[Reading::ClassAttention]).then(|| {
            let prompt = Conditioning::from(hidden.clone()).repeat(unet.timesteps.len());
            let UnetPass { latents, timesteps } = &unet;
            let frozen = model.unet().valid();
            let (_, maps) = frozen.forward_with_attention(latents.clone(), timesteps, prompt);
            maps
        });
        Pass {
            spans: template
                .iter()
                .map(|t| t.pair.reference().clone())
                .collect(),
            hidden,
            prediction: None,
            attention: maps,
        }
    });
    observed
}

/// The concept's vectors now and at the start, where a term reads them.
fn embedding(model: &PersonalizedModel, scene: Scene<'_>, reads: &Reads) -> Option<[Tensor<2>; 2]> {
    if !reads.any(&[Reading::Embedding]) {
        return None;
    }
    let now = model.concept().map(ConceptEmbedding::vectors)?;
    Some([now, scene.first_vectors?.clone()])
}

/// Noisy latents and timesteps, over which prompts are passed.
struct UnetPass {
    latents: Tensor<4>,
    timesteps: Vec<f32>,
}

/// One prompt per sample, or one for all, and whether its attention is wanted.
struct Part {
    prompt: Option<Conditioning>,
    maps: bool,
}

/// What the U-Net gave for one part.
#[derive(Default)]
struct UnetOutput {
    prediction: Option<Tensor<4>>,
    attention: Option<Vec<Tensor<4>>>,
}

impl UnetPass {
    /// All parts that have a prompt as one batch.
    fn run(&self, unet: &UNet2DConditionModel, parts: [Part; 2]) -> [Option<UnetOutput>; 2] {
        let size = self.timesteps.len();
        let wanted = parts.each_ref().map(|part| part.prompt.is_some());
        let maps = parts
            .each_ref()
            .map(|part| part.prompt.is_some() && part.maps);
        let prompts = parts.into_iter().filter_map(|part| part.prompt);
        let mut prompts: Vec<Conditioning> = prompts.map(|prompt| prompt.repeat(size)).collect();
        let count = prompts.len();
        let (latents, prompt) = match count {
            0 => return [None, None],
            1 => (self.latents.clone(), prompts.remove(0)),
            _ => (
                Tensor::cat(vec![self.latents.clone(); count], 0),
                Conditioning::cat(prompts),
            ),
        };
        let timesteps = self.timesteps.repeat(count);
        let (prediction, all_maps) = match maps.contains(&true) {
            true => unet.forward_with_attention(latents, &timesteps, prompt),
            false => (unet.forward(latents, &timesteps, prompt), Vec::new()),
        };
        let narrow = |tensor: &Tensor<4>, place: usize| match count {
            1 => tensor.clone(),
            _ => tensor.clone().narrow(0, place * size, size),
        };
        let mut place = 0;
        [0, 1].map(|part| {
            wanted[part].then(|| {
                let output = UnetOutput {
                    prediction: Some(narrow(&prediction, place)),
                    attention: maps[part]
                        .then(|| all_maps.iter().map(|map| narrow(map, place)).collect()),
                };
                place += 1;
                output
            })
        })
    }
}
