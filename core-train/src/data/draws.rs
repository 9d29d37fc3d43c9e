//! The randomness of a step: drawn from counters, or replayed from a file.

use std::sync::Arc;

use burn::tensor::Device;
use core_model::rng::{randn, rng};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::batch::{Batch, BatchSizes};
use super::replay::Replay;
use super::shots::{Photos, Shot};

/// Where the batches of a stage come from.
#[derive(Debug)]
pub enum Source {
    /// Photos and the run's seed.
    Random {
        /// The photos.
        photos: Arc<Photos>,
        /// The run's seed.
        seed: u64,
        /// The index of the stage.
        stage: usize,
    },
    /// A replay file.
    Replay(Replay),
}

impl Source {
    /// The batch of forward pass `index` of the stage, from 0: a function of seed, stage and
    /// index only.
    pub fn batch(&self, index: usize, sizes: &BatchSizes, device: &Device) -> Batch {
        match self {
            Self::Random {
                photos,
                seed,
                stage,
            } => draw(photos, *seed, *stage, index, sizes, device),
            Self::Replay(replay) => {
                let prompts = pick(0, "replay: training prompt", index, sizes);
                replay.batch(index, prompts, device)
            }
        }
    }
}

fn draw(
    photos: &Photos,
    seed: u64,
    stage: usize,
    index: usize,
    sizes: &BatchSizes,
    device: &Device,
) -> Batch {
    let purpose = |what: &str| format!("stage {stage}: {what}");
    let [channels, height, width] = photos.shape();
    let shape = [sizes.batch_size, channels, height, width];
    let normal = |what: &str| randn(shape, seed, &purpose(what), index as u64, device);
    let mut timesteps = rng(seed, &purpose("timestep"), index as u64);
    let mut mirror = rng(seed, &purpose("mirror"), index as u64);
    let shots: Vec<Shot> = (0..sizes.batch_size)
        .map(|sample| {
            let number = index * sizes.batch_size + sample;
            Shot {
                photo: photo(seed, &purpose("photo order"), number, photos.count()),
                mirrored: mirror.random_bool(0.5) && sizes.flip,
                rng: rng(seed, &purpose("augmentation"), number as u64),
            }
        })
        .collect();
    let mut template = rng(seed, &purpose("template"), index as u64);
    Batch {
        latents: photos.sample(shots, normal("posterior")),
        noise: normal("noise"),
        timesteps: (0..sizes.batch_size)
            .map(|_| timesteps.random_range(0..sizes.num_train_timesteps))
            .collect(),
        prompts: pick(seed, &purpose("training prompt"), index, sizes),
        template: match sizes.templates {
            0 => 0,
            count => template.random_range(0..count),
        },
    }
}

/// One training prompt per sample.
fn pick(seed: u64, purpose: &str, index: usize, sizes: &BatchSizes) -> Vec<usize> {
    let mut prompt = rng(seed, purpose, index as u64);
    (0..sizes.batch_size)
        .map(|_| prompt.random_range(0..sizes.prompts))
        .collect()
}

/// The photo of the `number`-th sample. All photos are shown once in a random order, then once in
/// another, and so on.
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
    fn every_photo_comes_once_per_round() {
        for round in 0..3 {
            let mut seen: Vec<usize> = (0..5).map(|i| photo(7, "p", 5 * round + i, 5)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
    }
}
