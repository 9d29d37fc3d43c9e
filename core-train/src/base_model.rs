//! A base model, loaded once and personalised often.

use burn::tensor::Device;
use core_model::Network;
use core_model::folder::ModelFolder;
use core_model::pipeline::StableDiffusionPipeline;
use image::RgbImage;

use crate::config::ModelConfig;
use crate::data::photos::pixels;
use crate::error::Result;

/// What lies on disk and the networks that were read from it. Clones share their tensors.
#[derive(Debug, Clone)]
pub struct BaseModel {
    /// Where it lies, with the digests of its files.
    pub folder: ModelFolder,
    /// Its networks; there is no concept.
    pub pipeline: StableDiffusionPipeline,
    /// Where its tensors are.
    pub device: Device,
}

impl BaseModel {
    /// Fetches a model where it must be, and loads it.
    ///
    /// # Errors
    /// A model that cannot be had or read, a number format that the device computes wrongly.
    pub fn load(config: &ModelConfig, device: &str) -> Result<Self> {
        Self::open(config.source().locate()?, device)
    }

    /// Loads a model that was located before.
    ///
    /// # Errors
    /// A model that cannot be read, a number format that the device computes wrongly.
    pub fn open(folder: ModelFolder, device: &str) -> Result<Self> {
        folder.weights().precision.check(device)?;
        let device = core_model::device::parse_device(device)?;
        Ok(Self {
            pipeline: StableDiffusionPipeline::load(&folder, &device)?,
            folder,
            device,
        })
    }

    /// The side of a photo that the model was trained on, in pixels; the shorter one where it was
    /// trained on rectangles.
    ///
    /// # Errors
    /// When the U-Net's config does not say.
    pub fn photo_side(&self) -> Result<u32> {
        let [_, height, width] = self.pipeline.latent_shape()?;
        Ok((height.min(width) * self.pipeline.vae.config().factor()) as u32)
    }

    /// A photo as the autoencoder gives it back, from the mean of its latents: no image of the model can
    /// be closer to it.
    pub fn decoded(&self, photo: &RgbImage) -> RgbImage {
        let vae = &self.pipeline.vae;
        let latents = vae.encode(pixels(photo, &self.device));
        let (mean, _) = latents.scaled(vae.config().scaling_factor).into();
        let image = self.pipeline.decode(mean).pop();
        image.unwrap_or_else(|| photo.clone())
    }
}
