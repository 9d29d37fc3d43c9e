//! The networks that look at images and read prompts.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use core_model::clip::ClipModel;
use core_model::dino::DinoModel;
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::RgbImage;

use super::{Feature, References, normalised};

/// Images looked at together; fixed, so that a score does not depend on how many there are.
const BATCH: usize = 16;

/// A CLIP and a DINO folder with their preprocessing.
#[derive(Debug)]
pub struct Judges {
    clip: ClipModel,
    clip_processor: ImageProcessor,
    tokenizer: Tokenizer,
    dino: DinoModel,
    dino_processor: ImageProcessor,
    device: Device,
}

impl Judges {
    /// Reads both folders.
    ///
    /// # Errors
    /// Absent or damaged files; a processor or tokenizer that does not fit its network.
    pub fn load(clip: &Path, dino: &Path, device: &Device) -> Result<Self> {
        let judges = Self {
            tokenizer: Tokenizer::from_dir(clip)?,
            clip_processor: ImageProcessor::from_dir(clip)?,
            clip: ClipModel::load(clip, device)?,
            dino_processor: ImageProcessor::from_dir(dino)?,
            dino: DinoModel::load(dino, device)?,
            device: device.clone(),
        };
        let (text, vision) = {
            let config = judges.clip.config();
            (config.text_config.clone(), config.vision_config.image_size)
        };
        judges.clip_processor.check_side(vision)?;
        judges
            .dino_processor
            .check_side(judges.dino.config().image_size)?;
        let tokenizer = judges.tokenizer.clone().fit(&text)?;
        Ok(Self {
            tokenizer,
            ..judges
        })
    }

    /// CLIP's features of prompts, cut to its context length.
    ///
    /// # Errors
    /// None at present; networks on other devices may report some.
    pub fn text_features(&self, prompts: &[String]) -> Result<Vec<Feature>> {
        let features = prompts.iter().map(|prompt| {
            let ids = self.tokenizer.encode(prompt).ids;
            normalised(&to_vec(self.clip.text_features(&[ids])))
        });
        Ok(features.collect())
    }

    /// CLIP's features of images.
    ///
    /// # Errors
    /// An image that the processor refuses.
    pub fn clip_image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        self.features(images, &self.clip_processor, |pixels| {
            self.clip.image_features(pixels)
        })
    }

    /// DINO's class tokens of images.
    ///
    /// # Errors
    /// An image that the processor refuses.
    pub fn dino_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        self.features(images, &self.dino_processor, |pixels| {
            self.dino.features(pixels)
        })
    }

    /// Both features of a concept's photos.
    ///
    /// # Errors
    /// A photo that a processor refuses.
    pub fn references(&self, photos: &[RgbImage]) -> Result<References> {
        Ok(References {
            clip: self.clip_image_features(photos)?,
            dino: self.dino_features(photos)?,
        })
    }

    fn features(
        &self,
        images: &[RgbImage],
        processor: &ImageProcessor,
        network: impl Fn(Tensor<4>) -> Tensor<2>,
    ) -> Result<Vec<Feature>> {
        let mut features = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let rows = network(processor.preprocess(batch, &self.device)?);
            let width = rows.dims()[1];
            features.extend(to_vec(rows).chunks_exact(width).map(normalised));
        }
        Ok(features)
    }
}
