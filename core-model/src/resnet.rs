//! The residual block, down- and upsampling that the U-Net and the autoencoder share
//! (`ResnetBlock2D`, `Downsample2D`, `Upsample2D` in diffusers).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

use crate::error::Result;
use crate::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear};
use crate::ops;
use crate::params::ParamBuilder;
use crate::unet::fit_batch;

/// The sizes of a residual block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetConfig {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Channels of the time embedding; the autoencoder has none.
    pub(crate) time_channels: Option<usize>,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// What the sum of both ways is divided by.
    pub(crate) output_scale_factor: f64,
}

/// The residual blocks of a level below `pb`: the first reads `config.inputs` channels, the others
/// what the one before them gives.
///
/// # Errors
/// A missing or misshapen tensor.
pub(crate) fn resnets(
    config: ResnetConfig,
    count: usize,
    pb: &ParamBuilder,
) -> Result<Vec<ResnetBlock>> {
    let block = |index: usize| {
        let inputs = match index {
            0 => config.inputs,
            _ => config.outputs,
        };
        let config = ResnetConfig { inputs, ..config };
        ResnetBlock::new(config, &pb.pp("resnets").pp(index))
    };
    (0..count).map(block).collect()
}

/// Two normed convolutions beside a shortcut.
#[derive(Module, Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    output_scale_factor: f64,
}

impl ResnetBlock {
    pub(crate) fn new(config: ResnetConfig, pb: &ParamBuilder) -> Result<Self> {
        let ResnetConfig {
            inputs,
            outputs,
            time_channels,
            groups,
            eps,
            output_scale_factor,
        } = config;
        let shortcut = || {
            Conv2d::new(
                Conv2dConfig::same(inputs, outputs, 1),
                &pb.pp("conv_shortcut"),
            )
        };
        Ok(Self {
            norm1: GroupNorm::new(groups, inputs, eps, &pb.pp("norm1"))?,
            conv1: Conv2d::new(Conv2dConfig::same(inputs, outputs, 3), &pb.pp("conv1"))?,
            time_emb_proj: time_channels
                .map(|channels| Linear::new(channels, outputs, true, &pb.pp("time_emb_proj")))
                .transpose()?,
            norm2: GroupNorm::new(groups, outputs, eps, &pb.pp("norm2"))?,
            conv2: Conv2d::new(Conv2dConfig::same(outputs, outputs, 3), &pb.pp("conv2"))?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
            output_scale_factor,
        })
    }

    /// `x` [batch, in, h, w]; `time` [batch, channels] already through SiLU, or fewer of them that
    /// are repeated for the batch.
    pub(crate) fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(project), Some(time)) = (&self.time_emb_proj, time) {
            let [batch, channels, ..] = h.dims();
            let time = fit_batch(project.forward(time.clone()), batch);
            h = h + time.reshape([batch, channels, 1, 1]);
        }
        let h = self.conv2.forward(self.norm2.forward_silu(h));
        let x = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        let sum = ops::add(x, h);
        if self.output_scale_factor == 1.0 {
            sum
        } else {
            sum / self.output_scale_factor
        }
    }
}

/// Halves height and width.
#[derive(Module, Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// `padding` 1 on all sides as the U-Net, or 0: then one row and column of zeros at bottom and
    /// right, as the autoencoder.
    pub(crate) fn new(channels: usize, padding: usize, pb: &ParamBuilder) -> Result<Self> {
        let config = Conv2dConfig {
            inputs: channels,
            outputs: channels,
            kernel: 3,
            stride: 2,
            padding: if padding == 0 {
                [0, 0, 1, 1]
            } else {
                [padding; 4]
            },
            bias: true,
        };
        Ok(Self {
            conv: Conv2d::new(config, &pb.pp("conv"))?,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
}

/// Doubles height and width, or brings them to a given size.
#[derive(Module, Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(channels: usize, pb: &ParamBuilder) -> Result<Self> {
        let conv = Conv2d::new(Conv2dConfig::same(channels, channels, 3), &pb.pp("conv"))?;
        Ok(Self { conv })
    }

    pub(crate) fn forward(&self, x: Tensor<4>, size: Option<[usize; 2]>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let x = match size {
            Some(size) if size != [2 * h, 2 * w] => {
                let options =
                    InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
                interpolate(x, options)
            }
            _ => ops::upsample_nearest_2x(x),
        };
        self.conv.forward(x)
    }
}
