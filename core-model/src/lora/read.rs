//! Reading a LoRA file: the spellings of all tools become one.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{Factor, LayerNames, Lora, LoraForm, LoraLayer};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::params::{DOWN, UP};
use crate::personalized::{TEXT_ENCODER, UNET};

/// Marks of other decompositions, which no key of a plain LoRA holds, and what they are called.
const OTHERS: [(&str, &str); 10] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("hada_w", "LoHa (LyCORIS)"),
    ("lokr_w", "LoKr (LyCORIS)"),
    ("oft_blocks", "OFT as kohya and LyCORIS write it"),
    ("oft_R", "OFT; name its folder with --oft"),
    ("a1.weight", "GLoRA (LyCORIS)"),
    (".diff", "full weights (LyCORIS)"),
    ("w_norm", "norms (LyCORIS)"),
    ("on_input", "IA3 (LyCORIS)"),
];

/// The key of diffusers' description of a LoRA in a file's metadata.
pub(super) const ADAPTER_METADATA: &str = "lora_adapter_metadata";

/// Which part of a layer's change a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Down,
    Up,
    Mid,
    Alpha,
}

/// The endings of keys: what they say, and in which form.
const ENDINGS: [(&str, Part, LoraForm); 16] = [
    (".lora_down.weight", Part::Down, LoraForm::Kohya),
    (".lora_up.weight", Part::Up, LoraForm::Kohya),
    (".lora_mid.weight", Part::Mid, LoraForm::Kohya),
    (".alpha", Part::Alpha, LoraForm::Kohya),
    (".lora.down.weight", Part::Down, LoraForm::Diffusers),
    (".lora.up.weight", Part::Up, LoraForm::Diffusers),
    (
        ".lora_linear_layer.down.weight",
        Part::Down,
        LoraForm::Diffusers,
    ),
    (
        ".lora_linear_layer.up.weight",
        Part::Up,
        LoraForm::Diffusers,
    ),
    (".lora_A.weight", Part::Down, LoraForm::Peft),
    (".lora_B.weight", Part::Up, LoraForm::Peft),
    (".lora_A.default.weight", Part::Down, LoraForm::Peft),
    (".lora_B.default.weight", Part::Up, LoraForm::Peft),
    (".lora_A.default_0.weight", Part::Down, LoraForm::Peft),
    (".lora_B.default_0.weight", Part::Up, LoraForm::Peft),
    (
        "_lora.down.weight",
        Part::Down,
        LoraForm::DiffusersProcessors,
    ),
    ("_lora.up.weight", Part::Up, LoraForm::DiffusersProcessors),
];

/// The layer and the part that a key means, and its form.
fn meaning<'a>(key: &str, names: &'a LayerNames) -> Option<(&'a str, Part, LoraForm)> {
    let ending = |(ending, part, form)| Some((key.strip_suffix(ending)?, part, form));
    let (layer, part, form) = ENDINGS.into_iter().find_map(ending)?;
    let layer = match form {
        LoraForm::Kohya => flat(layer, names)?,
        LoraForm::DiffusersProcessors => dotted(&without_processor(layer)?, names)?,
        LoraForm::Diffusers | LoraForm::Peft => dotted(layer, names)?,
    };
    Some((layer, part, form))
}

fn flat<'a>(layer: &str, names: &'a LayerNames) -> Option<&'a str> {
    let prefixes = [
        ("lora_unet_", UNET),
        ("lora_te_", TEXT_ENCODER),
        ("lora_te1_", TEXT_ENCODER),
    ];
    prefixes
        .iter()
        .find_map(|(prefix, network)| names.flat(network, layer.strip_prefix(prefix)?))
}

/// A name with dots; files of one network alone do not name it.
fn dotted<'a>(layer: &str, names: &'a LayerNames) -> Option<&'a str> {
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let networks = [UNET, TEXT_ENCODER];
    names.dotted(layer).or_else(|| {
        networks.iter().find_map(|network| {
            let layer = layer.strip_prefix("text_model.").unwrap_or(layer);
            names.dotted(&format!("{network}.{layer}"))
        })
    })
}

/// `..attn1.processor.to_out` is the layer `..attn1.to_out.0`; `..self_attn.to_q` is `..q_proj`.
fn without_processor(layer: &str) -> Option<String> {
    let (block, part) = layer.rsplit_once('.')?;
    if let Some(block) = block.strip_suffix(".processor") {
        return Some(match part {
            "to_out" => format!("{block}.to_out.0"),
            part => format!("{block}.{part}"),
        });
    }
    let part = match part {
        "to_q" => "q_proj",
        "to_k" => "k_proj",
        "to_v" => "v_proj",
        "to_out" => "out_proj",
        _ => return None,
    };
    Some(format!("{block}.{part}"))
}

