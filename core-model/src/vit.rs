//! The transformer that the towers of CLIP and SigLIP, DINO (Dosovitskiy et al. 2021) and CLIPSeg's decoder
//! share.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::{Conv2d, Conv2dConfig, LayerNorm, Linear};
use crate::ops;
use crate::params::{Init, ParamBuilder};
use crate::positions::resized;

/// The activation that a config's `hidden_act` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Exact GELU.
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU in its tanh approximation.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `x * sigmoid(1.702 x)`.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// `max(x, 0)`.
    #[serde(rename = "relu")]
    Relu,
    /// `x * sigmoid(x)`.
    #[serde(rename = "silu")]
    Silu,
}

impl Activation {
    /// As configs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }

    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => ops::gelu(x),
            Self::GeluNew => ops::gelu_approximate(x),
            Self::QuickGelu => ops::quick_gelu(x),
            Self::Relu => relu(x),
            Self::Silu => ops::silu(x),
        }
    }
}

/// Where a layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Before attention and feed-forward part, beside the residual.
    Before,
    /// After each has been added to the residual (Vaswani et al. 2017).
    After,
}

/// The sizes of a transformer.
#[derive(Debug, Clone, Copy)]
pub struct TransformerConfig {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer.
    pub num_attention_heads: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether a position sees only itself and earlier ones.
    pub causal: bool,
    /// Where layers normalise.
    pub norm: Norm,
    /// Whether what a layer adds is scaled channel by channel (DINOv2).
    pub scaled: bool,
    /// Whether the feed-forward part is `silu(a) * b` of two halves (DINOv2's giant).
    pub gated: bool,
}

impl TransformerConfig {
    /// Refuses sizes that no transformer can have.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the keys.
    pub fn check(&self) -> Result<()> {
        let Self {
            hidden_size,
            num_attention_heads,
            ..
        } = *self;
        if num_attention_heads == 0 || !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(Error::Invalid(format!(
                "`hidden_size` is {hidden_size} and `num_attention_heads` {num_attention_heads}; \
                 expected a multiple"
            )));
        }
        Ok(())
    }
}

/// How a square image becomes tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatchGrid {
    /// Channels of an image.
    pub(crate) num_channels: usize,
    /// Side of an image, in pixels.
    pub(crate) image_size: usize,
    /// Side of a patch, in pixels.
    pub(crate) patch_size: usize,
}

impl PatchGrid {
    /// Refuses grids that an image does not fill.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the keys.
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            num_channels,
            image_size,
            patch_size,
        } = *self;
        if num_channels != 3 {
            return Err(Error::Invalid(format!(
                "`num_channels` is {num_channels}, expected 3: images are RGB"
            )));
        }
        if patch_size == 0 || image_size == 0 || !image_size.is_multiple_of(patch_size) {
            return Err(Error::Invalid(format!(
                "`image_size` is {image_size} and `patch_size` {patch_size}; expected a multiple"
            )));
        }
        Ok(())
    }
}

/// What a family calls the parts of a patch embedding, and how it stores them.
#[derive(Debug)]
pub(crate) struct PatchKeys {
    class: &'static str,
    patches: &'static str,
    positions: &'static str,
    /// Whether the convolution has a bias.
    bias: bool,
    /// Whether class token and positions are stored as a batch of one.
    batched: bool,
}

/// `CLIPVisionEmbeddings`.
pub(crate) const CLIP_PATCHES: PatchKeys = PatchKeys {
    class: "class_embedding",
    patches: "patch_embedding",
    positions: "position_embedding.weight",
    bias: false,
    batched: false,
};

/// `ViTEmbeddings` and `Dinov2Embeddings`.
pub(crate) const VIT_PATCHES: PatchKeys = PatchKeys {
    class: "cls_token",
    patches: "patch_embeddings.projection",
    positions: "position_embeddings",
    bias: true,
    batched: true,
};

/// Images to tokens: a class token, then one token per patch, each with its position.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbedding {
    class: Param<Tensor<1>>,
    projection: Conv2d,
    positions: Param<Tensor<2>>,
}

