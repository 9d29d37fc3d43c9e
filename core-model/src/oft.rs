//! Rotations of a model's layers (OFT, Qiu et al. 2023) as a folder of PEFT.
//!
//! `adapter_model.safetensors` holds per layer the strict upper triangle of every skew-symmetric S,
//! row by row, [blocks, side (side - 1) / 2], as `base_model.model.<layer>.oft_R.weight`;
//! `adapter_config.json` says how S becomes a rotation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use serde::Deserialize;
use serde_json::{Map, json};

use crate::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use crate::config::{read_config, write_json};
use crate::error::{Error, Result};
use crate::nn::{cayley, rotate, skew};
use crate::params::{ROTATION, to_vec};
use crate::personalized::{PersonalizedModel, UNET};
use crate::precision::Precision;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const ENDING: &str = ".oft_R.weight";

/// What is read of `adapter_config.json`.
#[derive(Debug, Clone, Deserialize)]
struct Config {
    peft_type: String,
    /// Absent in files of versions that knew the exact formula alone.
    #[serde(default)]
    use_cayley_neumann: bool,
    #[serde(default = "five")]
    num_cayley_neumann_terms: usize,
    #[serde(default)]
    coft: bool,
    #[serde(default)]
    eps: f32,
    #[serde(default)]
    block_share: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    peft_version: Option<String>,
}

fn five() -> usize {
    5
}

/// Rotations by the layers' names below the U-Net.
#[derive(Debug, Clone)]
pub struct Oft {
    /// S of every layer, [blocks, side, side].
    layers: BTreeMap<String, Tensor<3>>,
    series: Option<Series>,
    /// Whether one block stands for all of a layer.
    shared: bool,
}

/// The truncated series that PEFT computes by default in place of the exact formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Series {
    terms: usize,
    /// The factor of the last term.
    last: u8,
}

impl Series {
    /// `I + 2 S + 2 S^2 + .. + last S^n`, as PEFT's code has it: the exact formula's opposite sign.
    fn rotation(self, s: Tensor<3>) -> Tensor<3> {
        let [blocks, side, _] = s.dims();
        let one = Tensor::<2>::eye(side, &s.device());
        let mut sum = one.unsqueeze::<3>().repeat_dim(0, blocks);
        if self.terms > 1 {
            sum = sum + s.clone() * 2.0;
        }
        if self.terms > 2 {
            let mut power = s.clone().matmul(s.clone());
            sum = sum + power.clone() * 2.0;
            for _ in 3..self.terms - 1 {
                power = power.matmul(s.clone());
                sum = sum + power.clone() * 2.0;
            }
            sum = sum + power.matmul(s) * f64::from(self.last);
        }
        sum
    }
}

impl Oft {
    /// The rotations that a model has learned beside its weights.
    pub fn of_model(model: &PersonalizedModel) -> Self {
        let mut layers = BTreeMap::new();
        let start = format!("{UNET}.");
        model.names().read(model, |param| {
            let layer = param.name.strip_suffix(&format!(".{ROTATION}"));
            if let Some(layer) = layer.and_then(|layer| layer.strip_prefix(&start)) {
                let shape = [param.shape[0], param.shape[1], param.shape[2]];
                layers.insert(layer.to_string(), skew(param.value.reshape(shape)));
            }
        });
        Self {
            layers,
            series: None,
            shared: false,
        }
    }

