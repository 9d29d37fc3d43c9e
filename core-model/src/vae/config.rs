//! `config.json` of an `AutoencoderKL`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{read_config, read_object};
use crate::error::{Error, Result};
use crate::unet::config::check_fixed;

/// Keys that would change the computation, and the only value that this project honours.
const FIXED: [(&str, &str); 3] = [
    ("act_fn", "\"silu\""),
    ("shift_factor", "null"),
    ("latents_mean", "null"),
];

/// The one kind of level on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Residual blocks.
    DownEncoderBlock2D,
}

/// The one kind of level on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Residual blocks.
    UpDecoderBlock2D,
}

/// `config.json` of an `AutoencoderKL`; absent keys take that class's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of a decoded image.
    pub out_channels: usize,
    /// Levels of the encoder.
    pub down_block_types: Vec<DownBlockType>,
    /// Levels of the decoder.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels of every level, from the highest resolution down.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of every level; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Side of the images that the model was trained on.
    pub sample_size: usize,
    /// Latents times this have unit variance.
    pub scaling_factor: f64,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the lowest level has self-attention.
    pub mid_block_add_attention: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DownBlockType::DownEncoderBlock2D],
            up_block_types: vec![UpBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl VaeConfig {
    /// How many pixels a latent is wide.
    pub fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Reads a config and refuses what the network below cannot compute.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, its value and what is supported.
    pub fn from_file(path: &Path) -> Result<Self> {
        check_fixed(path, &read_object(path)?, &FIXED)?;
        let config: Self = read_config(path)?;
        config
            .check()
            .map_err(|(key, value, expected)| Error::Config {
                path: path.to_path_buf(),
                key: key.to_string(),
                value,
                expected,
            })?;
        Ok(config)
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String, String)> {
        let levels = self.block_out_channels.len();
        if levels == 0 {
            return Err((
                "block_out_channels",
                "empty".into(),
                "at least one level".into(),
            ));
        }
        for (key, count) in [
            ("down_block_types", self.down_block_types.len()),
            ("up_block_types", self.up_block_types.len()),
        ] {
            if count != levels {
                return Err((key, format!("{count} long"), format!("{levels} entries")));
            }
        }
        let groups = self.norm_num_groups;
        for channels in &self.block_out_channels {
            if groups == 0 || *channels == 0 || !channels.is_multiple_of(groups) {
                let expected = format!("multiples of norm_num_groups, {groups}");
                return Err(("block_out_channels", channels.to_string(), expected));
            }
        }
        Ok(())
    }
}
