//! The noise predictor of Stable Diffusion (Rombach et al. 2022), `UNet2DConditionModel` in
//! diffusers.

mod attention;
mod blocks;
pub(crate) mod config;
mod embeddings;

use std::cell::Cell;
use std::cmp::Ordering;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Tensor};

pub use config::{DownBlockType, PerLevel, SampleSize, UNet2DConditionConfig, UpBlockType};

use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::network::{Class, Network};
use crate::nn::{Conv2d, Conv2dConfig, GroupNorm};
use crate::ops;
use crate::params::{ParamBuilder, ParamNames, is_trained};
use crate::resnet::ResnetConfig;
use attention::{Collected, Maps, TransformerConfig};
use blocks::{DownBlock, LevelConfig, MidBlock, Step, UpBlock};
use embeddings::{TimestepEmbedding, timestep_embedding};

/// A U-Net conditioned on a timestep and a prompt.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel {
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    cross_attentions: usize,
    #[module(skip)]
    config: UNet2DConditionConfig,
    #[module(skip)]
    gradient_checkpointing: bool,
    /// The format inside; inputs are cast to it, and the prediction is in float32.
    #[module(skip)]
    format: DType,
    #[module(skip)]
    names: ParamNames,
}

impl Network for UNet2DConditionModel {
    type Config = UNet2DConditionConfig;

    fn class(_config: &UNet2DConditionConfig) -> Class {
        Class::Diffusers("UNet2DConditionModel")
    }

    fn read_config(path: &Path) -> Result<UNet2DConditionConfig> {
        UNet2DConditionConfig::from_file(path)
    }

    fn new(config: &UNet2DConditionConfig, pb: &ParamBuilder) -> Result<Self> {
        config.check().map_err(|(key, value, expected)| {
            Error::Invalid(format!("U-Net: `{key}` is {value}, expected {expected}"))
        })?;
        let channels = &config.block_out_channels;
        let first = channels[0];
        let time_channels = 4 * first;
        let levels = Levels {
            config,
            time_channels,
            cross_attentions: Cell::new(0),
        };
        let (down_blocks, skips) = levels.down(pb)?;
        let mid_block = levels.mid(pb)?;
        let up_blocks = levels.up(skips, pb)?;
        Ok(Self {
            conv_in: Conv2d::new(
                Conv2dConfig::same(config.in_channels, first, 3),
                &pb.pp("conv_in"),
            )?,
            time_embedding: TimestepEmbedding::new(first, time_channels, &pb.pp("time_embedding"))?,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                config.norm_num_groups,
                first,
                config.norm_eps,
                &pb.pp("conv_norm_out"),
            )?,
            conv_out: Conv2d::new(
                Conv2dConfig::same(first, config.out_channels, 3),
                &pb.pp("conv_out"),
            )?,
            cross_attentions: levels.cross_attentions.get(),
            config: config.clone(),
            gradient_checkpointing: false,
            format: pb.computes_in(),
            names: pb.finish()?,
        })
    }

    fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

/// What is collected of the cross-attention layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probabilities {
    /// The probabilities [batch, heads, pixels, tokens] of every layer.
    Whole,
    /// Their means over heads and pixels, [batch, 1, 1, tokens]; no probabilities are kept for the
    /// backward pass.
    Means,
}

