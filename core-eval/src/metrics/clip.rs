//! CLIP as the metrics CLIP-T and CLIP-I read it: images and texts in one space.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use core_model::Network;
use core_model::clip::ClipModel;
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::RgbImage;

use super::encoder::{EncoderKind, Feature, ImageEncoder, image_features, normalized};

/// The kind of encoder.
pub(super) static CLIP: EncoderKind = EncoderKind {
    key: "clip",
    title: "CLIP",
    folder: "a CLIP model as transformers writes it",
    required: true,
    load: |folder, device| Ok(Box::new(Clip::load(folder, device)?)),
};

/// Both towers, with their preprocessing.
struct Clip {
    network: ClipModel,
    processor: ImageProcessor,
    tokenizer: Tokenizer,
    device: Device,
}

impl Clip {
    /// Reads the folder.
    ///
    /// # Errors
    /// Absent or damaged files; a processor or tokenizer that does not fit the network.
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(folder)?;
        let processor = ImageProcessor::from_dir(folder)?;
        let network = ClipModel::load(folder, device)?;
        processor.check_side(network.config().vision_config.image_size)?;
        Ok(Self {
            tokenizer: tokenizer.fit(&network.config().text_config)?,
            processor,
            network,
            device: device.clone(),
        })
    }
}

impl ImageEncoder for Clip {
    fn input_size(&self) -> [usize; 2] {
        [self.network.config().vision_config.image_size; 2]
    }

    fn image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        image_features(images, &self.processor, &self.device, |pixels| {
            self.network.image_features(pixels)
        })
    }

    fn text_feature(&self, text: &str) -> Result<Feature> {
        let ids = self.tokenizer.encode(text).ids;
        Ok(normalized(&to_vec(self.network.text_features(&[ids]))))
    }
}
