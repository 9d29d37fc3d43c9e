//! DINO (Caron et al. 2021), `ViTModel` in transformers: pictures of one thing are near.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Precision, canonical, save_module};
use crate::config::{read_config, write_config};
use crate::error::Result;
use crate::nn::{Conv2d, LayerNorm};
use crate::params::{Init, ParamBuilder, ParamNames};
use crate::vit::{Activation, Norm, PatchGrid, Transformer, TransformerConfig, VIT_KEYS};

/// `config.json` of a `ViTModel`; absent keys take that class's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DinoConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Side of a picture, in pixels.
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
            hidden_size: 768,
            intermediate_size: 3072,
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

/// A vision transformer with a class token.
#[derive(Module, Debug)]
pub struct DinoModel {
    cls_token: Param<Tensor<3>>,
    position_embeddings: Param<Tensor<3>>,
    projection: Conv2d,
    encoder: Transformer,
    layernorm: LayerNorm,
    #[module(skip)]
    config: DinoConfig,
    #[module(skip)]
    names: ParamNames,
}

impl DinoModel {
    /// Reads a ViT folder; a pooler, which the score does not use, may be there or not.
    ///
    /// # Errors
    /// An absent or damaged file, an unsupported config, tensors that do not fit it.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        let config: DinoConfig = read_config(&path)?;
        let file = Checkpoint::open_weights(folder, "model.safetensors", None, |key| {
            let key = key.strip_prefix("vit.").unwrap_or(key);
            if key.starts_with("pooler.") {
                None
            } else {
                canonical(key)
            }
        })?;
        Self::new(&config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// A network below `pb`.
    ///
    /// # Errors
    /// Tensors that do not fit the config.
    pub fn new(config: &DinoConfig, pb: &ParamBuilder) -> Result<Self> {
        let d = config.hidden_size;
        let grid = PatchGrid {
            num_channels: config.num_channels,
            image_size: config.image_size,
            patch_size: config.patch_size,
        };
        grid.check()?;
        let sizes = TransformerConfig {
            hidden_size: d,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act,
            qkv_bias: config.qkv_bias,
            causal: false,
            norm: Norm::Before,
        };
        let patches = grid.projection(d, true);
        let tables = pb.pp("embeddings");
        let normal = Init::Normal(0.02);
        Ok(Self {
            cls_token: tables.get("cls_token", [1, 1, d], normal)?,
            position_embeddings: tables.get(
                "position_embeddings",
                [1, grid.tokens(), d],
                normal,
            )?,
            projection: Conv2d::new(patches, &tables.pp("patch_embeddings.projection"))?,
            encoder: Transformer::new(&sizes, &VIT_KEYS, &pb.pp("encoder.layer"))?,
            layernorm: LayerNorm::new(d, config.layer_norm_eps, &pb.pp("layernorm"))?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    /// A fresh network.
    ///
    /// # Errors
    /// Impossible sizes.
    pub fn init(config: &DinoConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::new(config, &ParamBuilder::random(seed, device))
    }

    /// Writes `config.json` and weights.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn save(&self, folder: &Path, precision: Precision) -> Result<()> {
        write_config(
            &folder.join("config.json"),
            "ViTModel",
            Some("vit"),
            &self.config,
        )?;
        save_module(
            &folder.join("model.safetensors"),
            self,
            &self.names,
            precision,
        )
    }

    /// The facts of the checkpoint.
    pub fn config(&self) -> &DinoConfig {
        &self.config
    }

    /// The key of every parameter.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// [batch, 3, side, side] preprocessed pixels to the last hidden state
    /// [batch, 1 + patches, channels] after the final norm.
    ///
    /// # Panics
    /// When the picture is not of the config's `image_size`.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let patches = self.projection.forward(pixels);
        let [batch, d, h, w] = patches.dims();
        let positions = self.position_embeddings.val();
        let side = self.config.image_size;
        assert_eq!(
            positions.dims()[1],
            h * w + 1,
            "pictures must be {side} by {side} pixels"
        );
        let patches = patches.reshape([batch, d, h * w]).swap_dims(1, 2);
        let class = self.cls_token.val().expand([batch, 1, d]);
        let tokens = Tensor::cat(vec![class, patches], 1) + positions;
        self.layernorm.forward(self.encoder.forward(tokens))
    }

    /// The class token of the last hidden state, [batch, channels].
    pub fn features(&self, pixels: Tensor<4>) -> Tensor<2> {
        let hidden = self.forward(pixels);
        let [batch, _, d] = hidden.dims();
        hidden.narrow(1, 0, 1).reshape([batch, d])
    }
}
