//! The pattern classifier of the mini world: it tells which markings a thing has, which no caption says. It shows
//! whether what was learned from photos is more than words, and is never used in scores.

use std::path::PathBuf;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::network::{Class, Network};
use core_model::nn::{Conv2d, Conv2dConfig, GroupNorm};
use core_model::params::{ParamBuilder, ParamNames, to_vec};
use core_model::{Precision, error};
use serde::{Deserialize, Serialize};

use super::contrast::cross_entropy;
use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{PatternedScenes, Scenes, Split, pixels};
use crate::world::{Pattern, SIDE};

/// The patterns, and the background.
const CLASSES: usize = Pattern::ALL.len() + 1;

/// Groups of the group norms.
const GROUPS: usize = 8;

/// Epsilon of the group norms.
const EPS: f64 = 1e-6;

/// Held-out scenes for the learning curve.
const HELD_OUT: usize = 1024;

/// Held-out scenes per forward pass.
const BATCH: usize = 64;

/// `config.json` of a [`PatternClassifier`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternClassifierConfig {
    /// Channels of every level; each level after the first halves height and width. Multiples of 8.
    pub block_out_channels: Vec<usize>,
}

/// Two convolutions, of which the first halves height and width except in the first level.
#[derive(Module, Debug)]
struct Level {
    conv1: Conv2d,
    norm1: GroupNorm,
    conv2: Conv2d,
    norm2: GroupNorm,
}

