//! The autoencoder of Stable Diffusion, `AutoencoderKL` in diffusers.

mod coders;
mod config;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Tensor};

pub use config::{DownBlockType, UpBlockType, VaeConfig};

use crate::error::{Error, Result};
use crate::network::{Class, Network};
use crate::nn::{Conv2d, Conv2dConfig};
use crate::ops;
use crate::params::{ParamBuilder, ParamNames};
use coders::{Decoder, Encoder};

/// The logarithm of the variance is kept inside these bounds.
const LOGVAR: (f64, f64) = (-30.0, 20.0);

/// The normal distribution of latents that an image stands for.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    /// [batch, latent channels, h, w], not scaled by `scaling_factor`.
    pub mean: Tensor<4>,
    /// Logarithm of the variance, same shape, between -30 and 20.
    pub logvar: Tensor<4>,
}

impl LatentDistribution {
    /// Mean and standard deviation, each times `factor`, off the tape.
    pub fn scaled(&self, factor: f64) -> [Tensor<4>; 2] {
        let deviation = (self.logvar.clone().inner() * 0.5).exp();
        [self.mean.clone().inner(), deviation].map(|moment| moment * factor)
    }

    /// `mean + std * noise`.
    pub fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        self.mean.clone() + (self.logvar.clone() * 0.5).exp() * noise
    }
}

/// Images to latents and back.
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: VaeConfig,
    /// The format inside; latents and images are in float32.
    #[module(skip)]
    format: DType,
    #[module(skip)]
    names: ParamNames,
}

impl Network for AutoencoderKl {
    type Config = VaeConfig;

    fn class(_config: &VaeConfig) -> Class {
        Class::Diffusers("AutoencoderKL")
    }

    fn read_config(path: &Path) -> Result<VaeConfig> {
        VaeConfig::from_file(path)
    }

    fn new(config: &VaeConfig, pb: &ParamBuilder) -> Result<Self> {
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
            format: pb.computes_in(),
            names: pb.finish()?,
        })
    }

    fn config(&self) -> &VaeConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl AutoencoderKl {
    /// The same network with another `scaling_factor`, which pretraining measures at its end.
    #[must_use]
    pub fn with_scaling_factor(mut self, scaling_factor: f64) -> Self {
        self.config.scaling_factor = scaling_factor;
        self
    }

    /// The latents of images [batch, 3, height, width] in [-1, 1].
    pub fn encode(&self, pixels: Tensor<4>) -> LatentDistribution {
        let mut moments = self.encoder.forward(ops::cast(pixels, self.format));
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(moments);
        }
        let moments = ops::cast(moments, DType::F32);
        let z = self.config.latent_channels;
        LatentDistribution {
            mean: moments.clone().narrow(1, 0, z),
            logvar: moments.narrow(1, z, z).clamp(LOGVAR.0, LOGVAR.1),
        }
    }

    /// The images [batch, 3, height, width], about in [-1, 1], of latents that are not scaled.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let latents = ops::cast(latents, self.format);
        let latents = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        ops::cast(self.decoder.forward(latents), DType::F32)
    }
}
