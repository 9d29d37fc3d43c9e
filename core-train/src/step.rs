//! One training step, as a function: networks, prompts and a batch in, the terms of Eq. 5 out.

use burn::tensor::Tensor;
use core_losses::{
    ContextPair, LossTerms, Regularizer, RegularizerConfig, RegularizerInput, diffusion_loss,
    total_loss,
};
use core_model::noise_scheduler::DdpmScheduler;
use core_model::unet::UNet2DConditionModel;

use crate::draws::Batch;

/// The hidden states of the text encoder for one step.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// Of each sample's training prompt, [batch, n, d].
    pub prompts: Tensor<3>,
    /// Of the regularisation template.
    pub context: Option<ContextConditioning>,
}

/// The hidden states of one template, filled both ways.
#[derive(Debug, Clone)]
pub struct ContextConditioning {
    /// Of y*, [1, n, d].
    pub learned: Tensor<3>,
    /// Of y_cat, [1, n, d]; never tracked.
    pub reference: Tensor<3>,
    /// Which positions correspond.
    pub pair: ContextPair,
}

/// What a step computes.
#[derive(Debug, Clone, Copy)]
pub struct Objective<'a> {
    /// Whether the diffusion loss is part of it; test-time optimisation goes without.
    pub diffusion: bool,
    /// The other terms.
    pub regularizers: &'a [RegularizerConfig],
}

impl Objective<'_> {
    fn needs_attention(&self) -> bool {
        self.regularizers
            .iter()
            .any(|term| term.weight() != 0.0 && term.needs_attention())
    }
}

/// The terms of the objective on one batch; `None` when nothing has a weight.
///
/// The diffusion pass and the pass with y* share noisy latents and timesteps
/// and run as one batch of twice the size. The pass with y_cat depends on no trained embedding
/// and stays off the tape.
pub fn forward(
    unet: &UNet2DConditionModel,
    noise_scheduler: &DdpmScheduler,
    batch: &Batch,
    conditioning: &Conditioning,
    objective: &Objective<'_>,
) -> Option<LossTerms> {
    let Batch {
        latents,
        noise,
        timesteps,
        ..
    } = batch;
    let size = timesteps.len();
    let noisy_latents = noise_scheduler.add_noise(latents.clone(), noise.clone(), timesteps);
    let times: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
    let repeat = |hidden: &Tensor<3>| hidden.clone().repeat_dim(0, size);
    let context = conditioning
        .context
        .as_ref()
        .filter(|_| objective.needs_attention());

    // 1. y: what the photos say
    let prompts = conditioning.prompts.clone();
    let (model_pred, attention) = match (context, objective.diffusion) {
        (None, false) => (None, None),
        (None, true) => {
            let model_pred = unet.forward(noisy_latents.clone(), &times, prompts);
            (Some(model_pred), None)
        }
        // 2. y*: what the context tokens attend to
        (Some(context), false) => {
            let hidden = repeat(&context.learned);
            let (_, maps) = unet.forward_with_attention(noisy_latents.clone(), &times, hidden);
            (None, Some(maps))
        }
        (Some(context), true) => {
            let twice = Tensor::cat(vec![noisy_latents.clone(), noisy_latents.clone()], 0);
            let hidden = Tensor::cat(vec![prompts, repeat(&context.learned)], 0);
            let (both, maps) = unet.forward_with_attention(twice, &times.repeat(2), hidden);
            let second = maps.into_iter().map(|map| map.narrow(0, size, size));
            (
                Some(both.narrow(0, 0, size)),
                Some(second.collect::<Vec<_>>()),
            )
        }
    };
    // 3. y_cat: what they should attend to
    let reference = context.map(|context| {
        let hidden = repeat(&context.reference);
        let (_, maps) =
            burn::module::Module::valid(unet).forward_with_attention(noisy_latents, &times, hidden);
        maps
    });

    let diffusion = model_pred.map(|model_pred| {
        let target = noise_scheduler.target(latents.clone(), noise.clone(), timesteps);
        diffusion_loss(model_pred, target)
    });
    let input = conditioning
        .context
        .as_ref()
        .map(|context| RegularizerInput {
            pair: &context.pair,
            embeddings: [&context.learned, &context.reference],
            attention: match (&attention, &reference) {
                (Some(learned), Some(reference)) => Some([learned, reference]),
                _ => None,
            },
        });
    total_loss(diffusion, objective.regularizers, input.as_ref())
}
