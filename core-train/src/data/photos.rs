//! The photos of a concept, and their latents.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use core_model::Network;
use core_model::image_processor::{channels_first, load_image};
use core_model::photos::PhotoFolder;
use core_model::vae::AutoencoderKl;
use image::RgbImage;

use crate::config::ConceptConfig;
use crate::error::{Error, Result};

/// The photos of a concept as squares of `side` pixels.
///
/// # Errors
/// An empty folder, a photo that cannot be read.
pub fn load_photos(concept: &ConceptConfig, side: u32) -> Result<Vec<RgbImage>> {
    let photos = read_photos(concept)?;
    let photos = photos.iter();
    Ok(photos
        .map(|photo| concept.resize.square(photo, side))
        .collect())
}

/// The photos of a concept, unchanged.
///
/// # Errors
/// As [`load_photos`].
pub fn read_photos(concept: &ConceptConfig) -> Result<Vec<RgbImage>> {
    read_folder(&concept.images, "images")
}

/// The photos that scores compare images with, unchanged.
///
/// # Errors
/// As [`load_photos`].
pub fn read_references(concept: &ConceptConfig) -> Result<Vec<RgbImage>> {
    match &concept.references {
        Some(folder) => read_folder(folder, "references"),
        None => read_photos(concept),
    }
}

/// The photos of the folder that a key of `[concept]` names.
fn read_folder(folder: &Path, key: &str) -> Result<Vec<RgbImage>> {
    if !folder.is_dir() {
        let reason = format!("is no folder; `concept.{key}` names a folder of photos");
        return Err(Error::run_folder(folder, reason));
    }
    let folder = PhotoFolder::read(folder)?;
    let files = folder.files.iter();
    Ok(files
        .map(|file| load_image(file))
        .collect::<core_model::Result<_>>()?)
}

/// The posterior moments of every photo and of its mirror image, computed once; latents are drawn
/// from them at every step.
#[derive(Debug, Clone)]
pub struct ConceptLatents {
    /// [photos, or photos and then mirror images; channels; h; w], scaled.
    mean: Tensor<4>,
    /// Standard deviation, same shape, scaled.
    std: Tensor<4>,
    photos: usize,
}

impl ConceptLatents {
    /// Encodes the photos, and with `flip` their mirror images.
    pub fn new(vae: &AutoencoderKl, photos: &[RgbImage], flip: bool, device: &Device) -> Self {
        let mirrored = photos.iter().map(image::imageops::flip_horizontal);
        let mut all = photos.to_vec();
        if flip {
            all.extend(mirrored);
        }
        let all = all.iter().map(|photo| pixels(photo, device));
        Self {
            photos: photos.len(),
            ..Self::of_pixels(vae, all)
        }
    }

    /// Encodes photos [1, 3, height, width] from -1 to 1.
    pub fn of_pixels(vae: &AutoencoderKl, photos: impl Iterator<Item = Tensor<4>>) -> Self {
        let scale = vae.config().scaling_factor;
        // One at a time: the encoder's activations are far larger than the latents.
        let (mean, std): (Vec<_>, Vec<_>) = photos
            .map(|photo| vae.encode(photo).scaled(scale).into())
            .unzip();
        Self {
            photos: mean.len(),
            mean: Tensor::cat(mean, 0),
            std: Tensor::cat(std, 0),
        }
    }

    /// The number of photos.
    pub fn photos(&self) -> usize {
        self.photos
    }

    /// [channels, h, w] of the latents.
    pub fn shape(&self) -> [usize; 3] {
        let [_, channels, height, width] = self.mean.dims();
        [channels, height, width]
    }

    /// Draws latents [batch, channels, h, w]; a choice is a photo's number and whether it is
    /// mirrored, `noise` standard normal and of the result's shape.
    pub fn sample(&self, choices: &[(usize, bool)], noise: Tensor<4>) -> Tensor<4> {
        let rows: Vec<i64> = choices
            .iter()
            .map(|(photo, mirrored)| (photo + if *mirrored { self.photos } else { 0 }) as i64)
            .collect();
        let count = rows.len();
        let rows = TensorData::new(rows, [count]);
        let rows = Tensor::<1, Int>::from_data(rows, &self.mean.device());
        self.mean.clone().select(0, rows.clone()) + self.std.clone().select(0, rows) * noise
    }
}

/// [1, 3, height, width] in [-1, 1].
pub(crate) fn pixels(photo: &RgbImage, device: &Device) -> Tensor<4> {
    let (width, height) = photo.dimensions();
    let shape = [1, 3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(channels_first(photo), shape), device)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pixels_go_from_minus_one_to_one_channel_by_channel() {
        let photo = RgbImage::from_raw(2, 1, vec![0, 255, 51, 255, 0, 204]).unwrap();
        let values = core_model::params::to_vec(pixels(&photo, &Device::flex()));
        let expected = [-1.0, 1.0, 1.0, -1.0, -0.6, 0.6];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6);
        }
    }
}
