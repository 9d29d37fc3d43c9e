//! How the photos of a stage become latents: encoded once, or augmented and encoded for every sample.

use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::vae::AutoencoderKl;
use image::RgbImage;
use image::imageops::flip_horizontal;
use rand_chacha::ChaCha8Rng;

use super::photos::ConceptLatents;
use crate::augmentations::{Augmentation, AugmentationConfig, Augmented, Frame};

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

/// What the samples of a batch show.
#[derive(Debug)]
pub struct Shown {
    /// Scaled latents, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Where the loss looks, [batch, 1, h, w] of 0 and 1; absent where the augmentation gives no masks.
    pub mask: Option<Tensor<4>>,
    /// What is said of each sample: 0 for nothing, else from 1 the number among the augmentation's
    /// words.
    pub words: Vec<usize>,
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

    /// Draws latents; `noise` is standard normal and of their shape.
    pub fn sample(&self, shots: Vec<Shot>, noise: Tensor<4>) -> Shown {
        match self {
            Self::Encoded(latents) => {
                let choices = shots.iter().map(|shot| (shot.photo, shot.mirrored));
                Shown {
                    latents: latents.sample(&choices.collect::<Vec<_>>(), noise),
                    mask: None,
                    words: vec![0; shots.len()],
                }
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
    /// The squares that they become.
    pub frame: Frame,
    /// The autoencoder.
    pub vae: AutoencoderKl,
    /// The device of the latents.
    pub device: Device,
}

impl AugmentedPhotos {
    fn shape(&self) -> [usize; 3] {
        let side = self.frame.cells();
        [self.vae.config().latent_channels, side, side]
    }

    fn sample(&self, shots: Vec<Shot>, noise: Tensor<4>) -> Shown {
        let show = |mut shot: Shot| {
            let photo = &self.photos[shot.photo];
            let mirrored = shot.mirrored.then(|| flip_horizontal(photo));
            let photo = mirrored.as_ref().unwrap_or(photo);
            self.augmentation.apply(photo, self.frame, &mut shot.rng)
        };
        let shown: Vec<Augmented> = shots.into_iter().map(show).collect();
        let square = |values: &[f32], channels: usize, side: usize| {
            let data = TensorData::new(values.to_vec(), [1, channels, side, side]);
            Tensor::<4>::from_data(data, &self.device)
        };
        let pixels = shown.iter();
        let pixels = pixels.map(|shot| square(&shot.pixels, 3, self.frame.side as usize));
        let latents = ConceptLatents::of_pixels(&self.vae, pixels);
        let all: Vec<_> = (0..shown.len()).map(|image| (image, false)).collect();
        let masks = shown.iter().filter_map(|shot| shot.mask.as_deref());
        let masks: Vec<_> = masks
            .map(|mask| square(mask, 1, self.frame.cells()))
            .collect();
        Shown {
            latents: latents.sample(&all, noise),
            mask: (!masks.is_empty()).then(|| Tensor::cat(masks, 0)),
            words: shown.iter().map(|shot| self.number(shot.words)).collect(),
        }
    }

    fn number(&self, words: Option<&str>) -> usize {
        let all = self.augmentation.words();
        let place = words.and_then(|words| all.iter().position(|other| *other == words));
        place.map_or(0, |place| place + 1)
    }
}
