//! Latents of people for the tuning-free encoders, with captions, masks and expressions. A person and a
//! view are functions of their numbers, so that images can be rendered again where latents are not enough.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::folder::ModelFolder;
use core_model::image_processor::channels_first;
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::to_vec;
use core_model::pipeline::StableDiffusionPipeline;
use core_model::rng::{randn, rng, standard_normal};
use rand::RngExt;

use super::portraits;
use super::scenes::{Scenes, Split, coverage, pixels};
use super::vocabulary::read_tokenizer;
use crate::progress::Progress;
use crate::world::{Caption, Category, Identity, Rendering, SIDE, View, render};

/// Images per forward pass of the autoencoder.
const ENCODE_BATCH: usize = 64;

/// Numbers that describe an expression: smile, open mouth, lifted brows.
pub(super) const EXPRESSIONS: usize = 3;

/// People by their numbers, each with views by theirs.
#[derive(Debug, Clone, Copy)]
pub(super) struct People {
    seed: u64,
    purpose: &'static str,
    split: Split,
    scenes: Scenes,
    /// Views of each person that have latents.
    views: usize,
}

impl People {
    pub(super) fn new(seed: u64, purpose: &'static str, split: Split, views: usize) -> Self {
        Self {
            seed,
            purpose,
            split,
            scenes: Scenes::new(seed, split, purpose),
            views,
        }
    }

    /// A person; those of the evaluation have combinations that never occur in training.
    pub(super) fn identity(&self, person: u64) -> Identity {
        match self.split {
            Split::Training => Identity::sample_for_training(&mut self.scenes.rng(person), true),
            Split::HeldOut => portraits::held_out(&self.scenes, person).into(),
        }
    }

    /// The person and the view of a latent, and a caption.
    pub(super) fn target(&self, latent: u64) -> (Identity, View, Caption) {
        let identity = self.identity(latent / self.views as u64);
        let purpose = format!("{} view {:?}", self.purpose, self.split);
        let mut generator = rng(self.seed, &purpose, latent);
        let view = View::sample(&mut generator, &identity);
        let caption = Caption::sample(&mut generator, &identity, &view);
        (identity, view, caption)
    }
}

/// The base model in a folder, which has to know people.
///
/// # Errors
/// An absent or damaged model; a tokenizer or a text encoder without the words of their captions.
pub(super) fn base_model(folder: &Path, device: &Device) -> Result<StableDiffusionPipeline> {
    read_tokenizer(&folder.join("tokenizer"), Category::ALL)?;
    let pipeline = StableDiffusionPipeline::load(&ModelFolder::new(folder), device)?;
    for word in ["person", "smiling", "frowning"] {
        pipeline.tokenizer.check_rows(word)?;
    }
    Ok(pipeline)
}

/// One image to train on.
#[derive(Debug)]
pub(super) struct PersonLatent {
    /// The scaled moments of its posterior.
    mean: Vec<f32>,
    deviation: Vec<f32>,
    /// The person's mask at the size of latents.
    mask: Vec<f32>,
    pub(super) caption: String,
    pub(super) expression: [f32; EXPRESSIONS],
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct PersonLatents {
    pub(super) latents: Vec<PersonLatent>,
    shape: [usize; 3],
}

/// Noisy latents of some images.
pub(super) struct Noised {
    pub(super) sample: Tensor<4>,
    pub(super) noise: Tensor<4>,
    pub(super) timesteps: Vec<f32>,
    /// [batch, 1, height, width].
    pub(super) mask: Tensor<4>,
}

impl PersonLatents {
    /// Renders and encodes the first `count` latents of people. `each` gets the pixels of every batch,
    /// [images, 3, side, side].
    ///
    /// # Errors
    /// An autoencoder whose latents do not divide the images.
    pub(super) fn encode(
        people: &People,
        count: usize,
        pipeline: &StableDiffusionPipeline,
        device: &Device,
        each: &mut dyn FnMut(Tensor<4>),
    ) -> Result<Self> {
        let vae = &pipeline.vae;
        let scale = vae.config().scaling_factor;
        let mut all = Self {
            latents: Vec::with_capacity(count),
            shape: [0; 3],
        };
        let batches = count.div_ceil(ENCODE_BATCH);
        let mut progress = Progress::new("latents of people", 0, batches as u64);
        for batch in 0..batches {
            let first = batch * ENCODE_BATCH;
            let numbers = first..count.min(first + ENCODE_BATCH);
            let targets: Vec<_> = numbers.map(|number| people.target(number as u64)).collect();
            let rendered = targets
                .iter()
                .map(|(identity, view, _)| render(identity, view));
            let rendered: Vec<Rendering> = rendered.collect();
            let images = rendered.iter().flat_map(|r| channels_first(&r.image));
            let images = pixels(images.collect(), device);
            let posterior = vae.encode(images.clone());
            each(images);
            let [_, c, h, w] = posterior.mean.dims();
            ensure!(
                h == w && (SIDE as usize).is_multiple_of(h),
                "latents of the autoencoder have {h} x {w} values for images of {SIDE} x {SIDE} pixels; expected \
                 a side that divides the images'"
            );
            all.shape = [c, h, w];
            let [mean, deviation] = posterior.scaled(scale).map(to_vec);
            let moments = mean.chunks(c * h * w).zip(deviation.chunks(c * h * w));
            for (((_, view, caption), rendering), (mean, deviation)) in
                targets.into_iter().zip(&rendered).zip(moments)
            {
                all.latents.push(PersonLatent {
                    mean: mean.to_vec(),
                    deviation: deviation.to_vec(),
                    mask: reduced(&coverage(&rendering.mask).collect::<Vec<_>>(), h),
                    caption: caption.text,
                    expression: [view.pose.smile, view.pose.open, view.pose.lift],
                });
            }
            progress.advance("");
        }
        Ok(all)
    }

