//! Sets of weights that a checkpoint holds: all or some of the U-Net's (DreamBooth, Custom
//! Diffusion, CoRe's second stage) or of the text encoder's. A run folder keeps, in float32, the whole
//! network in the layout of diffusers where all of its weights are trained, or else what training can
//! [change](core_model::changed_weights).

use std::path::Path;

use core_model::Precision;
use core_model::changed_weights::{self, CHANGED_WEIGHTS};
use core_model::files::{read, write_atomically};
use core_model::folder::ModelFolder;
use core_model::network::{DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};
use core_model::params::is_added;
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Adapter, Loading, Trained};
use crate::error::{Error, Result};

/// The folder of the U-Net in model and run folders.
pub const UNET: &str = "unet";
/// The folder of the text encoder in model and run folders.
pub const TEXT_ENCODER: &str = "text_encoder";

/// A network of the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    Unet,
    TextEncoder,
}

impl Network {
    /// The folder in model and run folders, and the first part of its tensors' names.
    fn name(self) -> &'static str {
        match self {
            Self::Unet => UNET,
            Self::TextEncoder => TEXT_ENCODER,
        }
    }

    /// The file of all weights.
    fn file(self) -> &'static str {
        match self {
            Self::Unet => DIFFUSERS_WEIGHTS,
            Self::TextEncoder => TRANSFORMERS_WEIGHTS,
        }
    }

    /// The weights, beside a copy of the base model's `config.json`.
    fn save(self, trained: &Trained<'_>, folder: &Path) -> Result<()> {
        // A save that was killed may have been that of another version, in the other form.
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        match self {
            Self::Unet => self.save_weights(trained.model.unet(), trained, folder)?,
            Self::TextEncoder => {
                self.save_weights(trained.model.text_encoder(), trained, folder)?
            }
        }
        let published = trained.base.path().join(self.name()).join("config.json");
        let config = folder.join("config.json");
        Ok(write_atomically(&config, &read(&published)?)?)
    }

    fn save_weights<N: core_model::Network>(
        self,
        network: &N,
        trained: &Trained<'_>,
        folder: &Path,
    ) -> Result<()> {
        let moves = |key: &str| trained.moves(&format!("{}.{key}", self.name()));
        let mut own = network.names().keys().filter(|key| !is_added(key));
        if own.all(moves) {
            return Ok(network.save(folder, Precision::Float32)?);
        }
        let base = trained.base.weights_digest(self.name(), self.file())?;
        let path = folder.join(CHANGED_WEIGHTS);
        Ok(changed_weights::save(network, moves, &base, &path)?)
    }

    fn load(
        self,
        folder: &Path,
        base: &ModelFolder,
        pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        Ok(match self {
            Self::Unet => pipeline.with_unet_of(folder, base)?,
            Self::TextEncoder => pipeline.with_text_encoder_of(folder, base)?,
        })
    }
}

/// A set of weights of one network.
pub(super) trait NetworkWeights {
    /// Whose weights.
    const NETWORK: Network;

    /// Whether the set holds the weight with this key of the network's checkpoint.
    fn holds(&self, key: &str) -> bool;
}

impl<T: NetworkWeights + std::fmt::Debug> Adapter for T {
    fn moves(&self, name: &str) -> bool {
        let below = name.strip_prefix(T::NETWORK.name());
        let key = below.and_then(|rest| rest.strip_prefix('.'));
        key.is_some_and(|key| !is_added(key) && self.holds(key))
    }

    fn file(&self) -> &'static str {
        T::NETWORK.name()
    }

    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()> {
        T::NETWORK.save(trained, path)
    }

    fn load(
        &self,
        path: &Path,
        loading: Loading<'_>,
        pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        T::NETWORK.load(path, loading.base, pipeline)
    }
}

/// All weights of the U-Net (DreamBooth, the second stage of CoRe).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unet {}

impl NetworkWeights for Unet {
    const NETWORK: Network = Network::Unet;

    fn holds(&self, _: &str) -> bool {
        true
    }
}

/// The cross-attention layers of the U-Net.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossAttention {}

impl NetworkWeights for CrossAttention {
    const NETWORK: Network = Network::Unet;

    fn holds(&self, key: &str) -> bool {
        key.contains(".attn2.")
    }
}

/// The key and value projections of the cross-attention layers of the U-Net (Custom Diffusion).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossAttentionKv {}

impl NetworkWeights for CrossAttentionKv {
    const NETWORK: Network = Network::Unet;

    fn holds(&self, key: &str) -> bool {
        key.contains(".attn2.to_k.") || key.contains(".attn2.to_v.")
    }
}

/// All weights of the text encoder except the vectors of the concept's token, which belong to
/// `embedding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextEncoderAll {}

impl NetworkWeights for TextEncoderAll {
    const NETWORK: Network = Network::TextEncoder;

    fn holds(&self, _: &str) -> bool {
        true
    }
}