impl UNet2DConditionModel {
    /// Whether residual blocks and transformers keep only their inputs and are computed again in
    /// the backward pass: less memory, about a third more time.
    #[must_use]
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.gradient_checkpointing = on;
        self
    }

    /// Whether keys and values of the first text position, the start of text, pass no gradient on in
    /// the cross-attention layers, as in Custom Diffusion; what is computed stays the same.
    #[must_use]
    pub fn with_first_token_gradient_stopped(mut self, on: bool) -> Self {
        let down = self
            .down_blocks
            .iter_mut()
            .flat_map(DownBlock::attentions_mut);
        let mid = self.mid_block.attentions_mut();
        let up = self.up_blocks.iter_mut().flat_map(UpBlock::attentions_mut);
        for attention in down.chain(mid).chain(up) {
            attention.stop_first_token_gradient(on);
        }
        self
    }

    /// The number of cross-attention layers: 16 in Stable Diffusion 1.x and 2.x.
    pub fn cross_attentions(&self) -> usize {
        self.cross_attentions
    }

    /// The prediction [batch, out, h, w] for latents `sample` [batch, in, h, w] and one timestep
    /// per sample; `encoder_hidden_states` are the prompts' hidden states
    /// [batch, tokens, channels], or a [`Conditioning`] that differs by layer.
    ///
    /// There may be several prompts for each sample: those of all samples, then further ones of all
    /// samples, and as many predictions. What lies before the first cross-attention is then computed
    /// once for each sample, with the bits that it has for samples that are repeated by the caller.
    ///
    /// # Panics
    /// When there is not one timestep per sample, or the prompts are no multiple of the samples.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        encoder_hidden_states: impl Into<Conditioning>,
    ) -> Tensor<4> {
        let prompt = encoder_hidden_states.into();
        let predictions = prompt.batch();
        let prediction = self.predict(sample, timesteps, &prompt, predictions, None);
        prediction.expect("a prediction for every prompt")
    }

    /// The same, with the probabilities [batch, heads, pixels, tokens] of every cross-attention
    /// layer on the way down, in the middle and on the way up.
    pub fn forward_with_attention(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        encoder_hidden_states: impl Into<Conditioning>,
    ) -> (Tensor<4>, Vec<Tensor<4>>) {
        let prompt = encoder_hidden_states.into();
        let predictions = prompt.batch();
        let whole = Probabilities::Whole;
        let (prediction, maps) = self.forward_some(sample, timesteps, prompt, predictions, whole);
        (prediction.expect("a prediction for every prompt"), maps)
    }

    /// The same, with predictions for the first `predictions` prompts alone, if there are any: for
    /// the others nothing is computed after the last cross-attention.
    pub fn forward_some(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        encoder_hidden_states: impl Into<Conditioning>,
        predictions: usize,
        attention: Probabilities,
    ) -> (Option<Tensor<4>>, Vec<Tensor<4>>) {
        let prompt = encoder_hidden_states.into();
        let mut collected = Collected {
            means: attention == Probabilities::Means,
            ..Collected::default()
        };
        let maps = Some(&mut collected);
        let prediction = self.predict(sample, timesteps, &prompt, predictions, maps);
        (prediction, collected.maps)
    }

    fn predict(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        prompt: &Conditioning,
        predictions: usize,
        mut maps: Maps,
    ) -> Option<Tensor<4>> {
        let config = &self.config;
        let (samples, prompts) = (sample.dims()[0], prompt.batch());
        assert_eq!(timesteps.len(), samples, "one timestep per sample");
        assert!(
            prompts.is_multiple_of(samples),
            "{prompts} prompts for {samples} samples"
        );

        // Where weights are trained, their gradients are added up in the order of the prompts.
        if (prompts > samples || prompts > predictions) && is_trained(self) {
            let timesteps = timesteps.repeat(prompts / samples);
            let sample = fit_batch(sample, prompts);
            let all = self.predict(sample, &timesteps, prompt, prompts, maps);
            return all
                .filter(|_| predictions > 0)
                .map(|all| fit_batch(all, predictions));
        }
        let prompt = &prompt.clone().cast(self.format);

        // 1. time
        let time = timestep_embedding(
            timesteps,
            config.block_out_channels[0],
            config.flip_sin_to_cos,
            config.freq_shift,
            &sample.device(),
        );
        // Every residual block begins with this SiLU.
        let time = ops::cast(time, self.format);
        let time = ops::silu(self.time_embedding.forward(time));
        let step = Step {
            time: &time,
            prompt,
            recompute: self.gradient_checkpointing,
        };

        // 2. pre-process
        let sample = if config.center_input_sample {
            sample * 2.0 - 1.0
        } else {
            sample
        };
        let mut x = self.conv_in.forward(ops::cast(sample, self.format));

        // 3. down
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, step, &mut skips, maps.as_deref_mut());
        }

        // 4. mid
        x = self.mid_block.forward(x, step, maps.as_deref_mut());

        // 5. up
        let last = self.up_blocks.iter().rposition(UpBlock::attends);
        for (index, block) in self.up_blocks.iter().enumerate() {
            if last.is_none_or(|last| index > last) {
                if predictions == 0 {
                    return None;
                }
                x = fit_batch(x, predictions);
            }
            let kept = (last == Some(index)).then_some(predictions);
            x = block.forward(x, step, &mut skips, maps.as_deref_mut(), kept);
        }
        if predictions == 0 {
            return None;
        }

        // 6. post-process
        let x = self.conv_norm_out.forward_silu(x);
        Some(ops::cast(self.conv_out.forward(x), DType::F32))
    }
}

