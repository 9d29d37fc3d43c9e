//! DINO: whether an image shows the very thing that the photos show, by the cosines of DINO's
//! features. The network was trained without labels to tell images apart, not kinds of things
//! (Caron et al. 2021; Ruiz et al. 2023, section 4.2).

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use core_model::Network;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::image_processor::ImageProcessor;
use image::RgbImage;

use crate::encoder::{EncoderKind, Feature, ImageEncoder, image_features};
use crate::{Compared, Definition, Region};

/// The metric.
pub(crate) struct Dino;

impl Definition for Dino {
    fn title(&self) -> &'static str {
        "DINO"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &DINO
    }

    fn compared_with(&self) -> Compared {
        Compared::Photos
    }

    fn region(&self) -> Region {
        Region::Foreground
    }

    fn tells_instances_apart(&self) -> bool {
        true
    }
}

/// The kind of encoder.
pub(crate) static DINO: EncoderKind = EncoderKind {
    key: "dino",
    title: "DINO",
    folder: "a DINO model (ViT or DINOv2) as transformers writes it",
    required: true,
    face_input: None,
    check: |folder| check(folder).map(drop),
    load,
};

/// Refuses a folder that cannot be loaded; returns what its configuration says.
pub(crate) fn check(folder: &Path) -> Result<DinoConfig> {
    let processor = ImageProcessor::from_dir(folder)?;
    let config = DinoModel::check(folder)?;
    config.check_processor(&processor)?;
    Ok(config)
}

/// Loads the encoder from its folder.
pub(crate) fn load(folder: &Path, device: &Device) -> Result<Box<dyn ImageEncoder>> {
    Ok(Box::new(Encoder::load(folder, device)?))
}

/// The network with its preprocessing.
struct Encoder {
    network: DinoModel,
    processor: ImageProcessor,
    device: Device,
}

impl Encoder {
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let processor = ImageProcessor::from_dir(folder)?;
        let network = DinoModel::load(folder, device)?;
        network.config().check_processor(&processor)?;
        Ok(Self {
            network,
            processor,
            device: device.clone(),
        })
    }
}

impl ImageEncoder for Encoder {
    fn input_size(&self) -> [usize; 2] {
        [self.network.config().image_size; 2]
    }

    fn image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        image_features(images, &self.processor, &self.device, |pixels| {
            self.network.features(pixels)
        })
    }
}
