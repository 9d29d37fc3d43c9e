//! The randomness of a step: drawn from counters, or replayed from a file.

use burn::tensor::{Device, Tensor};
use core_model::rng::{randn, rng};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::data::concept::ConceptLatents;
use crate::replay::Replay;

/// What one forward pass is made of.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Scaled latents of photos, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Standard normal, same shape.
    pub noise: Tensor<4>,
    /// One a sample.
    pub timesteps: Vec<usize>,
    /// Number of each sample's training prompt.
    pub prompts: Vec<usize>,
    /// Number of the regularisation template, one for the whole batch.
    pub template: usize,
}

/// How many things there are to choose from.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Samples.
    pub batch_size: usize,
    /// Training prompts.
    pub prompts: usize,
    /// Regularisation templates; 0 without regularisers.
    pub templates: usize,
    /// Timesteps.
    pub num_train_timesteps: usize,
    /// Whether photos are mirrored at random.
    pub flip: bool,
}

/// Where the batches of a stage come from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Photos and the run's seed.
    Random {
        /// The photos.
        latents: &'a ConceptLatents,
        /// The run's seed.
        seed: u64,
        /// Number of the stage.
        stage: usize,
    },
    /// A file.
    Replay(&'a Replay),
}

impl Source<'_> {
    /// The batch of forward pass `index` of the stage, from 0: a function of seed, stage and
    /// index only.
    pub fn batch(&self, index: usize, choices: &Choices, device: &Device) -> Batch {
        match self {
            Self::Random {
                latents,
                seed,
                stage,
            } => draw(latents, *seed, *stage, index, choices, device),
            Self::Replay(replay) => {
                let prompts = pick(0, "replay: training prompt", index, choices);
                replay.batch(index, prompts, device)
            }
        }
    }
}

fn draw(
    latents: &ConceptLatents,
    seed: u64,
    stage: usize,
    index: usize,
    choices: &Choices,
    device: &Device,
) -> Batch {
    let purpose = |what: &str| format!("stage {stage}: {what}");
    let [channels, height, width] = latents.shape();
    let shape = [choices.batch_size, channels, height, width];
    let normal = |what: &str| randn(shape, seed, &purpose(what), index as u64, device);
    let mut timesteps = rng(seed, &purpose("timestep"), index as u64);
    let mut mirror = rng(seed, &purpose("mirror"), index as u64);
    let photos: Vec<(usize, bool)> = (0..choices.batch_size)
        .map(|sample| {
            let number = index * choices.batch_size + sample;
            let photo = photo(seed, &purpose("photo order"), number, latents.photos());
            (photo, mirror.random_bool(0.5) && choices.flip)
        })
        .collect();
    let mut template = rng(seed, &purpose("template"), index as u64);
    Batch {
        latents: latents.sample(&photos, normal("posterior")),
        noise: normal("noise"),
        timesteps: (0..choices.batch_size)
            .map(|_| timesteps.random_range(0..choices.num_train_timesteps))
            .collect(),
        prompts: pick(seed, &purpose("training prompt"), index, choices),
        template: match choices.templates {
            0 => 0,
            count => template.random_range(0..count),
        },
    }
}

/// One training prompt a sample.
fn pick(seed: u64, purpose: &str, index: usize, choices: &Choices) -> Vec<usize> {
    let mut prompt = rng(seed, purpose, index as u64);
    (0..choices.batch_size)
        .map(|_| prompt.random_range(0..choices.prompts))
        .collect()
}

/// The photo of the `number`-th sample: all photos in a new random order, again and again.
fn photo(seed: u64, purpose: &str, number: usize, photos: usize) -> usize {
    let (round, place) = (number / photos, number % photos);
    let mut order: Vec<usize> = (0..photos).collect();
    order.shuffle(&mut rng(seed, purpose, round as u64));
    order[place]
}

#[cfg(test)]
mod tests {
    use super::photo;

    #[test]
    fn every_photo_comes_once_a_round() {
        for round in 0..3 {
            let mut seen: Vec<usize> = (0..5).map(|i| photo(7, "p", 5 * round + i, 5)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }
}
