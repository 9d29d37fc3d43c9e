//! The autoencoder of Stable Diffusion, `AutoencoderKL` in diffusers.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Precision, canonical, save_module};
use crate::config::{read_config, read_object, write_config};
use crate::error::{Error, Result};
use crate::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use crate::ops;
use crate::params::{ParamBuilder, ParamNames};
use crate::resnet::{Downsample, ResnetBlock, ResnetConfig, Upsample};
use crate::unet::config::check_fixed;

/// Epsilon of the group norms; diffusers does not take it from the config.
const EPS: f64 = 1e-6;

/// The logarithm of the variance is kept inside these bounds.
const LOGVAR: (f64, f64) = (-30.0, 20.0);

/// The file that diffusers keeps the weights in.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Keys that would change the computation, and the only value that this project honours.
const FIXED: [(&str, &str); 3] = [
    ("act_fn", "\"silu\""),
    ("shift_factor", "null"),
    ("latents_mean", "null"),
];

/// The one kind of level on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks.
    DownEncoderBlock2D,
}

/// The one kind of level on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks.
    UpDecoderBlock2D,
}

/// `config.json` of an `AutoencoderKL`; absent keys take that class's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Levels of the encoder.
    pub down_block_types: Vec<DownBlockType>,
    /// Levels of the decoder.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of every level, from the highest resolution down.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of every level; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Side of the pictures that the model was trained on.
    pub sample_size: usize,
    /// Latents times this have unit variance.
    pub scaling_factor: f64,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the lowest level has self-attention.
    pub mid_block_add_attention: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DownBlockType::DownEncoderBlock2D],
            up_block_types: vec![UpBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl VaeConfig {
    /// How many pixels a latent is wide.
    pub fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    fn check(&self) -> Result<(), (&'static str, String, String)> {
        let levels = self.block_out_channels.len();
        if levels == 0 {
            return Err((
                "block_out_channels",
                "empty".into(),
                "at least one level".into(),
            ));
        }
        for (key, count) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            if count != levels {
                return Err((key, format!("{count} long"), format!("{levels} entries")));
            }
        }
        let groups = self.norm_num_groups;
        for channels in &self.block_out_channels {
            if groups == 0 || !channels.is_multiple_of(groups) {
                let expected = format!("multiples of norm_num_groups, {groups}");
                return Err(("block_out_channels", channels.to_string(), expected));
            }
        }
        Ok(())
    }

    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetConfig {
        ResnetConfig {
            inputs,
            outputs,
            time_channels: None,
            groups: self.norm_num_groups,
            eps: EPS,
        }
    }
}

/// The normal distribution of latents that a picture stands for.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    /// [batch, latent channels, h, w], not scaled by `scaling_factor`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, same shape, between -30 and 20.
    pub logvar: Tensor<4>,
}

impl LatentDistribution {
    /// `mean + std * noise`.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + (self.logvar.clone() * 0.5).exp() * noise
    }
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
        out.swap_dims(1, 2).reshape([batch, channels, h, w]) + x
    }
}

#[derive(Module, Debug)]
struct MidBlock {
    resnets: Vec<ResnetBlock>,
    attention: Option<PixelAttention>,
}

