//! LoRA files (Hu et al. 2021): changes of low rank of a model's layers, as every tool writes them.
//!
//! | module | |
//! |---|---|
//! | `layers` | what each tool calls the layers of a model |
//! | `read` | the spellings of all tools to one |
//! | `write` | and back |

mod layers;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use burn::tensor::{FloatDType, Tensor, TensorData};

pub use layers::LayerNames;
pub use read::parameter;

use crate::error::{Error, Result};
use crate::params::{DOWN, UP, is_added, to_vec};
use crate::personalized::PersonalizedModel;

/// How a file spells layers and factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraForm {
    /// `unet.<layer>.lora.down.weight`, as diffusers saves what its scripts train.
    Diffusers,
    /// `unet.<layer>.lora_A.weight`, as PEFT names them.
    Peft,
    /// `unet.<block>.attn1.processor.to_q_lora.down.weight`, as diffusers did in 2023.
    DiffusersProcessors,
    /// `lora_unet_<layer>.lora_down.weight` with an alpha per layer, as kohya's scripts and all
    /// programs with a user interface.
    Kohya,
}

impl LoraForm {
    /// The forms that are written.
    pub const WRITTEN: [Self; 3] = [Self::Kohya, Self::Diffusers, Self::Peft];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Peft => "peft",
            Self::DiffusersProcessors => "diffusers-processors",
            Self::Kohya => "kohya",
        }
    }
}

impl FromStr for LoraForm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::WRITTEN.into_iter().find(|form| form.name() == name);
        known.ok_or_else(|| Error::Invalid(format!("`{name}` is no form of a LoRA file")))
    }
}

impl fmt::Display for LoraForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Diffusers => "diffusers (.lora.down)",
            Self::Peft => "PEFT (.lora_A)",
            Self::DiffusersProcessors => "diffusers of 2023 (.processor.to_q_lora)",
            Self::Kohya => "kohya (lora_unet_)",
        })
    }
}

/// A matrix, or the kernel of a convolution, as the file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Row-major.
    pub values: Vec<f32>,
    /// [rows, columns], or with two more sides of a kernel.
    pub shape: Vec<usize>,
}

/// The change of one layer: `alpha / rank * up * down`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraLayer {
    /// [rank, in], or [rank, in, kernel, kernel].
    pub down: Factor,
    /// [out, rank], or [out, rank, 1, 1].
    pub up: Factor,
    /// The kernel between them, [rank, rank, kernel, kernel], of a CP decomposition (LyCORIS LoCon).
    pub mid: Option<Factor>,
    /// The numerator of the factor; the rank where a file does not say it.
    pub alpha: f64,
}

impl LoraLayer {
    /// The rank.
    pub fn rank(&self) -> usize {
        self.up.shape.get(1).copied().unwrap_or(0)
    }

    /// The change of a weight of this shape, flattened, for a strength of 1; `None` where the
    /// factors do not make that shape.
    fn change(&self, shape: &[usize]) -> Option<Vec<f32>> {
        let rank = self.rank();
        let [outputs, inputs, kernel @ ..] = shape else {
            return None;
        };
        let kernel: usize = kernel.iter().product();
        let flat = |factor: &Factor| {
            let rows = factor.shape[0];
            [rows, factor.values.len() / rows.max(1)]
        };
        if flat(&self.up) != [*outputs, rank] {
            return None;
        }
        let scale = self.alpha / rank as f64;
        let device = burn::tensor::Device::flex();
        let matrix = |values: &[f32], shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        let up = matrix(&self.up.values, [*outputs, rank]);
        let change = match &self.mid {
            None if flat(&self.down) == [rank, inputs * kernel] => {
                up.matmul(matrix(&self.down.values, [rank, inputs * kernel]))
            }
            Some(mid) if flat(mid) == [rank, rank * kernel] => {
                if flat(&self.down) != [rank, *inputs] {
                    return None;
                }
                // sum over a, b of up[o, a] mid[a, b, k] down[b, i]
                let between = up.matmul(matrix(&mid.values, [rank, rank * kernel]));
                let between = between.reshape([*outputs, rank, kernel]).swap_dims(1, 2);
                let between = between.reshape([outputs * kernel, rank]);
                let down = matrix(&self.down.values, [rank, *inputs]);
                let change = between.matmul(down).reshape([*outputs, kernel, *inputs]);
                change.swap_dims(1, 2).reshape([*outputs, inputs * kernel])
            }
            _ => return None,
        };
        Some(to_vec(change * scale))
    }
}