/// The name among a model's parameters of the factor that diffusers or PEFT keep under `key`.
pub fn parameter(key: &str) -> Option<String> {
    let ending = |(ending, part, _)| Some((key.strip_suffix(ending)?, part));
    let (layer, part) = ENDINGS.into_iter().find_map(ending)?;
    let factor = match part {
        Part::Down => DOWN,
        Part::Up => UP,
        Part::Mid | Part::Alpha => return None,
    };
    let layer = layer.replace(".text_model.", ".");
    Some(format!("{layer}.{factor}.weight"))
}

impl Lora {
    /// Reads a file: nothing of it is left out.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key that belongs to no layer of the model, to another kind of
    /// adapter, or lacks its counterpart.
    pub fn load(path: &Path, names: &LayerNames) -> Result<Self> {
        Self::of_file(&Checkpoint::open(path, |key| Some(key.to_string()))?, names)
    }

    /// The same of a file that is open, all keys of which are those of a LoRA.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_file(file: &Checkpoint, names: &LayerNames) -> Result<Self> {
        let path = file.path();
        let mut found: BTreeMap<&str, BTreeMap<Part, &str>> = BTreeMap::new();
        let mut form = None;
        for key in file.keys() {
            refuse_others(path, key)?;
            let Some((layer, part, of_key)) = meaning(key, names) else {
                return Err(unmatched(path, key));
            };
            form.get_or_insert(of_key);
            if found.entry(layer).or_default().insert(part, key).is_some() {
                let reason = format!("`{layer}` is there under two spellings, one of them `{key}`");
                return Err(Error::format(path, reason));
            }
        }
        let Some(form) = form else {
            return Err(Error::format(
                path,
                "holds no LoRA: there is no tensor in it",
            ));
        };
        let alphas = AdapterMetadata::of(path, file.metadata())?;
        let mut layers = BTreeMap::new();
        for (name, parts) in found {
            let layer = read_layer(file, name, &parts, &alphas)?;
            layers.insert(name.to_string(), layer);
        }
        Ok(Self {
            layers,
            form,
            metadata: file.metadata().clone(),
        })
    }
}

fn read_layer(
    file: &Checkpoint,
    name: &str,
    parts: &BTreeMap<Part, &str>,
    alphas: &AdapterMetadata,
) -> Result<LoraLayer> {
    let refuse = |reason: String| Error::format(file.path(), reason);
    let factor = |part: Part| -> Result<Option<Factor>> {
        let Some(key) = parts.get(&part) else {
            return Ok(None);
        };
        let (values, shape) = file.read_f32(key)?.unwrap_or_default();
        if shape.len() < 2 || values.is_empty() {
            return Err(refuse(format!(
                "`{key}` has shape {shape:?}, which is no matrix"
            )));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(refuse(format!(
                "`{key}` holds NaN or infinite values; it is damaged"
            )));
        }
        Ok(Some(Factor { values, shape }))
    };
    let missing = |what: &str| refuse(format!("holds no {what} factor for `{name}`; it was cut"));
    let down = factor(Part::Down)?.ok_or_else(|| missing("down"))?;
    let up = factor(Part::Up)?.ok_or_else(|| missing("up"))?;
    let rank = up.shape[1];
    if down.shape[0] != rank {
        return Err(refuse(format!(
            "the factors of `{name}` have shapes {:?} and {:?}, which have no rank in common",
            up.shape, down.shape
        )));
    }
    let alpha = match parts.get(&Part::Alpha) {
        Some(key) => number(file, key)?,
        None => alphas.alpha(name, rank),
    };
    let mid = factor(Part::Mid)?;
    Ok(LoraLayer {
        down,
        up,
        mid,
        alpha,
    })
}

/// A number on its own, a float or an integer.
fn number(file: &Checkpoint, key: &str) -> Result<f64> {
    let float = file.read_f32(key).ok().flatten();
    let float = float.and_then(|(values, _)| values.first().map(|value| f64::from(*value)));
    let number = match float {
        Some(number) => Some(number),
        None => file
            .read_i64(key)?
            .and_then(|(values, _)| values.first().map(|value| *value as f64)),
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        Error::format(
            file.path(),
            format!("`{key}` is empty, NaN or infinite; expected a finite number"),
        )
    })
}

/// What PEFT says of a LoRA in a file's metadata.
#[derive(Debug, Default)]
struct AdapterMetadata(serde_json::Map<String, Value>);

impl AdapterMetadata {
    fn of(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let Some(text) = metadata.get(ADAPTER_METADATA) else {
            return Ok(Self::default());
        };
        let values: serde_json::Map<String, Value> =
            serde_json::from_str(text).map_err(|error| {
                Error::format(path, format!("its metadata `{ADAPTER_METADATA}`: {error}"))
            })?;
        for network in [UNET, TEXT_ENCODER] {
            if values.get(&format!("{network}.use_dora")) == Some(&Value::Bool(true)) {
                return Err(Error::format(path, "is a DoRA, which is not computed here"));
            }
        }
        Ok(Self(values))
    }

