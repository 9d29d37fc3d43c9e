//! The levels of the U-Net. A block without attention is one with no transformers.

use burn::module::Module;
use burn::tensor::Tensor;

use super::attention::{Collected, Maps, Transformer2D, TransformerConfig};
use super::fit_batch;
use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::ops::recompute;
use crate::params::ParamBuilder;
use crate::resnet::{Downsample, ResnetBlock, ResnetConfig, Upsample, resnets};

/// Inputs shared by all blocks of one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    /// The time embedding after SiLU, [batch, channels].
    pub(crate) time: &'a Tensor<2>,
    /// What the cross-attention layers read.
    pub(crate) prompt: &'a Conditioning,
    /// Whether the parts of a level are computed again in the backward pass.
    pub(crate) recompute: bool,
}

impl Step<'_> {
    /// A residual block.
    fn resnet(self, part: &ResnetBlock, x: Tensor<4>) -> Tensor<4> {
        if !self.recompute {
            return part.forward(x, Some(self.time));
        }
        let outputs = recompute(part, x, self.time.clone(), |part, x, time| {
            vec![part.forward(x, Some(&time))]
        });
        outputs.into_iter().next().expect("one output")
    }

    /// A transformer.
    fn attention(self, part: &Transformer2D, x: Tensor<4>, maps: Maps) -> Tensor<4> {
        if !self.recompute {
            return part.forward(x, self.prompt, maps);
        }
        let wanted = maps.is_some();
        let mut outputs = match self.prompt.shared() {
            Some(states) => recompute_attention(part, x, states.clone(), wanted),
            None => {
                let (first, count) = part.cross_attentions();
                recompute_attention(part, x, self.prompt.stacked(first, count), wanted)
            }
        };
        let x = outputs.remove(0);
        if let Some(maps) = maps {
            maps.extend(outputs);
        }
        x
    }
}

/// A transformer's output and, if wanted, its maps, of which nothing is kept for the backward
/// pass.
fn recompute_attention<const D: usize>(
    part: &Transformer2D,
    x: Tensor<4>,
    states: Tensor<D>,
    maps_wanted: bool,
) -> Vec<Tensor<4>>
where
    Tensor<D>: AsConditioning,
{
    if !maps_wanted {
        return recompute(part, x, states, |part, x, states| {
            vec![part.forward(x, &states.of_part(part), None)]
        });
    }
    recompute(part, x, states, |part, x, states| {
        let mut collected = Collected::default();
        let x = part.forward(x, &states.of_part(part), Some(&mut collected));
        collected.maps.insert(0, x);
        collected.maps
    })
}

/// The one tensor that holds all that a transformer reads of the prompts.
trait AsConditioning {
    /// What the transformer reads.
    fn of_part(self, part: &Transformer2D) -> Conditioning;
}

impl AsConditioning for Tensor<3> {
    fn of_part(self, _: &Transformer2D) -> Conditioning {
        self.into()
    }
}

impl AsConditioning for Tensor<4> {
    fn of_part(self, part: &Transformer2D) -> Conditioning {
        Conditioning::unstacked(self, part.cross_attentions().0)
    }
}

/// The sizes of a level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LevelConfig {
    /// Residual blocks.
    pub(crate) layers: usize,
    /// The residual block, with the level's first number of input channels.
    pub(crate) resnet: ResnetConfig,
    /// The transformers, where the level has them.
    pub(crate) transformer: Option<TransformerConfig>,
}

fn transformers(config: &LevelConfig, pb: &ParamBuilder) -> Result<Vec<Transformer2D>> {
    let Some(transformer) = &config.transformer else {
        return Ok(Vec::new());
    };
    let attentions = pb.pp("attentions");
    (0..config.layers)
        .map(|i| {
            let config = TransformerConfig {
                first_layer: transformer.first_layer + i * transformer.layers,
                ..*transformer
            };
            Transformer2D::new(&config, &attentions.pp(i))
        })
        .collect()
}

