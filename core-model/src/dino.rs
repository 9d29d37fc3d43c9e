//! DINO (Caron et al. 2021), `ViTModel` in transformers, and DINOv2 (Oquab et al. 2023),
//! `Dinov2Model`: images of one thing are near.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::canonical;
use crate::config::read_object;
use crate::error::{Error, Result};
use crate::image_processor::ImageProcessor;
use crate::network::{Class, Network};
use crate::nn::LayerNorm;
use crate::params::{ParamBuilder, ParamNames};
use crate::vit::{
    Activation, DINOV2_GATED_KEYS, DINOV2_KEYS, Norm, PatchEmbedding, PatchGrid, Transformer,
    TransformerConfig, VIT_KEYS, VIT_PATCHES,
};

/// Which of the two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DinoKind {
    /// A plain vision transformer.
    #[default]
    Vit,
    /// With scaled layers, for images of any size.
    Dinov2,
}

/// `config.json` of a `ViTModel` or `Dinov2Model`; absent keys take that class's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DinoConfig {
    /// Which network.
    #[serde(rename = "model_type")]
    pub kind: DinoKind,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part of a ViT.
    pub intermediate_size: usize,
    /// The same as a multiple of `hidden_size`, of DINOv2.
    pub mlp_ratio: usize,
    /// Whether that part is gated, as DINOv2's giant has it.
    pub use_swiglu_ffn: bool,
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
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
}

impl Default for DinoConfig {
    fn default() -> Self {
        Self {
            kind: DinoKind::Vit,
            hidden_size: 768,
            intermediate_size: 3072,
            mlp_ratio: 4,
            use_swiglu_ffn: false,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            qkv_bias: true,
        }
    }
}

impl DinoConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// An absent file, values of other types, another architecture.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut object = read_object(path)?;
        if object.get("model_type").and_then(Value::as_str) == Some("dinov2") {
            // Where the classes have other defaults.
            object.entry("layer_norm_eps").or_insert(json!(1e-6));
            object.entry("patch_size").or_insert(json!(14));
        }
        serde_json::from_value(Value::Object(object)).map_err(|error| Error::format(path, error))
    }

    /// Channels inside the feed-forward part.
    fn inner(&self) -> usize {
        let whole = self.hidden_size * self.mlp_ratio;
        match (self.kind, self.use_swiglu_ffn) {
            (DinoKind::Vit, _) => self.intermediate_size,
            (DinoKind::Dinov2, false) => whole,
            // Two thirds, rounded up to a multiple of 8.
            (DinoKind::Dinov2, true) => (whole * 2 / 3).next_multiple_of(8),
        }
    }

    /// Refuses a processor that makes other images than the network takes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming both sizes, in pixels.
    pub fn check_processor(&self, processor: &ImageProcessor) -> Result<()> {
        match self.kind {
            DinoKind::Vit => processor.check_side(self.image_size),
            DinoKind::Dinov2 => processor.check_multiple(self.patch_size),
        }
    }
}

/// A vision transformer with a class token.
#[derive(Module, Debug)]
pub struct DinoModel {
    embeddings: PatchEmbedding,
    encoder: Transformer,
    layernorm: LayerNorm,
    #[module(skip)]
    config: DinoConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Network for DinoModel {
    type Config = DinoConfig;

    fn class(config: &DinoConfig) -> Class {
        match config.kind {
            DinoKind::Vit => Class::Transformers("ViTModel", "vit"),
            DinoKind::Dinov2 => Class::Transformers("Dinov2Model", "dinov2"),
        }
    }

    fn read_config(path: &Path) -> Result<DinoConfig> {
        DinoConfig::from_file(path)
    }

    /// Without a classifier's pooler and what masked pre-training needs: features use neither.
    fn canonical_key(key: &str) -> Option<String> {
        let key = key.strip_prefix("vit.").unwrap_or(key);
        let key = key.strip_prefix("dinov2.").unwrap_or(key);
        if key.starts_with("pooler.") || key == "embeddings.mask_token" {
            return None;
        }
        canonical(key)
    }

    fn new(config: &DinoConfig, pb: &ParamBuilder) -> Result<Self> {
        let model = Self::part(config, pb)?;
        // The head of a classifier.
        pb.skip(|key| key.starts_with("classifier."));
        Ok(Self {
            names: pb.finish()?,
            ..model
        })
    }

    fn config(&self) -> &DinoConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl DinoModel {
    /// A part of a larger network, which keeps the names of all parameters.
    pub(crate) fn part(config: &DinoConfig, pb: &ParamBuilder) -> Result<Self> {
        let d = config.hidden_size;
        let grid = PatchGrid {
            num_channels: config.num_channels,
            image_size: config.image_size,
            patch_size: config.patch_size,
        };
        let sizes = TransformerConfig {
            hidden_size: d,
            intermediate_size: config.inner(),
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act,
            qkv_bias: config.qkv_bias,
            causal: false,
            norm: Norm::Before,
            scaled: config.kind == DinoKind::Dinov2,
            gated: config.kind == DinoKind::Dinov2 && config.use_swiglu_ffn,
        };
        let keys = match (config.kind, sizes.gated) {
            (DinoKind::Vit, _) => &VIT_KEYS,
            (DinoKind::Dinov2, false) => &DINOV2_KEYS,
            (DinoKind::Dinov2, true) => &DINOV2_GATED_KEYS,
        };
        Ok(Self {
            embeddings: PatchEmbedding::new(&grid, d, &VIT_PATCHES, &pb.pp("embeddings"))?,
            encoder: Transformer::new(&sizes, keys, &pb.pp("encoder.layer"))?,
            layernorm: LayerNorm::new(d, config.layer_norm_eps, &pb.pp("layernorm"))?,
            config: config.clone(),
            names: ParamNames::default(),
        })
    }

    /// [batch, 3, height, width] preprocessed pixels to the last hidden state
    /// [batch, 1 + patches, channels] after the final norm.
    ///
    /// # Panics
    /// When a ViT's image is not of the config's `image_size`; DINOv2 takes any whole number of
    /// patches.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [_, _, height, width] = pixels.dims();
        let (side, patch) = (self.config.image_size, self.config.patch_size);
        assert!(
            self.config.kind == DinoKind::Dinov2
                || (height / patch) * (width / patch) == (side / patch).pow(2),
            "images must be {side} by {side} pixels"
        );
        let tokens = self.embeddings.forward(pixels);
        self.layernorm.forward(self.encoder.forward(tokens))
    }

    /// The class token of the last hidden state, [batch, channels].
    pub fn features(&self, pixels: Tensor<4>) -> Tensor<2> {
        let hidden = self.forward(pixels);
        let [batch, _, d] = hidden.dims();
        hidden.narrow(1, 0, 1).reshape([batch, d])
    }

    /// The class tokens after some layers, from 0 and in ascending order, side by side and without the
    /// final norm: [batch, layers * channels].
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn class_tokens(&self, pixels: Tensor<4>, layers: &[usize]) -> Tensor<2> {
        let tokens = self.embeddings.forward(pixels);
        class_tokens(self.encoder.hidden_states(tokens, layers))
    }
}

/// The class tokens of hidden states [batch, 1 + patches, channels] side by side.
pub(crate) fn class_tokens(states: Vec<Tensor<3>>) -> Tensor<2> {
    let of_state = |state: Tensor<3>| {
        let [batch, _, channels] = state.dims();
        state.narrow(1, 0, 1).reshape([batch, channels])
    };
    Tensor::cat(states.into_iter().map(of_state).collect(), 1)
}
