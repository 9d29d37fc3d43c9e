//! SigLIP (Zhai et al. 2023), `SiglipModel` in transformers: images and sentences in one space, as
//! CLIP's, but taught pair by pair with a sigmoid. Fixed-resolution checkpoints of SigLIP 2 have the
//! same network.

mod text;
mod tokenizer;
mod vision;

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use text::SiglipTextConfig;
use text::TextTower;
pub use tokenizer::SiglipTokenizer;
pub use vision::SiglipVisionConfig;
use vision::VisionTower;

use crate::checkpoint::canonical;
use crate::config::{from_object, read_object};
use crate::error::{Error, Result};
use crate::network::{Class, Network};
use crate::params::{Init, ParamBuilder, ParamNames};
use crate::vit::{Activation, Norm, TransformerConfig};

/// How PyTorch's `MultiheadAttention` spells the joint projection to queries, keys and values, and
/// how a linear layer of that name would be spelled.
const JOINT_PROJECTION: [(&str, &str); 2] = [
    (".in_proj_weight", ".in_proj.weight"),
    (".in_proj_bias", ".in_proj.bias"),
];

/// `config.json` of a `SiglipModel`; absent keys take transformers' defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SiglipConfig {
    /// The text tower.
    pub text_config: SiglipTextConfig,
    /// The image tower.
    pub vision_config: SiglipVisionConfig,
}

/// Both towers.
#[derive(Module, Debug)]
pub struct SiglipModel {
    text_model: TextTower,
    vision_model: VisionTower,
    logit_scale: Param<Tensor<1>>,
    logit_bias: Param<Tensor<1>>,
    #[module(skip)]
    config: SiglipConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Network for SiglipModel {
    type Config = SiglipConfig;

    fn class(_config: &SiglipConfig) -> Class {
        Class::Transformers("SiglipModel", "siglip")
    }

    /// Refuses what is not a whole `SiglipModel`, and what computes otherwise.
    fn read_config(path: &Path) -> Result<SiglipConfig> {
        let object = read_object(path)?;
        check_value(path, &object, "model_type", "\"siglip\"", |value| {
            value.as_str() == Some("siglip")
        })?;
        if let Some(Value::Object(vision)) = object.get("vision_config") {
            check_value(path, vision, "vision_use_head", "true", |value| {
                value.as_bool() != Some(false)
            })?;
        }
        from_object(path, object)
    }

    fn canonical_key(key: &str) -> Option<String> {
        let key = canonical(key)?;
        let mut rules = JOINT_PROJECTION.iter();
        let renamed =
            rules.find_map(|(theirs, ours)| Some(key.strip_suffix(theirs)?.to_owned() + ours));
        Some(renamed.unwrap_or(key))
    }

    fn written_key(key: &str) -> String {
        let mut rules = JOINT_PROJECTION.iter();
        let renamed =
            rules.find_map(|(theirs, ours)| Some(key.strip_suffix(ours)?.to_owned() + theirs));
        renamed.unwrap_or_else(|| key.to_string())
    }

    fn new(config: &SiglipConfig, pb: &ParamBuilder) -> Result<Self> {
        let (text, image) = (&config.text_config, &config.vision_config);
        if text.projection() != image.hidden_size {
            return Err(Error::Invalid(format!(
                "`text_config.projection_size` is {} and `vision_config.hidden_size` {}; features of \
                 texts and images are compared, so both must be equal",
                text.projection(),
                image.hidden_size
            )));
        }
        if text.max_position_embeddings == 0 {
            return Err(Error::Invalid(
                "`text_config.max_position_embeddings` is 0; expected at least 1".into(),
            ));
        }
        Ok(Self {
            text_model: TextTower::new(text, &pb.pp("text_model"))?,
            vision_model: VisionTower::new(image, &pb.pp("vision_model"))?,
            logit_scale: pb.get("logit_scale", [1], Init::Zeros)?,
            logit_bias: pb.get("logit_bias", [1], Init::Zeros)?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    fn config(&self) -> &SiglipConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl SiglipModel {
    /// Prompts, each padded to the same number of ids, to features [batch, channels], not normalised.
    ///
    /// # Panics
    /// When prompts differ in length or have more ids than the network has positions.
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        self.text_model.forward(ids)
    }

    /// [batch, 3, side, side] preprocessed pixels to features [batch, channels], not normalised.
    ///
    /// # Panics
    /// When images are not of the config's `image_size`.
    pub fn image_features(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.vision_model.forward(pixels)
    }
}

/// Refuses a config whose value of a key is not accepted.
fn check_value(
    path: &Path,
    object: &Map<String, Value>,
    key: &str,
    expected: &str,
    accepts: impl Fn(&Value) -> bool,
) -> Result<()> {
    let value = object.get(key).unwrap_or(&Value::Null);
    if accepts(value) {
        return Ok(());
    }
    Err(Error::Config {
        path: path.to_path_buf(),
        key: key.into(),
        value: match value {
            Value::Null => "absent".into(),
            other => other.to_string(),
        },
        expected: format!("{expected}, as a whole `SiglipModel` of fixed resolution has it"),
    })
}

/// The sizes of a tower's transformer.
struct TowerSizes {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    layer_norm_eps: f64,
    hidden_act: Activation,
}

impl TowerSizes {
    /// Every token attends to every token, padding included.
    fn transformer(&self) -> TransformerConfig {
        TransformerConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: self.hidden_act,
            qkv_bias: true,
            causal: false,
            norm: Norm::Before,
            scaled: false,
            gated: false,
        }
    }
}
