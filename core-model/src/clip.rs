//! CLIP (Radford et al. 2021), `CLIPModel` in transformers: images and sentences in one space.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::{apply_config_dicts, from_object, read_object};
use crate::error::Result;
use crate::network::{Class, Network};
use crate::nn::{LayerNorm, Linear};
use crate::params::{Init, ParamBuilder, ParamNames};
use crate::text_encoder::{TOKEN_TABLE, TextEncoder, TextEncoderConfig, TextTransformer};
use crate::vit::{
    Activation, CLIP_KEYS, CLIP_PATCHES, Norm, PatchEmbedding, PatchGrid, Transformer,
    TransformerConfig,
};

/// The `vision_config` of a CLIP model; absent keys take transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer.
    pub num_attention_heads: usize,
    /// Channels of an image.
    pub num_channels: usize,
    /// Side of an image, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// `config.json` of a `CLIPModel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// The text tower.
    pub text_config: TextEncoderConfig,
    /// The image tower.
    pub vision_config: ClipVisionConfig,
    /// Channels of the shared space.
    pub projection_dim: usize,
    /// Logarithm of the inverse temperature at the start of training.
    pub logit_scale_init_value: f32,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            text_config: TextEncoderConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct VisionTransformer {
    embeddings: PatchEmbedding,
    pre_layrnorm: LayerNorm,
    encoder: Transformer,
    post_layernorm: LayerNorm,
}

impl VisionTransformer {
    pub(crate) fn new(config: &ClipVisionConfig, pb: &ParamBuilder) -> Result<Self> {
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let grid = PatchGrid {
            num_channels: config.num_channels,
            image_size: config.image_size,
            patch_size: config.patch_size,
        };
        let sizes = TransformerConfig {
            hidden_size: d,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: eps,
            hidden_act: config.hidden_act,
            qkv_bias: true,
            causal: false,
            norm: Norm::Before,
            scaled: false,
            gated: false,
        };
        Ok(Self {
            embeddings: PatchEmbedding::new(&grid, d, &CLIP_PATCHES, &pb.pp("embeddings"))?,
            pre_layrnorm: LayerNorm::new(d, eps, &pb.pp("pre_layrnorm"))?,
            encoder: Transformer::new(&sizes, &CLIP_KEYS, &pb.pp("encoder.layers"))?,
            post_layernorm: LayerNorm::new(d, eps, &pb.pp("post_layernorm"))?,
        })
    }

    /// [batch, 3, height, width] to the tokens before the first layer, class token first,
    /// [batch, 1 + patches, channels].
    fn tokens(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.pre_layrnorm.forward(self.embeddings.forward(pixels))
    }

    /// [batch, 3, side, side] to the normed class token [batch, channels].
    pub(crate) fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let hidden = self.encoder.forward(self.tokens(pixels));
        let [batch, _, d] = hidden.dims();
        self.post_layernorm
            .forward(hidden.narrow(1, 0, 1).reshape([batch, d]))
    }
}

/// Both towers with their projections.
#[derive(Module, Debug)]
pub struct ClipModel {
    text_model: TextTransformer,
    vision_model: VisionTransformer,
    text_projection: Linear,
    visual_projection: Linear,
    logit_scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: ClipConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Network for ClipModel {
    type Config = ClipConfig;

    fn class(_config: &ClipConfig) -> Class {
        Class::Transformers("CLIPModel", "clip")
    }

    /// A checkpoint without `logit_scale` is a network without.
    fn new(config: &ClipConfig, pb: &ParamBuilder) -> Result<Self> {
        let model = Self::part(config, pb)?;
        Ok(Self {
            names: pb.finish()?,
            ..model
        })
    }

    fn read_config(path: &Path) -> Result<ClipConfig> {
        let mut object = read_object(path)?;
        apply_config_dicts(&mut object);
        from_object(path, object)
    }

    fn config(&self) -> &ClipConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl ClipModel {
    /// A part of a larger network, which keeps the names of all parameters.
    pub(crate) fn part(config: &ClipConfig, pb: &ParamBuilder) -> Result<Self> {
        let shared = config.projection_dim;
        let (text, vision) = (
            config.text_config.hidden_size,
            config.vision_config.hidden_size,
        );
        let scale = Init::Constant(config.logit_scale_init_value);
        let logit_scale = (pb.is_random() || pb.contains("logit_scale"))
            .then(|| pb.get_stored_as("logit_scale", [1], &[], scale))
            .transpose()?;
        Ok(Self {
            text_model: TextTransformer::new(&config.text_config, &pb.pp("text_model"))?,
            vision_model: VisionTransformer::new(&config.vision_config, &pb.pp("vision_model"))?,
            text_projection: Linear::new(text, shared, false, &pb.pp("text_projection"))?,
            visual_projection: Linear::new(vision, shared, false, &pb.pp("visual_projection"))?,
            logit_scale,
            config: config.clone(),
            names: ParamNames::default(),
        })
    }

    /// The text tower alone, as a Stable Diffusion model's text encoder.
    pub fn text_encoder(&self) -> TextEncoder {
        TextEncoder::from_tower(self.text_model.clone(), self.names.clone())
    }

    /// As [`TextEncoder::with_more_tokens`].
    ///
    /// # Errors
    /// Rows of another width.
    pub fn with_more_tokens(&self, rows: Tensor<2>) -> Result<Self> {
        let mut config = self.config.clone();
        config.text_config.vocab_size += rows.dims()[0];
        self.with_more_rows(&format!("text_model.{TOKEN_TABLE}"), rows, &config)
    }

    /// Logarithm of the inverse temperature, `[1]`.
    pub fn logit_scale(&self) -> Option<Tensor<1>> {
        self.logit_scale.as_ref().map(Param::val)
    }

    /// The device of its parameters.
    pub(crate) fn device(&self) -> Device {
        self.text_projection.weight.val().device()
    }

    /// What comes out of some layers of the image tower, from 0, the lowest first, each
    /// [batch, 1 + patches, channels]; images [batch, 3, height, width] may have another size
    /// than the config says.
    pub(crate) fn hidden_states(&self, pixels: Tensor<4>, layers: &[usize]) -> Vec<Tensor<3>> {
        let vision = &self.vision_model;
        vision.encoder.hidden_states(vision.tokens(pixels), layers)
    }

    /// Prompts of equal length to projected features [batch, shared], not normalised.
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let hidden = self.text_model.forward(ids, None);
        self.text_projection
            .forward(self.text_model.pooled(ids, hidden))
    }

    /// [batch, 3, side, side] preprocessed pixels to projected features [batch, shared], not
    /// normalised.
    pub fn image_features(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.visual_projection
            .forward(self.vision_model.forward(pixels))
    }
}
