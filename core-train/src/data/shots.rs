//! How the photos of a stage become latents: encoded once, or augmented and encoded for every sample.

use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::vae::AutoencoderKl;
use image::RgbImage;
use image::imageops::flip_horizontal;
use rand_chacha::ChaCha8Rng;

use super::photos::ConceptLatents;
use crate::augmentations::{Augmentation, AugmentationConfig};

/// The photo of one sample, and the randomness of its augmentation.
#[derive(Debug)]
pub struct Shot {
    /// The index of the photo.
    pub photo: usize,
    /// Whether it is mirrored.
    pub mirrored: bool,
    /// The random numbers of an augmentation.
    pub rng: ChaCha8Rng,
}

/// The photos of a stage.
#[derive(Debug)]
pub enum Photos {
    /// Squares whose latents are computed once.
    Encoded(Box<ConceptLatents>),
    /// Photos that are augmented and encoded for every sample.
    Augmented(Box<AugmentedPhotos>),
}

impl Photos {
    /// The number of photos.
    pub fn count(&self) -> usize {
        match self {
            Self::Encoded(latents) => latents.photos(),
            Self::Augmented(photos) => photos.photos.len(),
        }
    }

    /// [channels, h, w] of the latents.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Encoded(latents) => latents.shape(),
            Self::Augmented(photos) => photos.shape(),
        }
    }

    /// Draws scaled latents [batch, channels, h, w]; `noise` is standard normal and of the
    /// result's shape.
    pub fn sample(&self, shots: Vec<Shot>, noise: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Encoded(latents) => {
                let choices = shots.iter().map(|shot| (shot.photo, shot.mirrored));
                latents.sample(&choices.collect::<Vec<_>>(), noise)
            }
            Self::Augmented(photos) => photos.sample(shots, noise),
        }
    }
}

/// Photos that are augmented for every sample.
#[derive(Debug)]
pub struct AugmentedPhotos {
    /// The photos as they are on disk.
    pub photos: Vec<RgbImage>,
    /// The augmentation.
    pub augmentation: AugmentationConfig,
    /// Side of the squares, in pixels.
    pub side: u32,
    /// The autoencoder.
    pub vae: AutoencoderKl,
    /// The device of the latents.
    pub device: Device,
}

impl AugmentedPhotos {
    fn shape(&self) -> [usize; 3] {
        let config = self.vae.config();
        let side = self.side as usize / config.factor();
        [config.latent_channels, side, side]
    }

    fn sample(&self, shots: Vec<Shot>, noise: Tensor<4>) -> Tensor<4> {
        let show = |mut shot: Shot| {
            let photo = &self.photos[shot.photo];
            let mirrored = shot.mirrored.then(|| flip_horizontal(photo));
            let photo = mirrored.as_ref().unwrap_or(photo);
            self.augmentation.apply(photo, self.side, &mut shot.rng)
        };
        let images: Vec<RgbImage> = shots.into_iter().map(show).collect();
        let latents = ConceptLatents::new(&self.vae, &images, false, &self.device);
        let all: Vec<_> = (0..images.len()).map(|image| (image, false)).collect();
        latents.sample(&all, noise)
    }
}