    /// Noisy latents of some images; what is random is a function of seed, key and index.
    pub(super) fn noised(
        &self,
        chosen: &[usize],
        scheduler: &DdpmScheduler,
        (seed, key, index): (u64, &str, u64),
        device: &Device,
    ) -> Noised {
        let [c, h, w] = self.shape;
        let shape = [chosen.len(), c, h, w];
        let mut generator = rng(seed, key, index);
        let timesteps: Vec<usize> = chosen
            .iter()
            .map(|_| generator.random_range(0..scheduler.num_train_timesteps()))
            .collect();
        let draws = standard_normal(
            seed,
            &format!("{key} posterior"),
            index,
            shape.iter().product(),
        );
        let (mut latents, mut masks) = (Vec::new(), Vec::new());
        for (chosen, draws) in chosen.iter().zip(draws.chunks(c * h * w)) {
            let latent = &self.latents[*chosen];
            let moments = latent.mean.iter().zip(&latent.deviation).zip(draws);
            latents.extend(moments.map(|((mean, std), draw)| mean + std * draw));
            masks.extend_from_slice(&latent.mask);
        }
        let latents = Tensor::<4>::from_data(TensorData::new(latents, shape), device);
        let noise = randn(shape, seed, &format!("{key} noise"), index, device);
        let masks = TensorData::new(masks, [chosen.len(), 1, h, w]);
        Noised {
            sample: scheduler.add_noise(latents, noise.clone(), &timesteps),
            noise,
            timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
            mask: Tensor::from_data(masks, device),
        }
    }
}

/// A square mask made smaller by a whole factor as torch's bilinear interpolation does: of an even factor
/// the mean of the four values in the middle of each square, of an odd one the value in its middle.
fn reduced(mask: &[f32], side: usize) -> Vec<f32> {
    let whole = SIDE as usize;
    let factor = whole / side;
    let middle = |at: usize| [(factor * at) + (factor - 1) / 2, (factor * at) + factor / 2];
    let mut small = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let rows = middle(y).into_iter();
            let sum: f32 = rows
                .flat_map(|row| middle(x).map(|column| mask[row * whole + column]))
                .sum();
            small.push(sum / 4.0);
        }
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_become_smaller_as_bilinear_interpolation_does() {
        let whole = SIDE as usize;
        let ramp: Vec<f32> = (0..whole * whole)
            .map(|at| (at % whole) as f32 + 100.0 * (at / whole) as f32)
            .collect();
        // The middle of the first square of 4 lies between pixels 1 and 2.
        let small = reduced(&ramp, 16);
        assert_eq!(small.len(), 256);
        assert_eq!((small[0], small[1], small[16]), (151.5, 155.5, 551.5));
        assert_eq!(reduced(&ramp, whole), ramp);
    }

    #[test]
    fn a_latent_shows_its_person_in_views_of_their_own_and_names_it() {
        let people = People::new(3, "test person", Split::Training, 3);
        let (first, view, caption) = people.target(6);
        let (same, other, _) = people.target(8);
        assert_eq!(first, same);
        assert_eq!(first, people.identity(2));
        assert_ne!(view, other);
        assert!(caption.text.contains("person"), "{}", caption.text);
        assert_ne!(first, people.target(9).0);
        let held_out = People::new(3, "test person", Split::HeldOut, 3);
        assert!((0..20).all(|person| held_out.identity(person).is_held_out()));
        assert!((0..20).all(|person| !people.identity(person).is_held_out()));
    }
}
