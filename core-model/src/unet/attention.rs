//! Transformers inside the U-Net (`Transformer2DModel`, `BasicTransformerBlock` in diffusers).

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::nn::{GroupNorm, LayerNorm, Linear};
use crate::ops;
use crate::params::ParamBuilder;
use crate::unet::fit_batch;

/// Epsilon of a transformer's group norm; diffusers does not take it from the config.
const GROUP_NORM_EPS: f64 = 1e-6;

/// Epsilon of a block's layer norms, torch's default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// The cross-attention of a forward pass, one tensor per layer in the order in which the layers are
/// passed.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Probabilities [batch, heads, pixels, tokens], or their means [batch, 1, 1, tokens].
    pub(crate) maps: Vec<Tensor<4>>,
    /// Whether the means are enough, so that no probabilities are kept.
    pub(crate) means: bool,
}

impl Collected {
    /// What to add to these maps: probabilities that were computed elsewhere.
    pub(crate) fn extend(&mut self, probabilities: Vec<Tensor<4>>) {
        let of_kind = |map| match self.means {
            true => ops::mean_map(map),
            false => map,
        };
        self.maps.extend(probabilities.into_iter().map(of_kind));
    }

    /// Attention, whose map is added.
    fn attend(&mut self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<4> {
        let (attended, map) = match self.means {
            true => ops::attention_with_mean(q, k, v, scale),
            false => ops::attention_with_probabilities(q, k, v, scale),
        };
        self.maps.push(map);
        attended
    }
}

/// Where the cross-attention of a forward pass is collected, if anywhere.
pub(crate) type Maps<'a> = Option<&'a mut Collected>;

/// Attention of pixels to pixels or to the prompt.
#[derive(Module, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    #[module(skip)]
    heads: usize,
    /// Whether the first position of what keys and values are made of gets no gradient.
    #[module(skip)]
    stops_first: bool,
    /// Whether scores are computed in float32 inside a network in half precision, whose range those of
    /// some models leave.
    #[module(skip)]
    upcast: bool,
}

impl Attention {
    /// Of the transformer that `config` describes, to what has `context` channels.
    fn new(config: &TransformerConfig, context: usize, pb: &ParamBuilder) -> Result<Self> {
        let channels = config.channels;
        Ok(Self {
            to_q: Linear::new(channels, channels, false, &pb.pp("to_q"))?,
            to_k: Linear::new(context, channels, false, &pb.pp("to_k"))?,
            to_v: Linear::new(context, channels, false, &pb.pp("to_v"))?,
            to_out: Linear::new(channels, channels, true, &pb.pp("to_out.0"))?,
            heads: config.heads,
            stops_first: false,
            upcast: config.upcast_attention,
        })
    }

    /// Keys or values, the first position off the tape where its gradient is stopped.
    fn stopped(&self, x: Tensor<3>) -> Tensor<3> {
        let tokens = x.dims()[1];
        if !self.stops_first || !x.is_autodiff() || tokens < 2 {
            return x;
        }
        let first = x.clone().narrow(1, 0, 1).detach();
        Tensor::cat(vec![first, x.narrow(1, 1, tokens - 1)], 1)
    }

    /// `x` [batch, pixels, channels]; what keys and what values are made of,
    /// [batch, tokens, their channels] each, or several of them for each `x`, as many results as
    /// there are of them.
    fn forward(&self, x: Tensor<3>, [keys, values]: [Tensor<3>; 2], maps: Maps) -> Tensor<3> {
        let [_, pixels, channels] = x.dims();
        let batch = keys.dims()[0];
        let width = channels / self.heads;
        let split = |x: Tensor<3>| {
            let n = x.dims()[1];
            x.reshape([batch, n, self.heads, width]).swap_dims(1, 2)
        };
        let scored = |x: Tensor<4>| match self.upcast {
            true => ops::cast(x, DType::F32),
            false => x,
        };
        let q = scored(split(fit_batch(self.to_q.forward(x), batch)));
        let k = scored(split(self.stopped(self.to_k.forward(keys))));
        let v = split(self.stopped(self.to_v.forward(values)));
        let scale = 1.0 / (width as f64).sqrt();
        let attended = match maps {
            Some(maps) => maps.attend(q, k, v, scale),
            None => ops::attention(q, k, v, false, scale),
        };
        self.to_out
            .forward(attended.swap_dims(1, 2).reshape([batch, pixels, channels]))
    }
}

/// Self-attention, cross-attention, feed-forward.
#[derive(Module, Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    #[module(skip)]
    only_cross_attention: bool,
    /// The number of its cross-attention among the U-Net's.
    #[module(skip)]
    layer: usize,
}

