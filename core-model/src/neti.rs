//! The mapper of NeTI (Alaluf et al. 2023): the concept has another input embedding at every timestep
//! and for every cross-attention layer, and what a layer makes its values of may bypass the text
//! encoder.
//!
//! | key | shape | |
//! |---|---|---|
//! | `neti.encoder.w` | [frequencies, 2] | of timestep and layer; never trained |
//! | `neti.input_layer.{weight,bias}` | [anchors, 2 frequencies] | begins as the features of the anchors |
//! | `neti.net.1`, `neti.net.4` | [hidden, ..] | linear layers |
//! | `neti.net.2`, `neti.net.5` | `[hidden]` | their layer norms |
//! | `neti.output_layer.0` | [2 channels, hidden] | embedding and bypass |

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::checkpoint::{Checkpoint, save_tensors};
use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::nn::{LayerNorm, Linear};
use crate::params::{Init, ParamBuilder, ParamNames};
use crate::precision::Precision;
use crate::text_encoder::TextEncoder;

/// Timesteps of the noise schedule over which the anchors of the first layer are spread.
const TIMESTEPS: usize = 1000;

/// The slope of the activation below zero.
const SLOPE: f64 = 0.01;

/// The epsilon of the layer norms.
const EPS: f64 = 1e-5;

/// What begins the name of every tensor.
pub const PREFIX: &str = "neti.";

/// The name of the frequencies, which are never trained.
pub const FREQUENCIES: &str = "neti.encoder.w";

/// The sizes and constants of a mapper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetiConfig {
    /// Units of the hidden layers.
    pub hidden: usize,
    /// Frequencies by which timestep and layer are encoded.
    pub frequencies: usize,
    /// Timesteps at which the units of the first layer begin; there are so many for every layer.
    pub time_anchors: usize,
    /// The strength of the bypass; absent where keys and values are made of the same states.
    pub bypass: Option<f64>,
    /// Cross-attention layers of the U-Net.
    pub layers: usize,
    /// Channels of the text encoder.
    pub channels: usize,
    /// The norm of embedding and bypass together.
    pub target_norm: f32,
}

/// Timestep and layer to an input embedding of the concept and a bypass.
#[derive(Module, Debug)]
pub struct NetiMapper {
    frequencies: Param<Tensor<2>>,
    input_layer: Linear,
    first: Linear,
    first_norm: LayerNorm,
    second: Linear,
    second_norm: LayerNorm,
    output_layer: Linear,
    #[module(skip)]
    config: NetiConfig,
    /// Hidden units that are kept where a call says nothing else; all when absent.
    #[module(skip)]
    truncation: Option<usize>,
    #[module(skip)]
    names: ParamNames,
}

/// What a mapper gives for some timesteps and all layers, [layers x timesteps, channels] each, the
/// timesteps of the first layer first.
#[derive(Debug)]
pub struct Mapped {
    /// Input embeddings of the concept.
    pub embedding: Tensor<2>,
    /// What is added to hidden states of which values are made.
    pub bypass: Tensor<2>,
}

impl NetiMapper {
    /// A mapper before training. `sigmas` are the standard deviations of the frequencies of the
    /// timestep and of the layer; every parameter is a function of `seed` and its own key.
    ///
    /// # Errors
    /// None for a fresh mapper.
    pub fn random(
        config: NetiConfig,
        sigmas: [f64; 2],
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let mut mapper = Self::new(config, &ParamBuilder::random(seed, device))?;
        let [of_timestep, of_layer] = sigmas.map(|sigma| sigma as f32);
        let sigmas = Tensor::<2>::from_floats([[of_timestep, of_layer]], device);
        mapper.frequencies = mapper.frequencies.map(|normal| normal * sigmas);
        let step = TIMESTEPS / config.time_anchors;
        let timesteps: Vec<f32> = (0..config.time_anchors)
            .map(|k| (k * step) as f32)
            .collect();
        let layers = config.layers;
        let anchors = timesteps
            .iter()
            .flat_map(|timestep| (0..layers).map(move |layer| [*timestep, layer as f32]));
        let anchors = mapper.features(anchors.collect());
        mapper.input_layer.weight = mapper.input_layer.weight.map(|_| anchors);
        Ok(mapper)
    }