/// Changes of a model's layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The changes by the layers' names among a [`PersonalizedModel`]'s tensors, without `.weight`.
    pub layers: BTreeMap<String, LoraLayer>,
    /// How the file spelled them.
    pub form: LoraForm,
    /// Text that the file carries.
    pub metadata: BTreeMap<String, String>,
}

impl Lora {
    /// What a model has learned beside its weights; `alpha` as it was trained with.
    pub fn of_model(model: &PersonalizedModel, alpha: f64) -> Self {
        let mut factors: BTreeMap<String, [Option<Factor>; 2]> = BTreeMap::new();
        model.names().read(model, |param| {
            for (place, part) in [DOWN, UP].into_iter().enumerate() {
                if let Some(layer) = param.name.strip_suffix(&format!(".{part}.weight")) {
                    let factor = Factor {
                        values: to_vec(param.value.clone()),
                        shape: param.shape.to_vec(),
                    };
                    factors.entry(layer.to_string()).or_default()[place] = Some(factor);
                }
            }
        });
        let layers = factors.into_iter().filter_map(|(layer, [down, up])| {
            let layer_of = LoraLayer {
                down: down?,
                up: up?,
                mid: None,
                alpha,
            };
            Some((layer, layer_of))
        });
        Self {
            layers: layers.collect(),
            form: LoraForm::Diffusers,
            metadata: BTreeMap::new(),
        }
    }

    /// The ranks that occur, smallest and largest.
    pub fn ranks(&self) -> [usize; 2] {
        let ranks = || self.layers.values().map(LoraLayer::rank);
        [ranks().min().unwrap_or(0), ranks().max().unwrap_or(0)]
    }

    /// A model whose layers have factors beside their weights, with these factors in their place.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layer of the model that has no change here, or one of another shape.
    pub fn put_in(&self, model: PersonalizedModel) -> Result<PersonalizedModel> {
        let names = model.names().clone();
        let mut factors = BTreeMap::new();
        for (name, shape) in names.iter().filter(|(name, _)| is_added(name)) {
            let found = self.factor(name).filter(|factor| factor.shape == shape);
            let factor = found.ok_or_else(|| {
                Error::Invalid(format!(
                    "the LoRA has no `{name}` of shape {shape:?}; it was trained with other layers or \
                     another rank"
                ))
            })?;
            factors.insert(name, factor);
        }
        let is_there = |name: &str, _| factors.contains_key(name);
        Ok(names.map(model, is_there, |name, old| {
            Tensor::from_data(factors[name].values.as_slice(), &old.device())
        }))
    }

    /// The factor that is a parameter of this name in a model.
    fn factor(&self, name: &str) -> Option<&Factor> {
        let name = name.strip_suffix(".weight")?;
        let (layer, part) = name.rsplit_once('.')?;
        let layer = self.layers.get(layer)?;
        Some(if part == DOWN { &layer.down } else { &layer.up })
    }

    /// The model with every change added to its weight, `strength` times. The sums are in float32
    /// whatever the number format of the weights.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layer that the model does not have, or has in another shape: then the
    /// file belongs to another base model.
    pub fn merge(&self, model: PersonalizedModel, strength: f64) -> Result<PersonalizedModel> {
        let names = model.names().clone();
        let shapes: BTreeMap<&str, &[usize]> = names.iter().collect();
        let mut changes = BTreeMap::new();
        for (layer, change) in &self.layers {
            let key = format!("{layer}.weight");
            let Some(shape) = shapes.get(key.as_str()) else {
                return Err(Error::Invalid(format!(
                    "the LoRA changes `{layer}`, which this model does not have; it was trained on \
                     another base model"
                )));
            };
            let values = change.change(shape).ok_or_else(|| {
                Error::Invalid(format!(
                    "the LoRA's factors for `{layer}`, {:?} and {:?}, do not fit the weight {shape:?} \
                     of this model; it was trained on another base model",
                    change.up.shape, change.down.shape
                ))
            })?;
            changes.insert(key, values);
        }
        let is_changed = |name: &str, _| changes.contains_key(name);
        Ok(names.map(model, is_changed, |name, weight| {
            let device = weight.device();
            let change = Tensor::<1>::from_data(changes[name].as_slice(), &device);
            weight.cast(FloatDType::F32) + change * strength
        }))
    }
}