impl PatchEmbedding {
    /// The tables below `pb`.
    ///
    /// # Errors
    /// A grid that images do not fill, a missing or misshapen tensor.
    pub(crate) fn new(
        grid: &PatchGrid,
        hidden_size: usize,
        keys: &PatchKeys,
        pb: &ParamBuilder,
    ) -> Result<Self> {
        grid.check()?;
        let tokens = (grid.image_size / grid.patch_size).pow(2) + 1;
        let projection = Conv2dConfig {
            inputs: grid.num_channels,
            outputs: hidden_size,
            kernel: grid.patch_size,
            stride: grid.patch_size,
            padding: [0; 4],
            bias: keys.bias,
        };
        let (class, positions) = match keys.batched {
            true => (vec![1, 1, hidden_size], vec![1, tokens, hidden_size]),
            false => (vec![hidden_size], vec![tokens, hidden_size]),
        };
        let normal = Init::Normal(0.02);
        let table = [tokens, hidden_size];
        Ok(Self {
            class: pb.get_stored_as(keys.class, [hidden_size], &class, normal)?,
            projection: Conv2d::new(projection, &pb.pp(keys.patches))?,
            positions: pb.get_stored_as(keys.positions, table, &positions, normal)?,
        })
    }

    /// [batch, 3, height, width] to [batch, 1 + patches, channels]; positions are interpolated for
    /// images of another size than the config says.
    pub(crate) fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let patches = self.projection.forward(pixels);
        let [batch, d, h, w] = patches.dims();
        let patches = patches.reshape([batch, d, h * w]).swap_dims(1, 2);
        let class = self.class.val().reshape([1, 1, d]).expand([batch, 1, d]);
        let positions = resized(self.positions.val(), h, w);
        Tensor::cat(vec![class, patches], 1) + positions.unsqueeze()
    }
}

/// What the family calls the parts of a layer.
#[derive(Debug)]
pub(crate) struct LayerKeys {
    norm1: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    out: &'static str,
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    scales: [&'static str; 2],
}

/// `CLIPEncoderLayer`.
pub(crate) const CLIP_KEYS: LayerKeys = LayerKeys {
    norm1: "layer_norm1",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    out: "self_attn.out_proj",
    norm2: "layer_norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["", ""],
};

/// `ViTLayer`.
pub(crate) const VIT_KEYS: LayerKeys = LayerKeys {
    norm1: "layernorm_before",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    out: "attention.output.dense",
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    scales: ["", ""],
};

/// `Dinov2Layer`.
pub(crate) const DINOV2_KEYS: LayerKeys = LayerKeys {
    norm1: "norm1",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    out: "attention.output.dense",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
};

/// [`DINOV2_KEYS`] of the gated feed-forward part.
pub(crate) const DINOV2_GATED_KEYS: LayerKeys = LayerKeys {
    fc1: "mlp.weights_in",
    fc2: "mlp.weights_out",
    ..DINOV2_KEYS
};

#[derive(Module, Debug)]
struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scales: Vec<Param<Tensor<1>>>,
    #[module(skip)]
    config: TransformerConfig,
}

impl Layer {
    fn new(config: &TransformerConfig, keys: &LayerKeys, pb: &ParamBuilder) -> Result<Self> {
        let (d, inner, eps) = (
            config.hidden_size,
            config.intermediate_size,
            config.layer_norm_eps,
        );
        let scales = keys.scales.iter().filter(|_| config.scaled);
        let scales = scales.map(|key| pb.get(key, [d], Init::Ones));
        let halves = if config.gated { 2 } else { 1 };
        Ok(Self {
            norm1: LayerNorm::new(d, eps, &pb.pp(keys.norm1))?,
            query: Linear::new(d, d, config.qkv_bias, &pb.pp(keys.query))?,
            key: Linear::new(d, d, config.qkv_bias, &pb.pp(keys.key))?,
            value: Linear::new(d, d, config.qkv_bias, &pb.pp(keys.value))?,
            out: Linear::new(d, d, true, &pb.pp(keys.out))?,
            norm2: LayerNorm::new(d, eps, &pb.pp(keys.norm2))?,
            fc1: Linear::new(d, halves * inner, true, &pb.pp(keys.fc1))?,
            fc2: Linear::new(inner, d, true, &pb.pp(keys.fc2))?,
            scales: scales.collect::<Result<_>>()?,
            config: *config,
        })
    }