impl BasicTransformerBlock {
    fn new(config: &TransformerConfig, layer: usize, pb: &ParamBuilder) -> Result<Self> {
        let TransformerConfig {
            channels,
            context,
            only_cross_attention,
            ..
        } = *config;
        let norm = |name: &str| LayerNorm::new(channels, LAYER_NORM_EPS, &pb.pp(name));
        let first = if only_cross_attention {
            context
        } else {
            channels
        };
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(config, first, &pb.pp("attn1"))?,
            norm2: norm("norm2")?,
            attn2: Attention::new(config, context, &pb.pp("attn2"))?,
            norm3: norm("norm3")?,
            ff_in: Linear::new(channels, 8 * channels, true, &pb.pp("ff.net.0.proj"))?,
            ff_out: Linear::new(4 * channels, channels, true, &pb.pp("ff.net.2"))?,
            only_cross_attention,
            layer,
        })
    }

    fn stop_first_token_gradient(&mut self, on: bool) {
        self.attn1.stops_first = on && self.only_cross_attention;
        self.attn2.stops_first = on;
    }

    fn forward(&self, x: Tensor<3>, prompt: &Conditioning, maps: Maps) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let read = match self.only_cross_attention {
            true => prompt.of_layer(self.layer),
            false => [h.clone(), h.clone()],
        };
        let x = add(x, self.attn1.forward(h, read, None));
        let h = self.norm2.forward(x.clone());
        let read = prompt.of_layer(self.layer);
        let x = add(x, self.attn2.forward(h, read, maps));
        let h = ops::geglu(self.ff_in.forward(self.norm3.forward(x.clone())));
        ops::add(x, self.ff_out.forward(h))
    }
}

/// The sizes of a transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerConfig {
    pub(crate) channels: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// The number of its first cross-attention among the U-Net's.
    pub(crate) first_layer: usize,
    /// Channels of the prompt's hidden states.
    pub(crate) context: usize,
    pub(crate) groups: usize,
    pub(crate) only_cross_attention: bool,
    /// Whether the projections are linear layers, as in SD 2.x, or 1x1 convolutions, as in SD 1.x.
    pub(crate) linear_projection: bool,
    pub(crate) upcast_attention: bool,
}

/// Pixels as tokens, through blocks, and back, beside a shortcut.
#[derive(Module, Debug)]
pub(crate) struct Transformer2D {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Linear,
    #[module(skip)]
    first_layer: usize,
}

impl Transformer2D {
    pub(crate) fn new(config: &TransformerConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels = config.channels;
        let blocks = pb.pp("transformer_blocks");
        let projection = |name: &str| match config.linear_projection {
            true => Linear::new(channels, channels, true, &pb.pp(name)),
            false => Linear::pointwise(channels, channels, &pb.pp(name)),
        };
        Ok(Self {
            norm: GroupNorm::new(config.groups, channels, GROUP_NORM_EPS, &pb.pp("norm"))?,
            proj_in: projection("proj_in")?,
            transformer_blocks: (0..config.layers)
                .map(|i| BasicTransformerBlock::new(config, config.first_layer + i, &blocks.pp(i)))
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?,
            first_layer: config.first_layer,
        })
    }

    /// Whether the cross-attention layers stop the gradient of the first text position.
    pub(crate) fn stop_first_token_gradient(&mut self, on: bool) {
        let blocks = self.transformer_blocks.iter_mut();
        blocks.for_each(|block| block.stop_first_token_gradient(on));
    }

    /// The number of its first cross-attention among the U-Net's, and how many it has.
    pub(crate) fn cross_attentions(&self) -> (usize, usize) {
        (self.first_layer, self.transformer_blocks.len())
    }

    /// `x` [batch, channels, h, w].
    pub(crate) fn forward(&self, x: Tensor<4>, prompt: &Conditioning, mut maps: Maps) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let tokens = self
            .norm
            .forward(x.clone())
            .reshape([batch, channels, h * w])
            .swap_dims(1, 2);
        let mut tokens = self.proj_in.forward(tokens);
        for block in &self.transformer_blocks {
            tokens = block.forward(tokens, prompt, maps.as_deref_mut());
        }
        let out =
            self.proj_out
                .forward(tokens)
                .swap_dims(1, 2)
                .reshape([prompt.batch(), channels, h, w]);
        ops::add(out, fit_batch(x, prompt.batch()))
    }
}

/// `x + change`, with `x` repeated for the batch of `change`.
fn add<const D: usize>(x: Tensor<D>, change: Tensor<D>) -> Tensor<D> {
    let batch = change.dims()[0];
    ops::add(fit_batch(x, batch), change)
}