/// `DownBlock2D` and `CrossAttnDownBlock2D`.
#[derive(Module, Debug)]
pub(crate) struct DownBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer2D>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    pub(crate) fn attentions_mut(&mut self) -> &mut [Transformer2D] {
        &mut self.attentions
    }

    pub(crate) fn new(
        config: &LevelConfig,
        downsample_padding: Option<usize>,
        pb: &ParamBuilder,
    ) -> Result<Self> {
        let outputs = config.resnet.outputs;
        Ok(Self {
            resnets: resnets(config.resnet, config.layers, pb)?,
            attentions: transformers(config, pb)?,
            downsampler: downsample_padding
                .map(|padding| Downsample::new(outputs, padding, &pb.pp("downsamplers.0")))
                .transpose()?,
        })
    }

    /// The result; every intermediate one is pushed to `skips`.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        step: Step,
        skips: &mut Vec<Tensor<4>>,
        mut maps: Maps,
    ) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = step.resnet(resnet, x);
            if let Some(attention) = self.attentions.get(index) {
                x = step.attention(attention, x, maps.as_deref_mut());
            }
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(x);
            skips.push(x.clone());
        }
        x
    }
}

/// `UNetMidBlock2DCrossAttn`: residual block, transformer, residual block.
#[derive(Module, Debug)]
pub(crate) struct MidBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer2D>,
}

impl MidBlock {
    pub(crate) fn attentions_mut(&mut self) -> &mut [Transformer2D] {
        &mut self.attentions
    }

    pub(crate) fn new(config: &LevelConfig, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            resnets: resnets(config.resnet, config.layers + 1, pb)?,
            attentions: transformers(config, pb)?,
        })
    }

    pub(crate) fn forward(&self, mut x: Tensor<4>, step: Step, mut maps: Maps) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = step.resnet(resnet, x);
            if let Some(attention) = self.attentions.get(index) {
                x = step.attention(attention, x, maps.as_deref_mut());
            }
        }
        x
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`.
#[derive(Module, Debug)]
pub(crate) struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer2D>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    pub(crate) fn attentions_mut(&mut self) -> &mut [Transformer2D] {
        &mut self.attentions
    }

    /// `skip_channels` are those of the results that the way down left for this level, in the order
    /// in which they are taken.
    pub(crate) fn new(
        config: &LevelConfig,
        skip_channels: &[usize],
        upsample: bool,
        pb: &ParamBuilder,
    ) -> Result<Self> {
        let outputs = config.resnet.outputs;
        let resnets = skip_channels
            .iter()
            .enumerate()
            .map(|(i, skip)| {
                let below = if i == 0 {
                    config.resnet.inputs
                } else {
                    outputs
                };
                let resnet = ResnetConfig {
                    inputs: below + skip,
                    ..config.resnet
                };
                ResnetBlock::new(resnet, &pb.pp("resnets").pp(i))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            resnets,
            attentions: transformers(config, pb)?,
            upsampler: upsample
                .then(|| Upsample::new(outputs, &pb.pp("upsamplers.0")))
                .transpose()?,
        })
    }

    /// Whether it has cross-attention.
    pub(crate) fn attends(&self) -> bool {
        !self.attentions.is_empty()
    }

    /// The result, brought to the size of the next result that the way down left; of the first
    /// `kept` entries of the batch alone, where that is said, and unfinished if that is none.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        step: Step,
        skips: &mut Vec<Tensor<4>>,
        mut maps: Maps,
        kept: Option<usize>,
    ) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            if let Some(skip) = skips.pop() {
                let skip = fit_batch(skip, x.dims()[0]);
                x = Tensor::cat(vec![x, skip], 1);
            }
            x = step.resnet(resnet, x);
            if let Some(attention) = self.attentions.get(index) {
                x = step.attention(attention, x, maps.as_deref_mut());
            }
        }
        match kept {
            Some(0) => return x,
            Some(kept) => x = fit_batch(x, kept),
            None => {}
        }
        match &self.upsampler {
            Some(upsampler) => {
                let size = skips.last().map(|skip| [skip.dims()[2], skip.dims()[3]]);
                upsampler.forward(x, size)
            }
            None => x,
        }
    }
}