    fn new(config: NetiConfig, pb: &ParamBuilder) -> Result<Self> {
        let NetiConfig {
            hidden,
            frequencies,
            ..
        } = config;
        let anchors = config.time_anchors * config.layers;
        let start = pb.clone();
        let pb = start.pp("neti");
        let linear = |name: &str, inputs, outputs| Linear::new(inputs, outputs, true, &pb.pp(name));
        let norm = |name: &str| LayerNorm::new(hidden, EPS, &pb.pp(name));
        Ok(Self {
            frequencies: pb.get("encoder.w", [frequencies, 2], Init::Normal(1.0))?,
            input_layer: linear("input_layer", 2 * frequencies, anchors)?,
            first: linear("net.1", anchors, hidden)?,
            first_norm: norm("net.2")?,
            second: linear("net.4", hidden, hidden)?,
            second_norm: norm("net.5")?,
            output_layer: linear("output_layer.0", hidden, 2 * config.channels)?,
            config,
            truncation: None,
            names: start.finish()?,
        })
    }

    /// Reads a file that [`save`](Self::save) wrote, for a text encoder of so many `channels` and a
    /// U-Net of so many cross-attention `layers`.
    ///
    /// # Errors
    /// A damaged file, one of another model.
    pub fn load(path: &Path, channels: usize, layers: usize, device: &Device) -> Result<Self> {
        let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
        let rows = |key: &str| match file.info(key).map(|info| info.shape.as_slice()) {
            Some([rows, ..]) => Ok(*rows),
            _ => {
                let reason = format!("has no `{key}`; expected the mapper of a `neti` run");
                Err(Error::format(path, reason))
            }
        };
        let target_norm = number(&file, "target_norm")?;
        let config = NetiConfig {
            hidden: rows("neti.net.1.weight")?,
            frequencies: rows(FREQUENCIES)?,
            time_anchors: number(&file, "time_anchors")?,
            bypass: match file.metadata().get("bypass").map(String::as_str) {
                Some("false") => None,
                _ => Some(number(&file, "bypass")?),
            },
            layers: number(&file, "layers")?,
            channels: rows("neti.output_layer.0.weight")? / 2,
            target_norm,
        };
        for (what, found, expected) in [
            ("channels of the text encoder", config.channels, channels),
            ("cross-attention layers", config.layers, layers),
        ] {
            if found != expected {
                let reason = format!(
                    "was learned with {found} {what}, but this model has {expected}; it belongs to \
                     another base model"
                );
                return Err(Error::format(path, reason));
            }
        }
        Self::new(config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// Writes a safetensors file; its metadata holds the constants, and `metadata`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        let NetiConfig {
            bypass,
            time_anchors,
            layers,
            target_norm,
            ..
        } = self.config;
        let bypass = bypass.map_or("false".to_string(), |bypass| bypass.to_string());
        let (anchors, layers) = (time_anchors.to_string(), layers.to_string());
        let target_norm = target_norm.to_string();
        let mut all = vec![
            ("bypass", bypass.as_str()),
            ("time_anchors", anchors.as_str()),
            ("layers", layers.as_str()),
            ("target_norm", target_norm.as_str()),
        ];
        all.extend(
            metadata
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        let mut tensors = Vec::new();
        self.names.read(self, |param| tensors.push(param.into()));
        save_tensors(path, tensors, Precision::Float32, &all)
    }

    /// Sizes and constants.
    pub fn config(&self) -> &NetiConfig {
        &self.config
    }

    /// The name of every tensor.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The same with only so many hidden units: fewer are easier to edit by the prompt and less
    /// faithful to the concept.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more units than there are.
    pub fn with_truncation(mut self, kept: usize) -> Result<Self> {
        let hidden = self.config.hidden;
        if kept > hidden {
            return Err(Error::Invalid(format!(
                "a truncation to {kept} hidden units, but the mapper has {hidden}"
            )));
        }
        self.truncation = Some(kept);
        Ok(self)
    }

    /// The features [inputs, 2 frequencies] of timesteps and layers, all sines first; the norm of
    /// each is 1.
    fn features(&self, inputs: Vec<[f32; 2]>) -> Tensor<2> {
        let frequencies = self.frequencies.val().inner();
        let data = TensorData::new(inputs.concat(), [inputs.len(), 2]);
        let inputs = Tensor::<2>::from_data(data, &frequencies.device());
        let angles = inputs.matmul(frequencies.transpose());
        let norm = (self.config.frequencies as f64).sqrt();
        Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1) / norm
    }