impl Level {
    fn new(inputs: usize, outputs: usize, stride: usize, pb: &ParamBuilder) -> error::Result<Self> {
        let first = Conv2dConfig {
            stride,
            ..Conv2dConfig::same(inputs, outputs, 3)
        };
        let norm = |name: &str| GroupNorm::new(GROUPS, outputs, EPS, &pb.pp(name));
        Ok(Self {
            conv1: Conv2d::new(first, &pb.pp("conv1"))?,
            norm1: norm("norm1")?,
            conv2: Conv2d::new(Conv2dConfig::same(outputs, outputs, 3), &pb.pp("conv2"))?,
            norm2: norm("norm2")?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm1.forward_silu(self.conv1.forward(x));
        self.norm2.forward_silu(self.conv2.forward(x.clone())) + x
    }
}

/// A convolutional network that says for every cell of an image which pattern the thing there has, or that there is no
/// thing.
#[derive(Module, Debug)]
pub struct PatternClassifier {
    levels: Vec<Level>,
    head: Conv2d,
    #[module(skip)]
    config: PatternClassifierConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Network for PatternClassifier {
    type Config = PatternClassifierConfig;

    fn class(_config: &PatternClassifierConfig) -> Class {
        Class::Diffusers("PatternClassifier")
    }

    fn new(config: &PatternClassifierConfig, pb: &ParamBuilder) -> error::Result<Self> {
        let channels = &config.block_out_channels;
        let mut levels = Vec::with_capacity(channels.len());
        for (index, outputs) in channels.iter().enumerate() {
            let (inputs, stride) = match index {
                0 => (3, 1),
                _ => (channels[index - 1], 2),
            };
            let pb = pb.pp("levels").pp(index);
            levels.push(Level::new(inputs, *outputs, stride, &pb)?);
        }
        let last = channels.last().copied().unwrap_or(3);
        Ok(Self {
            levels,
            head: Conv2d::new(Conv2dConfig::same(last, CLASSES, 1), &pb.pp("head"))?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    fn config(&self) -> &PatternClassifierConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl PatternClassifier {
    /// Pixels [batch, 3, side, side] in [-1, 1] to logits [batch, cells, classes]: the patterns in the order of
    /// [`Pattern::ALL`], then the background. A cell is a pixel of the last level.
    fn cells(&self, pixels: Tensor<4>) -> Tensor<3> {
        let x = self.levels.iter().fold(pixels, |x, level| level.forward(x));
        let logits = self.head.forward(x);
        let [batch, classes, height, width] = logits.dims();
        logits
            .reshape([batch, classes, height * width])
            .swap_dims(1, 2)
    }

    /// Pixels [batch, 3, side, side] in [-1, 1] to the share of each pattern in what shows a thing,
    /// [batch, patterns].
    fn shares(&self, pixels: Tensor<4>) -> Tensor<2> {
        let cells = softmax(self.cells(pixels), 2);
        let [batch, ..] = cells.dims();
        let patterns = Pattern::ALL.len();
        let each = cells.sum_dim(1).narrow(2, 0, patterns);
        let each = each.reshape([batch, patterns]);
        each.clone() / each.sum_dim(1)
    }

    /// The pattern with the largest share of every image, and that share.
    pub fn patterns(&self, pixels: Tensor<4>) -> Vec<(Pattern, f32)> {
        let (shares, found) = self.shares(pixels).max_dim_with_indices(1);
        let found = to_vec(found.float()).into_iter();
        let found = found.map(|index| Pattern::ALL[index as usize]);
        found.zip(to_vec(shares)).collect()
    }
}

/// `[pattern]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternTask {
    /// The folder to write `config.json` and weights to.
    pub output: PathBuf,
    /// The sizes of the network, as in its `config.json`.
    pub architecture: PatternClassifierConfig,
}

/// Cross-entropy of every cell with the true pattern where the mask covers at least half of it, else with the background.
#[derive(Debug)]
pub(super) struct PatternObjective<'a> {
    /// The task.
    pub task: &'a PatternTask,
    /// Seed of the weights and the scenes.
    pub seed: u64,
    /// Scenes per step.
    pub batch_size: usize,
    /// The device.
    pub device: &'a Device,
}

impl Objective for PatternObjective<'_> {
    type Network = PatternClassifier;
    type Batch = PatternedScenes;

    fn fresh(&self, device: &Device) -> Result<PatternClassifier> {
        let architecture = &self.task.architecture;
        Ok(PatternClassifier::init(architecture, self.seed, device)?)
    }

    fn stored(&self, device: &Device) -> Result<Option<PatternClassifier>> {
        stored(&self.task.output, device)
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &PatternClassifier) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Self::Batch + Send> {
        let scenes = Scenes::new(self.seed, Split::Training, "pattern scene");
        let batch_size = self.batch_size;
        Box::new(move |step| scenes.patterned(step, batch_size))
    }

    fn loss(&self, network: &PatternClassifier, batch: PatternedScenes, _step: u64) -> Tensor<1> {
        let logits = network.cells(pixels(batch.pixels, self.device));
        let [size, cells, classes] = logits.dims();
        let row = cells.isqrt();
        let factor = SIDE as usize / row;
        let masks = TensorData::new(batch.masks, [size, row, factor, row, factor]);
        let covered = Tensor::<5>::from_data(masks, self.device).mean_dims(&[2, 4]);
        let covered = to_vec(covered);
        let answers = batch.patterns.iter().zip(covered.chunks(cells));
        let answers = answers.flat_map(|(pattern, covered)| {
            covered.iter().map(|share| match *share >= 0.5 {
                true => pattern.index() as i64,
                false => Pattern::ALL.len() as i64,
            })
        });
        let logits = logits.reshape([size * cells, classes]);
        cross_entropy(logits, answers.collect(), self.device)
    }

    fn compared(&self, network: &PatternClassifier) -> Result<Quality> {
        let mut quality = self.evaluate(network)?;
        quality.truncate(1);
        Ok(quality)
    }

    /// `right`: the share of scenes whose pattern has the largest share; then the same for each pattern.
    fn evaluate(&self, network: &PatternClassifier) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "pattern held-out scene");
        let mut right = vec![0.0; Pattern::ALL.len()];
        let mut asked = vec![0.0; Pattern::ALL.len()];
        for batch in 0..(HELD_OUT / BATCH) as u64 {
            let batch = scenes.patterned(batch, BATCH);
            let found = network.patterns(pixels(batch.pixels, self.device));
            for ((found, _), pattern) in found.into_iter().zip(batch.patterns) {
                asked[pattern.index()] += 1.0;
                right[pattern.index()] += f64::from(found == pattern);
            }
        }
        let all = right.iter().sum::<f64>() / asked.iter().sum::<f64>();
        let each = Pattern::ALL.iter().map(|pattern| {
            let index = pattern.index();
            (pattern.word().to_string(), right[index] / asked[index])
        });
        Ok(std::iter::once(("right".into(), all)).chain(each).collect())
    }

    fn save(&self, network: &PatternClassifier, place: Place<'_>) -> Result<()> {
        network.save(&place(&self.task.output), Precision::Float16)?;
        Ok(())
    }
}
