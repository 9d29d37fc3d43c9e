//! PhotoMaker (Li et al., CVPR 2024): a person from photos without training. An ID encoder makes one
//! vector of each photo, and each vector is fused with the text state of one copy of the class word.
//!
//! | module | |
//! |---|---|
//! | `fuse` | a text state and a photo's vector become one state |
//! | `class_word` | the copies of the class word in a prompt |
//! | `stacked_id` | a person's photos, each fused with one of them |

mod class_word;
mod fuse;
mod stacked_id;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use class_word::{ClassWord, Expanded};
pub use fuse::FuseModule;
pub use stacked_id::StackedId;
pub(crate) use stacked_id::start_merge_step;

use crate::checkpoint::{Checkpoint, TensorToWrite};
use crate::clip::{ClipVisionConfig, VisionTransformer};
use crate::dino::{DinoConfig, DinoModel};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::nn::Linear;
use crate::params::{ParamBuilder, ParamNames};
use crate::vit::Activation;

/// Where the files of PhotoMaker hold the encoder's tensors.
const ENCODER: &str = "id_encoder.";

/// The tower that reads the photos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisionConfig {
    /// CLIP's image tower, as published.
    Clip(ClipVisionConfig),
    /// A plain vision transformer, whose class token after the final norm stands for CLIP's.
    Vit(DinoConfig),
}

impl VisionConfig {
    /// Channels of the pooled output.
    fn channels(&self) -> usize {
        match self {
            Self::Clip(config) => config.hidden_size,
            Self::Vit(config) => config.hidden_size,
        }
    }

    /// Side of an image, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Clip(config) => config.image_size,
            Self::Vit(config) => config.image_size,
        }
    }
}

/// The sizes of an ID encoder; absent keys are those of the published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhotoMakerConfig {
    /// The tower that reads the photos.
    pub vision: VisionConfig,
    /// The widths of the projections, one for each text encoder of the base model.
    pub projections: Vec<usize>,
}

impl Default for PhotoMakerConfig {
    fn default() -> Self {
        Self {
            vision: VisionConfig::Clip(ClipVisionConfig {
                hidden_size: 1024,
                intermediate_size: 4096,
                num_hidden_layers: 24,
                num_attention_heads: 16,
                patch_size: 14,
                hidden_act: Activation::QuickGelu,
                ..ClipVisionConfig::default()
            }),
            projections: vec![768, 1280],
        }
    }
}

impl PhotoMakerConfig {
    /// Channels of a photo's vector and of the text states with which it is fused.
    pub fn width(&self) -> usize {
        self.projections.iter().sum()
    }
}

#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one tower, and its tensors are far larger"
)]
enum Vision {
    Clip(VisionTransformer),
    Vit(DinoModel),
}

/// The ID encoder: photos to vectors, and the module that fuses these with text states.
#[derive(Module, Debug)]
pub struct PhotoMaker {
    vision_model: Vision,
    projections: Vec<Linear>,
    fuse_module: FuseModule,
    #[module(skip)]
    config: PhotoMakerConfig,
    #[module(skip)]
    names: ParamNames,
}

impl PhotoMaker {
    /// An encoder below `pb`, with the keys of the published file without their prefix.
    ///
    /// # Errors
    /// Impossible sizes, a missing or misshapen tensor.
    pub fn new(config: &PhotoMakerConfig, pb: &ParamBuilder) -> Result<Self> {
        let vision = pb.pp("vision_model");
        let vision = match &config.vision {
            VisionConfig::Clip(config) => Vision::Clip(VisionTransformer::new(config, &vision)?),
            VisionConfig::Vit(config) => Vision::Vit(DinoModel::part(config, &vision)?),
        };
        Ok(Self {
            vision_model: vision,
            projections: projections(config, pb)?,
            fuse_module: FuseModule::new(config.width(), &pb.pp("fuse_module"))?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    /// A fresh encoder around a vision transformer that was trained before, for text states with
    /// `width` channels.
    ///
    /// # Errors
    /// Impossible sizes.
    pub fn around(vision: DinoModel, width: usize, seed: u64, device: &Device) -> Result<Self> {
        let config = PhotoMakerConfig {
            vision: VisionConfig::Vit(vision.config().clone()),
            projections: vec![width],
        };
        let pb = ParamBuilder::random(seed, device);
        let of_vision = vision.names().renamed(|key| format!("vision_model.{key}"));
        Ok(Self {
            projections: projections(&config, &pb)?,
            fuse_module: FuseModule::new(width, &pb.pp("fuse_module"))?,
            names: of_vision.with(&pb.finish()?),
            vision_model: Vision::Vit(vision),
            config,
        })
    }

    /// The encoder in a file of PhotoMaker.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that holds no encoder, or one without its heads; what does not
    /// fit the sizes.
    pub fn of_file(config: &PhotoMakerConfig, file: Checkpoint, device: &Device) -> Result<Self> {
        let mut heads: Vec<String> = (0..config.projections.len()).map(projection).collect();
        heads.push("fuse_module.mlp1.fc1".into());
        let missing = heads.iter().map(|head| format!("{head}.weight"));
        let missing: Vec<String> = missing
            .filter(|key| file.info(key).is_none())
            .map(|key| format!("`{ENCODER}{key}`"))
            .collect();
        if !missing.is_empty() {
            let reason = format!(
                "has no {}, so it is not the ID encoder that adapter.json describes: an image tower \
                 alone, or a file that was cut; fetch photomaker-v1.bin, or train the adapter again",
                missing.join(" and no ")
            );
            return Err(Error::format(file.path(), reason));
        }
        Self::new(config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// The canonical spelling of a key of PhotoMaker's file: that of the encoder's tensors.
    pub(crate) fn canonical_key(key: &str) -> Option<String> {
        crate::checkpoint::canonical(key.strip_prefix(ENCODER)?)
    }

    /// Its sizes.
    pub fn config(&self) -> &PhotoMakerConfig {
        &self.config
    }

    /// The key of every parameter.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The module that fuses text states with photos' vectors.
    pub fn fuse_module(&self) -> &FuseModule {
        &self.fuse_module
    }

    /// [photos, 3, side, side] preprocessed pixels to one vector each, [photos, width].
    pub fn embed(&self, photos: Tensor<4>) -> Tensor<2> {
        let pooled = match &self.vision_model {
            Vision::Clip(tower) => tower.forward(photos),
            Vision::Vit(tower) => tower.features(photos),
        };
        let projected = self.projections.iter().map(|p| p.forward(pooled.clone()));
        Tensor::cat(projected.collect(), 1)
    }

    /// Its tensors as the published file holds them.
    pub(crate) fn tensors(&self) -> Vec<TensorToWrite> {
        let mut tensors = Vec::new();
        let names = self.names.renamed(|key| format!("{ENCODER}{key}"));
        names.read(self, |param| tensors.push(param.into()));
        tensors
    }
}

/// What the file calls a projection.
fn projection(index: usize) -> String {
    match index {
        0 => "visual_projection".into(),
        _ => format!("visual_projection_{}", index + 1),
    }
}

fn projections(config: &PhotoMakerConfig, pb: &ParamBuilder) -> Result<Vec<Linear>> {
    let channels = config.vision.channels();
    let widths = config.projections.iter().enumerate();
    widths
        .map(|(index, width)| Linear::new(channels, *width, false, &pb.pp(projection(index))))
        .collect()
}
