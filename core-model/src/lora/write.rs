//! Writing a LoRA file in the spelling of a tool.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::read::ADAPTER_METADATA;
use super::{Factor, Lora, LoraForm, LoraLayer};
use crate::checkpoint::{TensorToWrite, data_digest, save_tensors};
use crate::error::{Error, Result};
use crate::personalized::{TEXT_ENCODER, UNET};
use crate::precision::Precision;

/// Layers that diffusers' first form can name: it knows no other.
const FIRST_FORM: [&str; 8] = [
    ".to_q",
    ".to_k",
    ".to_v",
    ".to_out.0",
    ".q_proj",
    ".k_proj",
    ".v_proj",
    ".out_proj",
];

impl Lora {
    /// Writes the file. In diffusers' form layers that it cannot name make all keys PEFT's: a file
    /// that mixes both is misread by diffusers without a word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a form that no tool reads any more, or a decomposition with a middle
    /// factor in another form than kohya's; an unwritable file.
    pub fn save(&self, path: &Path, form: LoraForm, precision: Precision) -> Result<()> {
        let all_known = || {
            self.layers
                .keys()
                .all(|layer| FIRST_FORM.iter().any(|end| layer.ends_with(end)))
        };
        let form = match form {
            LoraForm::Diffusers if !all_known() => LoraForm::Peft,
            LoraForm::DiffusersProcessors => {
                let reason = "the form of diffusers of 2023 is read, but no longer written";
                return Err(Error::Invalid(reason.into()));
            }
            form => form,
        };
        let tensors = self.tensors(form)?;
        let mut metadata = self.metadata.clone();
        metadata.remove("format");
        metadata.remove(ADAPTER_METADATA);
        match form {
            LoraForm::Kohya => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let digest = data_digest(&tensors, precision);
                metadata.extend(self.kohya_metadata(&name, &digest));
            }
            _ => {
                metadata.insert(ADAPTER_METADATA.into(), self.adapter_metadata());
            }
        }
        let metadata: Vec<(&str, &str)> = metadata
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        save_tensors(path, tensors, precision, &metadata)
    }

    /// The tensors of a file in this form.
    pub(crate) fn tensors(&self, form: LoraForm) -> Result<Vec<TensorToWrite>> {
        let mut tensors = Vec::new();
        for (name, layer) in &self.layers {
            let keys = Keys::of(form, name)?;
            tensors.push(tensor(keys.down, &layer.down));
            tensors.push(tensor(keys.up, &layer.up));
            match (&layer.mid, keys.mid) {
                (Some(mid), Some(key)) => tensors.push(tensor(key, mid)),
                (Some(_), None) => {
                    return Err(Error::Invalid(format!(
                        "`{name}` has a middle factor, which only kohya's form can hold"
                    )));
                }
                (None, _) => {}
            }
            if let Some(name) = keys.alpha {
                tensors.push(TensorToWrite {
                    name,
                    shape: vec![],
                    values: vec![layer.alpha as f32],
                });
            }
        }
        Ok(tensors)
    }

    /// What AUTOMATIC1111 and others read: version, rank, alpha, the name in prompts.
    fn kohya_metadata(&self, name: &str, digest: &str) -> BTreeMap<String, String> {
        let dim = self.ranks()[1];
        let alpha = self
            .layers
            .values()
            .map(|layer| layer.alpha)
            .fold(0.0, f64::max);
        let is_v2 = self.layers.iter().any(|(name, layer)| {
            name.ends_with("attn2.to_k") && layer.down.shape.get(1) == Some(&1024)
        });
        let version = if is_v2 { "sd_v2" } else { "sd_v1" };
        let v2 = if is_v2 { "True" } else { "False" };
        let (dim, alpha) = (dim.to_string(), alpha.to_string());
        [
            ("ss_network_module", "networks.lora"),
            ("ss_network_dim", &dim),
            ("ss_network_alpha", &alpha),
            ("ss_v2", v2),
            ("ss_base_model_version", version),
            ("ss_output_name", name),
            ("sshs_model_hash", digest),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
    }

    /// PEFT's configuration of each network, as diffusers keeps it: without it alpha would be taken
    /// for the rank.
    fn adapter_metadata(&self) -> String {
        let mut all = Map::new();
        for network in [UNET, TEXT_ENCODER] {
            let layers: BTreeMap<&str, &LoraLayer> = self
                .layers
                .iter()
                .filter_map(|(name, layer)| {
                    Some((name.strip_prefix(network)?.strip_prefix('.')?, layer))
                })
                .collect();
            let Some(first) = layers.values().next() else {
                continue;
            };
            let (rank, alpha) = (first.rank(), first.alpha);
            let ranks = layers.iter().filter(|(_, layer)| layer.rank() != rank);
            let ranks: Map<String, Value> = ranks
                .map(|(name, layer)| ((*name).to_string(), json!(layer.rank())))
                .collect();
            let alphas = layers.iter().filter(|(_, layer)| layer.alpha != alpha);
            let alphas: Map<String, Value> = alphas
                .map(|(name, layer)| ((*name).to_string(), json!(layer.alpha)))
                .collect();
            let targets: BTreeSet<&str> = layers.keys().copied().collect();
            for (key, value) in [
                ("r", json!(rank)),
                ("lora_alpha", json!(alpha)),
                ("rank_pattern", Value::Object(ranks)),
                ("alpha_pattern", Value::Object(alphas)),
                ("target_modules", json!(targets)),
                ("bias", json!("none")),
                ("use_dora", json!(false)),
                ("use_rslora", json!(false)),
            ] {
                all.insert(format!("{network}.{key}"), value);
            }
        }
        Value::Object(all).to_string()
    }
}

/// The keys of a layer's tensors.
struct Keys {
    down: String,
    up: String,
    mid: Option<String>,
    alpha: Option<String>,
}

impl Keys {
    fn of(form: LoraForm, layer: &str) -> Result<Self> {
        let Some((network, below)) = layer.split_once('.') else {
            return Err(Error::Invalid(format!(
                "`{layer}` is no layer of a network"
            )));
        };
        let is_text = network == TEXT_ENCODER;
        let dotted = match is_text {
            true => format!("{network}.text_model.{below}"),
            false => layer.to_string(),
        };
        let pair = |[down, up]: [&str; 2]| Self {
            down: format!("{dotted}.{down}.weight"),
            up: format!("{dotted}.{up}.weight"),
            mid: None,
            alpha: None,
        };
        Ok(match form {
            LoraForm::Kohya => {
                let start = match is_text {
                    true => "lora_te_text_model_",
                    false => "lora_unet_",
                };
                let layer = format!("{start}{}", below.replace('.', "_"));
                Self {
                    down: format!("{layer}.lora_down.weight"),
                    up: format!("{layer}.lora_up.weight"),
                    mid: Some(format!("{layer}.lora_mid.weight")),
                    alpha: Some(format!("{layer}.alpha")),
                }
            }
            LoraForm::Peft => pair(["lora_A", "lora_B"]),
            _ if is_text => pair(["lora_linear_layer.down", "lora_linear_layer.up"]),
            _ => pair(["lora.down", "lora.up"]),
        })
    }
}

fn tensor(name: String, factor: &Factor) -> TensorToWrite {
    TensorToWrite {
        name,
        shape: factor.shape.clone(),
        values: factor.values.clone(),
    }
}