/// `x` with a batch of `batch` entries: repeated until there are so many, or the first so many.
pub(crate) fn fit_batch<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<D> {
    let given = x.dims()[0];
    match given.cmp(&batch) {
        Ordering::Equal => x,
        Ordering::Less => x.repeat_dim(0, batch / given),
        Ordering::Greater => x.narrow(0, 0, batch),
    }
}

/// Puts the levels together from the config.
struct Levels<'a> {
    config: &'a UNet2DConditionConfig,
    time_channels: usize,
    /// How many cross-attention layers there are so far; they are built in the order in which
    /// they are passed.
    cross_attentions: Cell<usize>,
}

impl Levels<'_> {
    fn count(&self) -> usize {
        self.config.block_out_channels.len()
    }

    fn layers(&self, level: usize) -> usize {
        self.config.layers_per_block.at(level).unwrap_or(0)
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        ResnetConfig {
            inputs,
            outputs,
            time_channels: Some(self.time_channels),
            groups: self.config.norm_num_groups,
            eps: self.config.norm_eps,
            output_scale_factor: 1.0,
        }
    }

    /// The transformers of a level, of which there are `count`.
    fn transformer(&self, level: usize, count: usize) -> TransformerConfig {
        let config = self.config;
        let layers = config.transformer_layers_per_block.at(level).unwrap_or(1);
        let first_layer = self.cross_attentions.get();
        self.cross_attentions.set(first_layer + count * layers);
        TransformerConfig {
            channels: config.block_out_channels[level],
            heads: config.heads(level).unwrap_or(1),
            layers,
            first_layer,
            context: config.cross_attention_dim.at(level).unwrap_or(0),
            groups: config.norm_num_groups,
            only_cross_attention: config.only_cross_attention.at(level).unwrap_or(false),
            linear_projection: config.use_linear_projection,
            upcast_attention: config.upcast_attention.unwrap_or(false),
        }
    }

    /// The blocks, and the channels of every result that they leave for the way up.
    fn down(&self, pb: &ParamBuilder) -> Result<(Vec<DownBlock>, Vec<usize>)> {
        let channels = &self.config.block_out_channels;
        let mut skips = vec![channels[0]];
        let mut blocks = Vec::new();
        for (level, kind) in self.config.down_block_types.iter().enumerate() {
            let inputs = channels[level.saturating_sub(1)];
            let last = level + 1 == self.count();
            let layers = self.layers(level);
            let config = LevelConfig {
                layers,
                resnet: self.resnet(inputs, channels[level]),
                transformer: (*kind == DownBlockType::CrossAttnDownBlock2D)
                    .then(|| self.transformer(level, layers)),
            };
            let padding = (!last).then_some(self.config.downsample_padding);
            blocks.push(DownBlock::new(
                &config,
                padding,
                &pb.pp("down_blocks").pp(level),
            )?);
            skips.extend(vec![channels[level]; config.layers + usize::from(!last)]);
        }
        Ok((blocks, skips))
    }

    fn mid(&self, pb: &ParamBuilder) -> Result<MidBlock> {
        let level = self.count() - 1;
        let channels = self.config.block_out_channels[level];
        let config = LevelConfig {
            layers: 1,
            resnet: ResnetConfig {
                output_scale_factor: self.config.mid_block_scale_factor,
                ..self.resnet(channels, channels)
            },
            // The middle has self-attention even where `only_cross_attention` is true.
            transformer: Some(TransformerConfig {
                only_cross_attention: false,
                ..self.transformer(level, 1)
            }),
        };
        MidBlock::new(&config, &pb.pp("mid_block"))
    }

    fn up(&self, mut skips: Vec<usize>, pb: &ParamBuilder) -> Result<Vec<UpBlock>> {
        let channels = &self.config.block_out_channels;
        let mut blocks = Vec::new();
        let mut below = channels[self.count() - 1];
        for (index, kind) in self.config.up_block_types.iter().enumerate() {
            let level = self.count() - 1 - index;
            let layers = self.layers(level) + 1;
            let taken: Vec<usize> = (0..layers).filter_map(|_| skips.pop()).collect();
            let config = LevelConfig {
                layers,
                resnet: self.resnet(below, channels[level]),
                transformer: (*kind == UpBlockType::CrossAttnUpBlock2D)
                    .then(|| self.transformer(level, layers)),
            };
            let pb = pb.pp("up_blocks").pp(index);
            blocks.push(UpBlock::new(&config, &taken, level > 0, &pb)?);
            below = channels[level];
        }
        Ok(blocks)
    }
}
