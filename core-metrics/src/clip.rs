//! CLIP as the metrics CLIP-T and CLIP-I read it: images and texts in one space.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use core_model::Network;
use core_model::clip::{ClipConfig, ClipModel};
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::RgbImage;

use crate::encoder::{EncoderKind, Feature, ImageEncoder, image_features, normalized};

/// The kind of encoder.
pub(crate) static CLIP: EncoderKind = EncoderKind {
    key: "clip",
    title: "CLIP",
    folder: "a CLIP model as transformers writes it",
    required: true,
    face_input: None,
    check: |folder| {
        let (processor, tokenizer) = preprocessing(folder)?;
        fit(&ClipModel::check(folder)?, &processor, tokenizer)?;
        Ok(())
    },
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
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let (processor, tokenizer) = preprocessing(folder)?;
        let network = ClipModel::load(folder, device)?;
        Ok(Self {
            tokenizer: fit(network.config(), &processor, tokenizer)?,
            processor,
            network,
            device: device.clone(),
        })
    }
}

fn preprocessing(folder: &Path) -> Result<(ImageProcessor, Tokenizer)> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    Ok((ImageProcessor::from_dir(folder)?, tokenizer))
}

/// Fails unless the preprocessing was made for the network; returns its tokenizer with the network's
/// context length.
fn fit(config: &ClipConfig, processor: &ImageProcessor, tokenizer: Tokenizer) -> Result<Tokenizer> {
    processor.check_side(config.vision_config.image_size)?;
    Ok(tokenizer.fit(&config.text_config)?)
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
        let encoding = self.tokenizer.encode(text);
        if encoding.truncated {
            let limit = self.tokenizer.context_length();
            tracing::warn!("the prompt {text:?} is cut: CLIP scores its first {limit} tokens");
        }
        let features = self.network.text_features(&[encoding.ids]);
        Ok(normalized(&to_vec(features)))
    }
}
