//! The randomness of a step: drawn from counters, or replayed from a file.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use core_model::rng::{randn, rng};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::batch::{Batch, BatchSizes, Samples, with_words};
use super::photos::ConceptLatents;
use super::replay::Replay;
use super::shots::{Photos, Shot};

/// Where the batches of a stage come from.
#[derive(Debug)]
pub enum Source {
    /// Photos, class images and the run's seed.
    Random(Draws),
    /// A replay file.
    Replay(Box<Replay>),
}

/// Everything that batches are drawn from.
#[derive(Debug)]
pub struct Draws {
    /// The photos.
    pub photos: Arc<Photos>,
    /// The class images, where a term reads them; image i has the i-th class prompt, counted
    /// around.
    pub prior: Option<Arc<ConceptLatents>>,
    /// The run's seed.
    pub seed: u64,
    /// The index of the stage.
    pub stage: usize,
}

impl Source {
    /// The batch of forward pass `index` of the stage, from 0: a function of seed, stage and
    /// index only.
    pub fn batch(&self, index: usize, sizes: &BatchSizes, device: &Device) -> Batch {
        match self {
            Self::Random(draws) => draws.batch(index, sizes, device),
            Self::Replay(replay) => {
                let prompts = pick(0, "replay: training prompt", index, sizes, sizes.prompts);
                let class = "replay: class prompt";
                let class_prompts = pick(0, class, index, sizes, sizes.class_prompts.max(1));
                replay.batch(index, prompts, class_prompts, device)
            }
        }
    }
}

impl Draws {
    fn purpose(&self, what: &str) -> String {
        format!("stage {}: {what}", self.stage)
    }

    fn batch(&self, index: usize, sizes: &BatchSizes, device: &Device) -> Batch {
        let mut template = rng(self.seed, &self.purpose("template"), index as u64);
        Batch {
            photos: self.photos(index, sizes, device),
            prior: self.prior(index, sizes, device),
            template: match sizes.templates {
                0 => 0,
                count => template.random_range(0..count),
            },
            truncation: sizes.nested_dropout.map(|dropout| {
                let mut rng = rng(self.seed, &self.purpose("truncation"), index as u64);
                dropout.draw(&mut rng, sizes.batch_size)
            }),
        }
    }

    fn photos(&self, index: usize, sizes: &BatchSizes, device: &Device) -> Samples {
        let (seed, count) = (self.seed, self.photos.count());
        let mut mirror = rng(seed, &self.purpose("mirror"), index as u64);
        let shots: Vec<Shot> = (0..sizes.batch_size)
            .map(|sample| {
                let number = index * sizes.batch_size + sample;
                Shot {
                    photo: photo(seed, &self.purpose("photo order"), number, count),
                    mirrored: mirror.random_bool(0.5) && sizes.flip,
                    rng: rng(seed, &self.purpose("augmentation"), number as u64),
                }
            })
            .collect();
        let posterior = self.normal("posterior", self.photos.shape(), index, sizes, device);
        let shown = self.photos.sample(shots, posterior);
        let purpose = self.purpose("training prompt");
        let prompts = pick(seed, &purpose, index, sizes, sizes.prompts);
        Samples {
            latents: shown.latents,
            noise: self.normal("noise", self.photos.shape(), index, sizes, device),
            timesteps: self.timesteps("timestep", index, sizes),
            prompts: with_words(prompts, &shown.words, sizes.prompts),
            mask: shown.mask,
        }
    }

    fn prior(&self, index: usize, sizes: &BatchSizes, device: &Device) -> Option<Samples> {
        let prior = self.prior.as_ref()?;
        let purpose = self.purpose("class image order");
        let numbers = (0..sizes.batch_size).map(|sample| index * sizes.batch_size + sample);
        let images = numbers.map(|n| photo(self.seed, &purpose, n, prior.photos()));
        let images: Vec<usize> = images.collect();
        let choices: Vec<_> = images.iter().map(|image| (*image, false)).collect();
        let posterior = self.normal("class posterior", prior.shape(), index, sizes, device);
        Some(Samples {
            latents: prior.sample(&choices, posterior),
            noise: self.normal("class noise", prior.shape(), index, sizes, device),
            timesteps: self.timesteps("class timestep", index, sizes),
            prompts: images
                .iter()
                .map(|i| i % sizes.class_prompts.max(1))
                .collect(),
            mask: None,
        })
    }

    fn normal(
        &self,
        what: &str,
        [channels, height, width]: [usize; 3],
        index: usize,
        sizes: &BatchSizes,
        device: &Device,
    ) -> Tensor<4> {
        let shape = [sizes.batch_size, channels, height, width];
        randn(shape, self.seed, &self.purpose(what), index as u64, device)
    }

    fn timesteps(&self, what: &str, index: usize, sizes: &BatchSizes) -> Vec<usize> {
        let mut timesteps = rng(self.seed, &self.purpose(what), index as u64);
        (0..sizes.batch_size)
            .map(|_| timesteps.random_range(0..sizes.num_train_timesteps))
            .collect()
    }
}

/// One of `count` prompts per sample.
fn pick(seed: u64, purpose: &str, index: usize, sizes: &BatchSizes, count: usize) -> Vec<usize> {
    let mut prompt = rng(seed, purpose, index as u64);
    (0..sizes.batch_size)
        .map(|_| prompt.random_range(0..count))
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
