//! A base model, loaded once and personalised often.

use burn::tensor::Device;
use core_model::folder::ModelFolder;
use core_model::pipeline::StableDiffusionPipeline;

use crate::config::ModelConfig;
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
}
