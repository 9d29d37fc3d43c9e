//! SigLIP as the metrics SigLIP-T and SigLIP-I read it: images and texts in one space.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use core_model::Network;
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::siglip::{SiglipConfig, SiglipModel, SiglipTokenizer};
use image::RgbImage;

use crate::encoder::{EncoderKind, Feature, ImageEncoder, image_features, normalized};

/// The kind of encoder.
pub(crate) static SIGLIP: EncoderKind = EncoderKind {
    key: "siglip",
    title: "SigLIP",
    folder: "a SigLIP model as transformers writes it",
    required: false,
    face_input: None,
    check: |folder| {
        preprocessing(folder, &SiglipModel::check(folder)?)?;
        Ok(())
    },
    load: |folder, device| Ok(Box::new(Siglip::load(folder, device)?)),
};

/// Both towers, with their preprocessing.
struct Siglip {
    network: SiglipModel,
    processor: ImageProcessor,
    tokenizer: SiglipTokenizer,
    device: Device,
}

impl Siglip {
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let network = SiglipModel::load(folder, device)?;
        let (processor, tokenizer) = preprocessing(folder, network.config())?;
        Ok(Self {
            network,
            processor,
            tokenizer,
            device: device.clone(),
        })
    }
}

/// The preprocessing beside a network, which must have been made for it.
fn preprocessing(
    folder: &Path,
    config: &SiglipConfig,
) -> Result<(ImageProcessor, SiglipTokenizer)> {
    let processor = ImageProcessor::from_dir(folder)?;
    processor.check_side(config.vision_config.image_size)?;
    let text = &config.text_config;
    let (length, rows) = (text.max_position_embeddings, text.vocab_size);
    Ok((processor, SiglipTokenizer::from_dir(folder, length, rows)?))
}

impl ImageEncoder for Siglip {
    fn input_size(&self) -> [usize; 2] {
        [self.network.config().vision_config.image_size; 2]
    }

    fn image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        image_features(images, &self.processor, &self.device, |pixels| {
            self.network.image_features(pixels)
        })
    }

    fn text_feature(&self, text: &str) -> Result<Feature> {
        let encoding = self.tokenizer.encode(text)?;
        if encoding.truncated {
            let limit = encoding.ids.len();
            tracing::warn!("the prompt {text:?} is cut: SigLIP scores its first {limit} tokens");
        }
        let features = self.network.text_features(&[encoding.ids]);
        Ok(normalized(&to_vec(features)))
    }
}