impl MidBlock {
    fn new(config: &VaeConfig, channels: usize, pb: &ParamBuilder) -> Result<Self> {
        let resnets = (0..2)
            .map(|i| ResnetBlock::new(config.resnet(channels, channels), &pb.pp("resnets").pp(i)))
            .collect::<Result<_>>()?;
        let attention =
            || PixelAttention::new(channels, config.norm_num_groups, &pb.pp("attentions.0"));
        Ok(Self {
            resnets,
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

#[derive(Module, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<EncoderLevel>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let mut down_blocks = Vec::new();
        for (level, outputs) in channels.iter().enumerate() {
            let pb = pb.pp("down_blocks").pp(level);
            let resnets = (0..config.layers_per_block)
                .map(|i| {
                    let inputs = if i == 0 {
                        channels[level.saturating_sub(1)]
                    } else {
                        *outputs
                    };
                    ResnetBlock::new(config.resnet(inputs, *outputs), &pb.pp("resnets").pp(i))
                })
                .collect::<Result<_>>()?;
            let downsampler = (level + 1 < channels.len())
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

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
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

#[derive(Module, Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<DecoderLevel>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (lowest, highest) = (channels[0], channels[channels.len() - 1]);
        let mut up_blocks = Vec::new();
        for (level, outputs) in channels.iter().enumerate() {
            let pb = pb.pp("up_blocks").pp(level);
            let resnets = (0..config.layers_per_block + 1)
                .map(|i| {
                    let inputs = if i == 0 {
                        channels[level.saturating_sub(1)]
                    } else {
                        *outputs
                    };
                    ResnetBlock::new(config.resnet(inputs, *outputs), &pb.pp("resnets").pp(i))
                })
                .collect::<Result<_>>()?;
            let upsampler = (level + 1 < channels.len())
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

    fn forward(&self, z: Tensor<4>) -> Tensor<4> {
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

/// Pictures to latents and back.
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: VaeConfig,
    #[module(skip)]
    names: ParamNames,
}

impl AutoencoderKl {
    /// Reads a `vae` folder.
    ///
    /// # Errors
    /// An absent or damaged file, an unsupported config, tensors that do not fit it.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        check_fixed(&path, &read_object(&path)?, &FIXED)?;
        let config: VaeConfig = read_config(&path)?;
        let file = Checkpoint::open(&folder.join(WEIGHTS), canonical)?;
        Self::new(&config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// A fresh network.
    ///
    /// # Errors
    /// Impossible sizes.
    pub fn init(config: &VaeConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::new(config, &ParamBuilder::random(seed, device))
    }

    /// A network below `pb`.
    ///
    /// # Errors
    /// Impossible sizes, tensors that do not fit the config.
    pub fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
        config.check().map_err(|(key, value, expected)| {
            Error::Invalid(format!(
                "autoencoder: `{key}` is {value}, expected {expected}"
            ))
        })?;
        let z = config.latent_channels;
        let pointwise = |channels: usize, name: &str| {
            Conv2d::new(Conv2dConfig::same(channels, channels, 1), &pb.pp(name))
        };
        Ok(Self {
            encoder: Encoder::new(config, &pb.pp("encoder"))?,
            decoder: Decoder::new(config, &pb.pp("decoder"))?,
            quant_conv: config
                .use_quant_conv
                .then(|| pointwise(2 * z, "quant_conv"))
                .transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| pointwise(z, "post_quant_conv"))
                .transpose()?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    /// Writes `config.json` and weights as diffusers does.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn save(&self, folder: &Path, precision: Precision) -> Result<()> {
        write_config(
            &folder.join("config.json"),
            "AutoencoderKL",
            None,
            &self.config,
        )?;
        save_module(&folder.join(WEIGHTS), self, &self.names, precision)
    }

    /// The facts of the checkpoint.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The same network with another `scaling_factor`, which pretraining measures at its end.
    #[must_use]
    pub fn with_scaling_factor(mut self, scaling_factor: f64) -> Self {
        self.config.scaling_factor = scaling_factor;
        self
    }

    /// The key of every parameter.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The latents of pictures [batch, 3, height, width] in [-1, 1].
    pub fn encode(&self, pixels: Tensor<4>) -> LatentDistribution {
        let mut moments = self.encoder.forward(pixels);
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(moments);
        }
        let z = self.config.latent_channels;
        LatentDistribution {
            mean: moments.clone().narrow(1, 0, z),
            logvar: moments.narrow(1, z, z).clamp(LOGVAR.0, LOGVAR.1),
        }
    }

    /// The pictures [batch, 3, height, width], about in [-1, 1], of latents that are not scaled.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let latents = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        self.decoder.forward(latents)
    }
}
