//! The two halves of the autoencoder (`Encoder`, `Decoder`, `UNetMidBlock2D` in diffusers).

use burn::module::Module;
use burn::tensor::Tensor;

use super::config::VaeConfig;
use crate::error::Result;
use crate::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use crate::ops;
use crate::params::ParamBuilder;
use crate::resnet::{Downsample, ResnetBlock, ResnetConfig, Upsample, resnets};

/// Epsilon of the group norms; diffusers does not take it from the config.
const EPS: f64 = 1e-6;

/// Residual blocks without a time embedding: all of a level.
fn level(
    config: &VaeConfig,
    [inputs, outputs]: [usize; 2],
    count: usize,
    pb: &ParamBuilder,
) -> Result<Vec<ResnetBlock>> {
    let config = ResnetConfig {
        inputs,
        outputs,
        time_channels: None,
        groups: config.norm_num_groups,
        eps: EPS,
        output_scale_factor: 1.0,
    };
    resnets(config, count, pb)
}

/// Self-attention of pixels, one head.
#[derive(Module, Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl PixelAttention {
    fn new(channels: usize, groups: usize, pb: &ParamBuilder) -> Result<Self> {
        let linear = |name: &str| Linear::new(channels, channels, true, &pb.pp(name));
        Ok(Self {
            group_norm: GroupNorm::new(groups, channels, EPS, &pb.pp("group_norm"))?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let tokens = self
            .group_norm
            .forward(x.clone())
            .reshape([batch, channels, h * w])
            .swap_dims(1, 2);
        let head = |x: Tensor<3>| x.reshape([batch, 1, h * w, channels]);
        let attended = ops::attention(
            head(self.to_q.forward(tokens.clone())),
            head(self.to_k.forward(tokens.clone())),
            head(self.to_v.forward(tokens)),
            false,
            1.0 / (channels as f64).sqrt(),
        );
        let out = self
            .to_out
            .forward(attended.reshape([batch, h * w, channels]));
        ops::add(out.swap_dims(1, 2).reshape([batch, channels, h, w]), x)
    }
}

#[derive(Module, Debug)]
struct MidBlock {
    resnets: Vec<ResnetBlock>,
    attention: Option<PixelAttention>,
}

impl MidBlock {
    fn new(config: &VaeConfig, channels: usize, pb: &ParamBuilder) -> Result<Self> {
        let attention =
            || PixelAttention::new(channels, config.norm_num_groups, &pb.pp("attentions.0"));
        Ok(Self {
            resnets: level(config, [channels, channels], 2, pb)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnets[0].forward(x, None);
        let x = match &self.attention {
            Some(attention) => attention.forward(x),
            None => x,
        };
        self.resnets[1].forward(x, None)
    }
}

#[derive(Module, Debug)]
struct EncoderLevel {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Downsample>,
}

/// Images to moments of latents.
#[derive(Module, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<EncoderLevel>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mut down_blocks = Vec::new();
        for (index, outputs) in channels.iter().enumerate() {
            let pb = pb.pp("down_blocks").pp(index);
            let widths = [channels[index.saturating_sub(1)], *outputs];
            let resnets = level(config, widths, config.layers_per_block, &pb)?;
            let downsampler = (index + 1 < channels.len())
                .then(|| Downsample::new(*outputs, 0, &pb.pp("downsamplers.0")))
                .transpose()?;
            down_blocks.push(EncoderLevel {
                resnets,
                downsampler,
            });
        }
        let moments = Conv2dConfig::same(last, 2 * config.latent_channels, 3);
        Ok(Self {
            conv_in: Conv2d::new(
                Conv2dConfig::same(config.in_channels, first, 3),
                &pb.pp("conv_in"),
            )?,
            down_blocks,
            mid_block: MidBlock::new(config, last, &pb.pp("mid_block"))?,
            conv_norm_out: GroupNorm::new(
                config.norm_num_groups,
                last,
                EPS,
                &pb.pp("conv_norm_out"),
            )?,
            conv_out: Conv2d::new(moments, &pb.pp("conv_out"))?,
        })
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(x);
        for level in &self.down_blocks {
            x = level
                .resnets
                .iter()
                .fold(x, |x, resnet| resnet.forward(x, None));
            if let Some(downsampler) = &level.downsampler {
                x = downsampler.forward(x);
            }
        }
        self.conv_out
            .forward(self.conv_norm_out.forward_silu(self.mid_block.forward(x)))
    }
}

#[derive(Module, Debug)]
struct DecoderLevel {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Upsample>,
}

/// Latents to images.
#[derive(Module, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<DecoderLevel>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (lowest, highest) = (channels[0], channels[channels.len() - 1]);
        let mut up_blocks = Vec::new();
        for (index, outputs) in channels.iter().enumerate() {
            let pb = pb.pp("up_blocks").pp(index);
            let widths = [channels[index.saturating_sub(1)], *outputs];
            let resnets = level(config, widths, config.layers_per_block + 1, &pb)?;
            let upsampler = (index + 1 < channels.len())
                .then(|| Upsample::new(*outputs, &pb.pp("upsamplers.0")))
                .transpose()?;
            up_blocks.push(DecoderLevel { resnets, upsampler });
        }
        let latents = Conv2dConfig::same(config.latent_channels, lowest, 3);
        let pixels = Conv2dConfig::same(highest, config.out_channels, 3);
        Ok(Self {
            conv_in: Conv2d::new(latents, &pb.pp("conv_in"))?,
            mid_block: MidBlock::new(config, lowest, &pb.pp("mid_block"))?,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                config.norm_num_groups,
                highest,
                EPS,
                &pb.pp("conv_norm_out"),
            )?,
            conv_out: Conv2d::new(pixels, &pb.pp("conv_out"))?,
        })
    }

    pub(super) fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let mut x = self.mid_block.forward(self.conv_in.forward(z));
        for level in &self.up_blocks {
            x = level
                .resnets
                .iter()
                .fold(x, |x, resnet| resnet.forward(x, None));
            if let Some(upsampler) = &level.upsampler {
                x = upsampler.forward(x, None);
            }
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}