    /// Embedding and bypass at these timesteps for all layers. `kept` says how many hidden units each
    /// of them keeps, in the order of the result; as [`with_truncation`](Self::with_truncation) says
    /// when absent.
    ///
    /// # Panics
    /// When `kept` has another length.
    pub fn forward(&self, timesteps: &[f32], kept: Option<&[usize]>) -> Mapped {
        let NetiConfig {
            layers, channels, ..
        } = self.config;
        let inputs = (0..layers).flat_map(|layer| {
            timesteps
                .iter()
                .map(move |timestep| [*timestep, layer as f32])
        });
        let x = self.input_layer.forward(self.features(inputs.collect()));
        let x = self.first_norm.forward(self.first.forward(x));
        let x = activation::leaky_relu(x, SLOPE);
        let x = self.second_norm.forward(self.second.forward(x));
        let x = self.truncated(activation::leaky_relu(x, SLOPE), kept);
        let x = self.output_layer.forward(x);
        let norm = norms(x.clone()).clamp_min(1e-12);
        let x = x / norm * self.config.target_norm;
        let rows = layers * timesteps.len();
        Mapped {
            embedding: x.clone().slice([0..rows, 0..channels]),
            bypass: x.slice([0..rows, channels..2 * channels]),
        }
    }

    /// Nested dropout: the first units of each row stay, the others become 0; nothing is rescaled.
    fn truncated(&self, x: Tensor<2>, kept: Option<&[usize]>) -> Tensor<2> {
        let [rows, hidden] = x.dims();
        let everywhere;
        let kept = match (kept, self.truncation) {
            (Some(kept), _) => kept,
            (None, Some(kept)) => {
                everywhere = vec![kept; rows];
                &everywhere
            }
            (None, None) => return x,
        };
        assert_eq!(kept.len(), rows, "one truncation for every row");
        if kept.iter().all(|kept| *kept >= hidden) {
            return x;
        }
        let stays = |kept: usize| (0..hidden).map(move |unit| f32::from(u8::from(unit < kept)));
        let mask: Vec<f32> = kept.iter().flat_map(|kept| stays(*kept)).collect();
        let mask = TensorData::new(mask, [rows, hidden]);
        let mask = Tensor::<2>::from_data(mask, &x.device());
        x * mask
    }

    /// What the U-Net reads of prompts with the concept, one for each timestep: keys and, with a
    /// bypass, values of every layer.
    ///
    /// # Panics
    /// When prompts and timesteps differ in number, or prompts in length.
    pub fn conditioning(
        &self,
        text_encoder: &TextEncoder,
        prompts: &[Vec<u32>],
        timesteps: &[f32],
        kept: Option<&[usize]>,
    ) -> Conditioning {
        assert_eq!(prompts.len(), timesteps.len(), "one timestep per prompt");
        let NetiConfig { layers, bypass, .. } = self.config;
        let mapped = self.forward(timesteps, kept);
        let ids = with_own_rows(prompts, layers, text_encoder.config().vocab_size as u32);
        let before_norm = text_encoder.before_norm(&ids, Some(mapped.embedding));
        let [rows, tokens, channels] = before_norm.dims();
        let by_layer = |states: Tensor<3>| {
            text_encoder
                .final_norm(states)
                .reshape([layers, rows / layers, tokens, channels])
        };
        let values = bypass.map(|strength| {
            let is_concept = ids.iter().flatten().map(|id| {
                let is_concept = *id >= text_encoder.config().vocab_size as u32;
                f32::from(u8::from(is_concept)) * strength as f32
            });
            let data = TensorData::new(is_concept.collect::<Vec<f32>>(), [rows, tokens, 1]);
            let strength = Tensor::<3>::from_data(data, &before_norm.device());
            let direction = mapped.bypass.clone() / norms(mapped.bypass).clamp_min(1e-12);
            let sizes = before_norm.clone().square().sum_dim(2).sqrt();
            let added = direction.reshape([rows, 1, channels]) * (sizes * strength);
            by_layer(before_norm.clone() + added)
        });
        Conditioning::per_layer(by_layer(before_norm), values)
    }
}

/// The prompts once for every layer, where each has a placeholder of its own: that of row i is the
/// i-th after the vocabulary.
fn with_own_rows(prompts: &[Vec<u32>], layers: usize, vocab_size: u32) -> Vec<Vec<u32>> {
    let all = (0..layers).flat_map(|_| prompts);
    all.zip(0_u32..)
        .map(|(prompt, row)| {
            let id = |id: &u32| match *id >= vocab_size {
                true => vocab_size + row,
                false => *id,
            };
            prompt.iter().map(id).collect()
        })
        .collect()
}

/// The Euclidean norm of each row, [rows, 1].
fn norms(rows: Tensor<2>) -> Tensor<2> {
    rows.square().sum_dim(1).sqrt()
}

/// A number in the metadata of a file.
fn number<T: std::str::FromStr>(file: &Checkpoint, key: &str) -> Result<T> {
    let text = file.metadata().get(key);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let reason = match text {
            Some(text) => format!("says `{key}` is {text:?} in its metadata, expected a number"),
            None => {
                format!("does not say `{key}` in its metadata; the mapper cannot be used without")
            }
        };
        Error::format(file.path(), reason)
    })
}