    /// [batch, n, channels] to the same shape.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self.config.norm {
            Norm::Before => {
                let x = x.clone() + self.scale(0, self.attend(self.norm1.forward(x)));
                x.clone() + self.scale(1, self.feed_forward(self.norm2.forward(x)))
            }
            Norm::After => {
                let x = self.norm1.forward(x.clone() + self.attend(x));
                self.norm2.forward(x.clone() + self.feed_forward(x))
            }
        }
    }

    fn attend(&self, h: Tensor<3>) -> Tensor<3> {
        let [batch, n, d] = h.dims();
        let heads = self.config.num_attention_heads;
        let split = |x: Tensor<3>| x.reshape([batch, n, heads, d / heads]).swap_dims(1, 2);
        let scale = 1.0 / ((d / heads) as f64).sqrt();
        let attended = ops::attention(
            split(self.query.forward(h.clone())),
            split(self.key.forward(h.clone())),
            split(self.value.forward(h)),
            self.config.causal,
            scale,
        );
        self.out
            .forward(attended.swap_dims(1, 2).reshape([batch, n, d]))
    }

    fn scale(&self, part: usize, x: Tensor<3>) -> Tensor<3> {
        match self.scales.get(part) {
            Some(scale) => x * scale.val().unsqueeze(),
            None => x,
        }
    }

    fn feed_forward(&self, h: Tensor<3>) -> Tensor<3> {
        let h = self.fc1.forward(h);
        if self.config.gated {
            let half = h.dims()[2] / 2;
            let gate = ops::silu(h.clone().narrow(2, 0, half));
            return self.fc2.forward(gate * h.narrow(2, half, half));
        }
        self.fc2.forward(self.config.hidden_act.apply(h))
    }
}

/// A stack of layers.
#[derive(Module, Debug)]
pub struct Transformer {
    layers: Vec<Layer>,
}

impl Transformer {
    /// Layers below `pb`, numbered from 0.
    ///
    /// # Errors
    /// Impossible sizes, a missing or misshapen tensor.
    pub(crate) fn new(
        config: &TransformerConfig,
        keys: &LayerKeys,
        pb: &ParamBuilder,
    ) -> Result<Self> {
        config.check()?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::new(config, keys, &pb.pp(index)))
            .collect::<Result<_>>()?;
        // A config with fewer layers than its file reads the first ones: clip skip.
        pb.skip(|key| {
            let number = key.split('.').next().and_then(|n| n.parse::<usize>().ok());
            number.is_some_and(|number| number >= config.num_hidden_layers)
        });
        Ok(Self { layers })
    }

    /// [batch, n, channels] to the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }

    /// One layer alone, from 0: [batch, n, channels] to the same shape.
    ///
    /// # Panics
    /// When there is no such layer.
    pub(crate) fn layer(&self, index: usize, x: Tensor<3>) -> Tensor<3> {
        self.layers[index].forward(x)
    }

    /// What comes out of some of the layers, from 0, the lowest first; later ones are not computed.
    pub(crate) fn hidden_states(&self, x: Tensor<3>, wanted: &[usize]) -> Vec<Tensor<3>> {
        let mut states = Vec::with_capacity(wanted.len());
        let mut hidden = x;
        for (index, layer) in self.layers.iter().enumerate() {
            if states.len() == wanted.len() {
                break;
            }
            hidden = layer.forward(hidden);
            if wanted.contains(&index) {
                states.push(hidden.clone());
            }
        }
        states
    }
}