    /// Writes the folder, so that PEFT makes the very rotations of it.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let blocks = self.layers.values().next().map_or(0, |s| s.dims()[0]);
        let targets = self.targets();
        let mut config = Map::new();
        for (key, value) in [
            ("peft_type", json!("OFT")),
            ("r", json!(blocks)),
            ("oft_block_size", json!(0)),
            ("target_modules", json!(targets)),
            ("use_cayley_neumann", json!(false)),
            // PEFT would shrink the rotations anew on loading, by another bound.
            ("coft", json!(false)),
            ("bias", json!("none")),
            ("block_share", json!(false)),
            ("module_dropout", json!(0.0)),
            ("fan_in_fan_out", json!(false)),
            ("inference_mode", json!(true)),
        ] {
            config.insert(key.into(), value);
        }
        let tensors = self.layers.iter().map(|(layer, s)| {
            let [blocks, side, _] = s.dims();
            let values = to_vec(s.clone());
            let triangle = values.chunks_exact(side * side).flat_map(|block| {
                (0..side).flat_map(move |i| (i + 1..side).map(move |j| block[i * side + j]))
            });
            TensorToWrite {
                name: format!("{PREFIX}{layer}{ENDING}"),
                shape: vec![blocks, side * (side - 1) / 2],
                values: triangle.collect(),
            }
        });
        save_tensors(
            &folder.join(WEIGHTS),
            tensors.collect(),
            Precision::Float32,
            &[],
        )?;
        write_json(&folder.join(CONFIG), &config)
    }

    /// The ends of names by which PEFT finds these layers and no other attention.
    fn targets(&self) -> BTreeSet<String> {
        let is_all = self.layers.keys().any(|layer| layer.contains(".attn1."));
        let ends = self.layers.keys().map(|layer| match layer.rfind(".attn") {
            Some(at) if is_all => layer[at + ".attn1.".len()..].to_string(),
            Some(at) => layer[at + 1..].to_string(),
            None => layer.clone(),
        });
        ends.collect()
    }

    /// Reads a folder that PEFT or [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Config`] for another kind of adapter or a key that changes what the numbers mean;
    /// [`Error::Format`] for tensors of other versions.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let config: Config = read_config(&path)?;
        let refuse = |key: &str, value: &str, expected: &str| Error::Config {
            path: path.clone(),
            key: key.into(),
            value: value.into(),
            expected: expected.into(),
        };
        if config.peft_type != "OFT" {
            return Err(refuse("peft_type", &config.peft_type, "OFT"));
        }
        if config.fan_in_fan_out {
            return Err(refuse("fan_in_fan_out", "true", "false"));
        }
        let series = config.use_cayley_neumann.then(|| Series {
            terms: config.num_cayley_neumann_terms,
            last: if is_before_0_18(config.peft_version.as_deref()) {
                2
            } else {
                1
            },
        });
        let file = Checkpoint::open(&folder.join(WEIGHTS), |key| Some(key.to_string()))?;
        let mut layers = BTreeMap::new();
        for key in file.keys() {
            let layer = key.strip_suffix(ENDING).ok_or_else(|| {
                let reason = format!(
                    "holds `{key}`; expected keys that end in `{ENDING}`, as PEFT writes them since \
                     0.16; save the adapter again with a newer PEFT"
                );
                Error::format(file.path(), reason)
            })?;
            let layer = layer.strip_prefix(PREFIX).unwrap_or(layer);
            let s = read(&file, key)?;
            let s = match config.coft {
                true => projected(s.clone(), config.eps / (s.dims()[0] as f32).sqrt()),
                false => s,
            };
            layers.insert(layer.to_string(), s);
        }
        Ok(Self {
            layers,
            series,
            shared: config.block_share,
        })
    }

    /// The model with every weight rotated, in float32.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layer that the model does not have, or has in another shape.
    pub fn merge(&self, model: PersonalizedModel) -> Result<PersonalizedModel> {
        let names = model.names().clone();
        let shapes: BTreeMap<&str, &[usize]> = names.iter().collect();
        let mut rotations = BTreeMap::new();
        for (layer, s) in &self.layers {
            let key = format!("{UNET}.{layer}.weight");
            let [blocks, side, _] = s.dims();
            let inputs = match shapes.get(key.as_str()) {
                Some([_, inputs]) => *inputs,
                _ => 0,
            };
            let repeats = if self.shared { inputs / side.max(1) } else { 1 };
            if inputs == 0 || blocks * side * repeats != inputs {
                return Err(Error::Invalid(format!(
                    "the OFT adapter rotates `{layer}` in {blocks} blocks of {side}, which does not \
                     fit this model ({inputs} inputs); it was trained on another base model"
                )));
            }
            let q = match self.series {
                Some(series) => series.rotation(s.clone()),
                None => cayley(s.clone()),
            };
            rotations.insert(key, (q.repeat_dim(0, repeats), inputs));
        }
        let is_rotated = |name: &str, _| rotations.contains_key(name);
        Ok(names.map(model, is_rotated, |name, weight| {
            let (q, inputs) = &rotations[name];
            let count = weight.dims()[0];
            let q = Tensor::<3>::from_data(q.clone().into_data(), &weight.device());
            let weight = weight
                .cast(FloatDType::F32)
                .reshape([count / inputs, *inputs]);
            rotate(weight, q).reshape([count])
        }))
    }
}

/// S [blocks, side, side] of the triangles that a file holds.
fn read(file: &Checkpoint, key: &str) -> Result<Tensor<3>> {
    let (values, shape) = file.read_f32(key)?.unwrap_or_default();
    let refuse = |reason: String| Error::format(file.path(), format!("`{key}` {reason}"));
    let &[blocks, triangle] = shape.as_slice() else {
        return Err(refuse(format!(
            "has shape {shape:?}, expected [blocks, numbers]"
        )));
    };
    let side = (1 + 8 * triangle).isqrt().div_ceil(2);
    if blocks == 0 || triangle == 0 || side * (side - 1) / 2 != triangle {
        return Err(refuse(format!(
            "has shape {shape:?}, which holds no triangles"
        )));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(refuse("holds NaN or infinite values; it is damaged".into()));
    }
    let mut s = vec![0.0; blocks * side * side];
    for (block, triangle) in s
        .chunks_exact_mut(side * side)
        .zip(values.chunks_exact(triangle))
    {
        let places = (0..side).flat_map(|i| (i + 1..side).map(move |j| (i, j)));
        for ((i, j), value) in places.zip(triangle) {
            block[i * side + j] = *value;
            block[j * side + i] = -value;
        }
    }
    let data = TensorData::new(s, [blocks, side, side]);
    Ok(Tensor::from_data(data, &Device::flex()))
}

/// Blocks whose Frobenius norm is above `bound` scaled down to it (COFT).
pub fn projected(s: Tensor<3>, bound: f32) -> Tensor<3> {
    let norm = s.clone().square().sum_dim(1).sum_dim(2).sqrt();
    let is_above = norm.clone().greater_elem(bound);
    let factor = norm.ones_like().mask_where(is_above, norm.recip() * bound);
    s * factor
}

/// Whether a version of PEFT is older than 0.18; an absent one is.
fn is_before_0_18(version: Option<&str>) -> bool {
    let mut numbers = version.unwrap_or("0.16").split('.');
    let mut next = || numbers.next().and_then(|part| part.parse::<u32>().ok());
    let version = (next().unwrap_or(0), next().unwrap_or(0));
    version < (0, 18)
}
