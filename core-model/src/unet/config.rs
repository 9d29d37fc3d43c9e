//! `config.json` of a `UNet2DConditionModel`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{read_config, read_object};
use crate::error::{Error, Result};
use crate::model_index::kind_by_channels;

/// One number for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel<T> {
    /// The same everywhere.
    All(T),
    /// From the highest resolution down.
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    /// The value of a level; `None` where the list is too short.
    pub fn at(&self, level: usize) -> Option<T> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(level).copied(),
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::Each(values) => Some(values.len()),
        }
    }
}

/// The blocks that SD 1.x and 2.x are built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks alone.
    DownBlock2D,
    /// Residual blocks, each followed by a transformer.
    CrossAttnDownBlock2D,
}

/// See [`DownBlockType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks alone.
    UpBlock2D,
    /// Residual blocks, each followed by a transformer.
    CrossAttnUpBlock2D,
}

impl UpBlockType {
    /// Whether it has transformers.
    pub fn has_attention(self) -> bool {
        self == Self::CrossAttnUpBlock2D
    }
}

/// The size of latents: a square's side, or height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a side, or height and width")]
pub enum SampleSize {
    /// As high as wide.
    Square(usize),
    /// Height and width.
    Rectangle([usize; 2]),
}

impl SampleSize {
    /// Rows.
    pub fn height(self) -> usize {
        match self {
            Self::Square(side) | Self::Rectangle([side, _]) => side,
        }
    }

    /// Columns.
    pub fn width(self) -> usize {
        match self {
            Self::Square(side) | Self::Rectangle([_, side]) => side,
        }
    }
}

/// The architecture; absent keys take the defaults of diffusers' class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Size of the latents that the model was trained on.
    pub sample_size: Option<SampleSize>,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether latents are brought from [0, 1] to [-1, 1] first.
    pub center_input_sample: bool,
    /// Whether the time embedding begins with cosines.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub freq_shift: f64,
    /// Blocks on the way down.
    pub down_block_types: Vec<DownBlockType>,
    /// Blocks on the way up.
    pub up_block_types: Vec<UpBlockType>,
    /// Whether the first attention of a transformer looks at the prompt too.
    pub only_cross_attention: PerLevel<bool>,
    /// Channels of every level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of every level.
    pub layers_per_block: PerLevel<usize>,
    /// Zeros around the downsampling convolution.
    pub downsample_padding: usize,
    /// What the middle's residual blocks divide their sums by.
    pub mid_block_scale_factor: f64,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the group norms.
    pub norm_eps: f64,
    /// Channels of the prompt's hidden states.
    pub cross_attention_dim: PerLevel<usize>,
    /// Layers of every transformer.
    pub transformer_layers_per_block: PerLevel<usize>,
    /// HEADS of every level; the name is diffusers' historical mistake.
    pub attention_head_dim: PerLevel<usize>,
    /// Heads of every level under their right name, where given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<PerLevel<usize>>,
    /// Whether transformers project with linear layers instead of 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Whether attention is computed in float32, which this project always does. Some published
    /// configs say null.
    pub upcast_attention: Option<bool>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            only_cross_attention: PerLevel::All(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::All(1280),
            transformer_layers_per_block: PerLevel::All(1),
            attention_head_dim: PerLevel::All(8),
            num_attention_heads: None,
            use_linear_projection: false,
            upcast_attention: Some(false),
        }
    }
}