    /// The alpha of a layer; its rank where nothing is said.
    fn alpha(&self, layer: &str, rank: usize) -> f64 {
        let (network, below) = layer.split_once('.').unwrap_or_default();
        let value = |key: &str| self.0.get(&format!("{network}.{key}"));
        let pattern = value("alpha_pattern").and_then(Value::as_object);
        let own = pattern.and_then(|pattern| {
            let matches = |name: &str| below == name || below.ends_with(&format!(".{name}"));
            let found = pattern
                .iter()
                .find(|(name, _)| matches(name.trim_start_matches('^')));
            found.and_then(|(_, alpha)| alpha.as_f64())
        });
        let alpha = own.or_else(|| value("lora_alpha").and_then(Value::as_f64));
        match (alpha, value("use_rslora")) {
            // alpha / sqrt(rank), as alpha' / rank.
            (Some(alpha), Some(Value::Bool(true))) => alpha * (rank as f64).sqrt(),
            (Some(alpha), _) => alpha,
            (None, _) => rank as f64,
        }
    }
}

fn refuse_others(path: &Path, key: &str) -> Result<()> {
    let other = OTHERS.iter().find(|(mark, _)| key.contains(mark));
    match other {
        Some((_, name)) => Err(Error::format(
            path,
            format!("holds `{key}`, which is {name}; only LoRA and LoCon are read here"),
        )),
        None => Ok(()),
    }
}

/// A key that no layer of the model has.
fn unmatched(path: &Path, key: &str) -> Error {
    let second_encoder = ["lora_te2_", "text_encoder_2."];
    let reason = match second_encoder.iter().any(|start| key.starts_with(start)) {
        true => format!("is a LoRA of SDXL: `{key}` is of its second text encoder"),
        false => format!(
            "`{key}` names no layer of this model; the file is a LoRA of another base model (SDXL \
             has more transformers in a block), or no LoRA; nothing of it is used"
        ),
    };
    Error::format(path, reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_layer_is_one_layer() {
        let names = LayerNames::of_stable_diffusion().unwrap();
        let unet = "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0";
        let text = "text_encoder.encoder.layers.2.self_attn.q_proj";
        for (key, layer, part) in [
            (format!("{unet}.lora.down.weight"), unet, Part::Down),
            (format!("{unet}.lora_B.weight"), unet, Part::Up),
            (
                "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_out_lora.up.weight".into(),
                unet,
                Part::Up,
            ),
            (
                "down_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_out_lora.up.weight".into(),
                unet,
                Part::Up,
            ),
            (
                "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_out_0.alpha".into(),
                unet,
                Part::Alpha,
            ),
            (
                "lora_unet_input_blocks_2_1_transformer_blocks_0_attn2_to_out_0.lora_up.weight".into(),
                unet,
                Part::Up,
            ),
            (
                "text_encoder.text_model.encoder.layers.2.self_attn.q_proj.lora_linear_layer.down.weight".into(),
                text,
                Part::Down,
            ),
            ("text_encoder.encoder.layers.2.self_attn.q_proj.lora_A.weight".into(), text, Part::Down),
            ("text_encoder.text_model.encoder.layers.2.self_attn.to_q_lora.up.weight".into(), text, Part::Up),
            ("lora_te_text_model_encoder_layers_2_self_attn_q_proj.lora_down.weight".into(), text, Part::Down),
            ("lora_te1_text_model_encoder_layers_2_self_attn_q_proj.lora_down.weight".into(), text, Part::Down),
        ] {
            let (found, found_part, _) = meaning(&key, &names).unwrap_or_else(|| panic!("{key}"));
            assert_eq!((found, found_part), (layer, part), "{key}");
        }
    }

    #[test]
    fn alpha_is_taken_from_the_metadata_of_peft() {
        let text = r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_k": 2},
            "text_encoder.lora_alpha": 6, "text_encoder.use_rslora": true}"#;
        let metadata = BTreeMap::from([(ADAPTER_METADATA.to_string(), text.to_string())]);
        let found = AdapterMetadata::of(Path::new("x"), &metadata).unwrap();
        assert_eq!(found.alpha("unet.a.attn1.to_k", 4), 8.0);
        assert_eq!(found.alpha("unet.a.attn2.to_k", 4), 2.0);
        assert_eq!(found.alpha("text_encoder.a.q_proj", 4), 12.0);
        assert_eq!(AdapterMetadata::default().alpha("unet.a", 4), 4.0);
    }
}
