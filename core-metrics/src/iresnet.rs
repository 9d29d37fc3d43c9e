//! iResNet as identity encoder, with the preprocessing and the convention of ArcFace's verification: RGB from
//! -1 to 1, and the sum of the features of a face and of its mirror image.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::image_processor::channels_first;
use core_model::iresnet::{FACE_SIDE, IResNet};
use core_model::params::to_vec;
use image::RgbImage;

use crate::encoder::{Feature, ImageEncoder, normalized};

/// Loads the encoder from its folder.
pub(crate) fn load(folder: &Path, device: &Device) -> Result<Box<dyn ImageEncoder>> {
    Ok(Box::new(Encoder {
        network: IResNet::load(folder, device)?,
        device: device.clone(),
    }))
}

struct Encoder {
    network: IResNet,
    device: Device,
}

impl ImageEncoder for Encoder {
    fn input_size(&self) -> [usize; 2] {
        [FACE_SIDE; 2]
    }

    fn image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>> {
        let side = FACE_SIDE as u32;
        for image in images {
            ensure!(
                image.dimensions() == (side, side),
                "a face of {} x {} pixels; expected one that is aligned to {side} x {side}",
                image.width(),
                image.height()
            );
        }
        let pixels: Vec<f32> = images.iter().flat_map(channels_first).collect();
        let shape = [images.len(), 3, FACE_SIDE, FACE_SIDE];
        let pixels = Tensor::from_data(TensorData::new(pixels, shape), &self.device);
        let mirrored = self.network.forward(pixels.clone().flip([3]));
        let features = self.network.forward(pixels) + mirrored;
        let width = features.dims()[1];
        let features = to_vec(features);
        Ok(features.chunks_exact(width).map(normalized).collect())
    }
}
