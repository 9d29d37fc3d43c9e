//! The image tower of SigLIP.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::TowerSizes;
use crate::error::Result;
use crate::nn::{Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear};
use crate::ops;
use crate::params::{Init, ParamBuilder};
use crate::vit::{Activation, CLIP_KEYS, PatchGrid, Transformer};

/// The `vision_config` of a SigLIP model; absent keys take transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiglipVisionConfig {
    /// Channels of a token, and of the shared space.
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

impl Default for SiglipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 16,
            hidden_act: Activation::GeluNew,
            layer_norm_eps: 1e-6,
        }
    }
}

/// Patches with positions and no class token, transformer, norm, and attention of one learned query.
#[derive(Module, Debug)]
pub(super) struct VisionTower {
    patch_embedding: Conv2d,
    position_embedding: Embedding,
    encoder: Transformer,
    post_layernorm: LayerNorm,
    head: PoolingHead,
    #[module(skip)]
    image_size: usize,
}

impl VisionTower {
    pub(super) fn new(config: &SiglipVisionConfig, pb: &ParamBuilder) -> Result<Self> {
        let grid = PatchGrid {
            num_channels: config.num_channels,
            image_size: config.image_size,
            patch_size: config.patch_size,
        };
        grid.check()?;
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let patches = (config.image_size / config.patch_size).pow(2);
        let convolution = Conv2dConfig {
            inputs: config.num_channels,
            outputs: d,
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: [0; 4],
            bias: true,
        };
        let sizes = TowerSizes {
            hidden_size: d,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: eps,
            hidden_act: config.hidden_act,
        };
        let (tables, layers) = (pb.pp("embeddings"), pb.pp("encoder.layers"));
        Ok(Self {
            patch_embedding: Conv2d::new(convolution, &tables.pp("patch_embedding"))?,
            position_embedding: Embedding::new(patches, d, &tables.pp("position_embedding"))?,
            encoder: Transformer::new(&sizes.transformer(), &CLIP_KEYS, &layers)?,
            post_layernorm: LayerNorm::new(d, eps, &pb.pp("post_layernorm"))?,
            head: PoolingHead::new(config, &pb.pp("head"))?,
            image_size: config.image_size,
        })
    }

    /// [batch, 3, side, side] to features [batch, channels].
    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let [_, _, height, width] = pixels.dims();
        let side = self.image_size;
        assert_eq!(
            [height, width],
            [side; 2],
            "images must be {side} by {side} pixels"
        );
        let patches = self.patch_embedding.forward(pixels);
        let [batch, d, h, w] = patches.dims();
        let tokens: Tensor<3> = patches.reshape([batch, d, h * w]).swap_dims(1, 2);
        let tokens = tokens + self.position_embedding.weight.val().unsqueeze();
        let hidden = self.encoder.forward(tokens);
        self.head.forward(self.post_layernorm.forward(hidden))
    }
}

/// `SiglipMultiheadAttentionPoolingHead`: one learned query attends to all tokens, then a
/// feed-forward part beside the residual.
#[derive(Module, Debug)]
struct PoolingHead {
    probe: Param<Tensor<2>>,
    in_proj: Linear,
    out_proj: Linear,
    layernorm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    hidden_act: Activation,
}

impl PoolingHead {
    fn new(config: &SiglipVisionConfig, pb: &ParamBuilder) -> Result<Self> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let attention = pb.pp("attention");
        Ok(Self {
            probe: pb.get_stored_as("probe", [1, d], &[1, 1, d], Init::Normal(0.02))?,
            in_proj: Linear::new(d, 3 * d, true, &attention.pp("in_proj"))?,
            out_proj: Linear::new(d, d, true, &attention.pp("out_proj"))?,
            layernorm: LayerNorm::new(d, config.layer_norm_eps, &pb.pp("layernorm"))?,
            fc1: Linear::new(d, inner, true, &pb.pp("mlp.fc1"))?,
            fc2: Linear::new(inner, d, true, &pb.pp("mlp.fc2"))?,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
        })
    }

    /// [batch, n, channels] to [batch, channels].
    fn forward(&self, tokens: Tensor<3>) -> Tensor<2> {
        let [batch, _, d] = tokens.dims();
        let width = d / self.heads;
        // Query, key or value of every head: [batch, heads, n, width].
        let part = |projected: Tensor<3>, index: usize| {
            let [batch, n, _] = projected.dims();
            let part = projected.narrow(2, index * d, d);
            part.reshape([batch, n, self.heads, width]).swap_dims(1, 2)
        };
        let probe = self
            .in_proj
            .forward(self.probe.val())
            .reshape([1, 1, 3 * d]);
        let query = part(probe.expand([batch, 1, 3 * d]), 0);
        let projected = self.in_proj.forward(tokens);
        let scale = 1.0 / (width as f64).sqrt();
        let (key, value) = (part(projected.clone(), 1), part(projected, 2));
        let attended = ops::attention(query, key, value, false, scale);
        let pooled = self
            .out_proj
            .forward(attended.swap_dims(1, 2).reshape([batch, d]));
        let inner = self.fc1.forward(self.layernorm.forward(pooled.clone()));
        pooled + self.fc2.forward(self.hidden_act.apply(inner))
    }
}