/// Keys that would change the computation, and the only value that this project honours.
const FIXED: [(&str, &str); 23] = [
    ("act_fn", "\"silu\""),
    ("mid_block_type", "\"UNetMidBlock2DCrossAttn\""),
    ("dropout", "0"),
    ("reverse_transformer_layers_per_block", "null"),
    ("dual_cross_attention", "false"),
    ("class_embed_type", "null"),
    ("class_embeddings_concat", "false"),
    ("num_class_embeds", "null"),
    ("addition_embed_type", "null"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("resnet_time_scale_shift", "\"default\""),
    ("resnet_skip_time_act", "false"),
    ("resnet_out_scale_factor", "1"),
    ("time_embedding_type", "\"positional\""),
    ("time_embedding_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("timestep_post_act", "null"),
    ("time_cond_proj_dim", "null"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("attention_type", "\"default\""),
    ("cross_attention_norm", "null"),
];

impl UNet2DConditionConfig {
    /// Reads a config and refuses what the network below cannot compute.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, its value and what is supported.
    pub fn from_file(path: &Path) -> Result<Self> {
        let object = read_object(path)?;
        check_fixed(path, &object, &FIXED)?;
        let mut config: Self = read_config(path)?;
        config.correct_sample_size(&object);
        if let Some(kind) = kind_by_channels(config.in_channels) {
            return Err(Error::Config {
                path: path.to_path_buf(),
                key: "in_channels".into(),
                value: config.in_channels.to_string(),
                expected: format!("those of a text-to-image model, but this is {kind}"),
            });
        }
        config
            .check()
            .map_err(|(key, value, expected)| Error::Config {
                path: path.to_path_buf(),
                key,
                value,
                expected,
            })?;
        Ok(config)
    }

    /// Early conversions of Stable Diffusion state the class's default of that time, 32, and were
    /// trained on 64: diffusers' pipelines correct what versions before 0.9 wrote.
    fn correct_sample_size(&mut self, object: &Map<String, Value>) {
        let version = object.get("_diffusers_version").and_then(Value::as_str);
        let mut numbers = version.into_iter().flat_map(|version| version.split('.'));
        let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
        let is_old = matches!((number(), number()), (Some(0), Some(0..9)));
        if is_old && matches!(self.sample_size, Some(SampleSize::Square(0..64))) {
            self.sample_size = Some(SampleSize::Square(64));
        }
    }

    /// Heads of a level.
    pub fn heads(&self, level: usize) -> Option<usize> {
        self.num_attention_heads
            .as_ref()
            .unwrap_or(&self.attention_head_dim)
            .at(level)
    }

    fn heads_key(&self) -> &'static str {
        match self.num_attention_heads {
            Some(_) => "num_attention_heads",
            None => "attention_head_dim",
        }
    }

    /// Whether any block at a level's resolution has transformers; the middle, at the last, has.
    fn has_attention(&self, level: usize) -> bool {
        let last = self.block_out_channels.len() - 1;
        level == last
            || self.down_block_types.get(level) == Some(&DownBlockType::CrossAttnDownBlock2D)
            || self.up_block_types.get(last - level) == Some(&UpBlockType::CrossAttnUpBlock2D)
    }

    /// The first inconsistency: key, value, what was expected.
    pub(crate) fn check(&self) -> Result<(), (String, String, String)> {
        let levels = self.block_out_channels.len();
        let fail =
            |key: &str, value: String, expected: String| Err((key.to_string(), value, expected));
        if levels == 0 {
            return fail(
                "block_out_channels",
                "empty".into(),
                "at least one level".into(),
            );
        }
        let counts = [
            ("down_block_types", Some(self.down_block_types.len())),
            ("up_block_types", Some(self.up_block_types.len())),
            ("only_cross_attention", self.only_cross_attention.count()),
            ("layers_per_block", self.layers_per_block.count()),
            ("cross_attention_dim", self.cross_attention_dim.count()),
            (
                "transformer_layers_per_block",
                self.transformer_layers_per_block.count(),
            ),
            ("attention_head_dim", self.attention_head_dim.count()),
            (
                "num_attention_heads",
                self.num_attention_heads.as_ref().and_then(PerLevel::count),
            ),
        ];
        for (key, count) in counts {
            if let Some(count) = count.filter(|count| *count != levels) {
                return fail(
                    key,
                    format!("{count} long"),
                    format!("{levels} entries, one per level"),
                );
            }
        }
        let groups = self.norm_num_groups;
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            if groups == 0 || *channels == 0 || !channels.is_multiple_of(groups) {
                let expected = format!("multiples of norm_num_groups, {groups}");
                return fail("block_out_channels", channels.to_string(), expected);
            }
            let heads = self.heads(level).unwrap_or(0);
            if self.has_attention(level) && (heads == 0 || !channels.is_multiple_of(heads)) {
                let expected = format!("a divisor of {channels}, the channels of level {level}");
                return fail(self.heads_key(), heads.to_string(), expected);
            }
        }
        if let PerLevel::Each(widths) = &self.cross_attention_dim
            && widths.iter().any(|width| *width != widths[0])
        {
            let expected = "one width, that of the prompt's hidden states".into();
            return fail("cross_attention_dim", format!("{widths:?}"), expected);
        }
        Ok(())
    }
}

/// Refuses keys with other values than the supported one, which is the class's default, so that
/// absent keys are fine. null is as good as false.
pub(crate) fn check_fixed(
    path: &Path,
    object: &Map<String, Value>,
    fixed: &[(&str, &str)],
) -> Result<()> {
    for (key, supported) in fixed {
        let Some(value) = object.get(*key) else {
            continue;
        };
        let is_supported = match serde_json::from_str::<Value>(supported) {
            Ok(Value::Number(number)) => number.as_f64() == value.as_f64(),
            Ok(other) => other == *value || (value.is_null() && other == false),
            Err(_) => false,
        };
        if !is_supported {
            return Err(Error::Config {
                path: path.to_path_buf(),
                key: (*key).to_string(),
                value: value.to_string(),
                expected: format!("{supported}, the only value that is supported"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Keys without effect, alone or beside the values that are supported.
    const HARMLESS: [&str; 6] = [
        "_class_name",
        "_diffusers_version",
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
        "mid_block_only_cross_attention",
        "projection_class_embeddings_input_dim",
    ];

    /// `StableDiffusionPipeline.__init__`.
    #[test]
    fn small_sample_sizes_of_early_versions_are_corrected() {
        let read = |json: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config.json");
            std::fs::write(&path, json).unwrap();
            let size = UNet2DConditionConfig::from_file(&path).unwrap().sample_size;
            size.map(|size| [size.height(), size.width()])
        };
        for (json, size) in [
            (
                r#"{"sample_size": 32, "_diffusers_version": "0.6.0"}"#,
                [64, 64],
            ),
            (
                r#"{"sample_size": 32, "_diffusers_version": "0.8.1"}"#,
                [64, 64],
            ),
            (
                r#"{"sample_size": 96, "_diffusers_version": "0.6.0"}"#,
                [96, 96],
            ),
            (
                r#"{"sample_size": 32, "_diffusers_version": "0.9.0.dev0"}"#,
                [32, 32],
            ),
            (
                r#"{"sample_size": 32, "_diffusers_version": "0.42.1"}"#,
                [32, 32],
            ),
            (r#"{"sample_size": 32}"#, [32, 32]),
            (
                r#"{"sample_size": [12, 20], "_diffusers_version": "0.6.0"}"#,
                [12, 20],
            ),
        ] {
            assert_eq!(read(json), Some(size), "{json}");
        }
        assert_eq!(read(r#"{"sample_size": null}"#), None);
    }

    #[test]
    fn every_key_that_diffusers_writes_is_honoured_or_checked() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unet/mini-like");
        let written = read_object(&folder.join("config.json")).unwrap();
        let Value::Object(ours) = serde_json::to_value(UNet2DConditionConfig {
            num_attention_heads: Some(PerLevel::All(1)),
            ..Default::default()
        })
        .unwrap() else {
            panic!("a config is an object")
        };
        for key in written.keys() {
            let fixed = FIXED.iter().any(|(fixed, _)| fixed == key);
            let known = ours.contains_key(key) || HARMLESS.contains(&key.as_str());
            assert!(fixed || known, "{key}");
        }
    }
}
