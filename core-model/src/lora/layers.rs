//! What tools call the layers of a model.
//!
//! kohya's scripts replace the dots of a name by `_`, which cannot be undone by looking at the text
//! (`to_out_0`, `proj_in`): the names are looked up among those of the model's own layers. Files for
//! the original code's U-Net name its blocks by number (`input_blocks_4_1_..`), as most of SDXL do.

use std::collections::HashMap;

use crate::error::Result;
use crate::network::Network;
use crate::params::ParamNames;
use crate::personalized::{PersonalizedModel, TEXT_ENCODER, UNET};
use crate::text_encoder::{TextEncoder, TextEncoderConfig};
use crate::unet::{UNet2DConditionConfig, UNet2DConditionModel};

/// The layers of a model that a LoRA may change, by each of their names.
#[derive(Debug, Clone)]
pub struct LayerNames {
    /// From a name without dots, below `lora_unet_` or `lora_te_`, to the layer's own.
    flat: HashMap<String, String>,
    /// The layers' own names.
    own: Vec<String>,
}

impl LayerNames {
    /// Those of a model.
    pub fn of_model(model: &PersonalizedModel) -> Self {
        let unet = model.unet();
        Self::of(unet.config(), unet.names(), model.text_encoder().names())
    }

    /// Those of Stable Diffusion 1.x and 2.x, whose layers have the same names.
    ///
    /// # Errors
    /// None that depends on files.
    pub fn of_stable_diffusion() -> Result<Self> {
        // 2.x has 23 layers, 1.x has 12.
        let text = TextEncoderConfig {
            num_hidden_layers: 24,
            ..TextEncoderConfig::default()
        };
        let unet = UNet2DConditionConfig::default();
        let names = UNet2DConditionModel::names_of(&unet)?;
        Ok(Self::of(&unet, &names, &TextEncoder::names_of(&text)?))
    }

    fn of(config: &UNet2DConditionConfig, unet: &ParamNames, text_encoder: &ParamNames) -> Self {
        let mut names = Self {
            flat: HashMap::new(),
            own: Vec::new(),
        };
        for layer in layers(unet) {
            let own = format!("{UNET}.{layer}");
            let mut flat = vec![layer.clone()];
            flat.extend(original_name(&layer, config));
            names.add(flat.iter().map(|name| format!("{UNET}.{name}")), own);
        }
        for layer in layers(text_encoder) {
            let own = format!("{TEXT_ENCODER}.{layer}");
            let flat = format!("{TEXT_ENCODER}.text_model.{layer}");
            names.add([flat].into_iter(), own);
        }
        names.own.sort();
        names
    }

    fn add(&mut self, flat: impl Iterator<Item = String>, own: String) {
        let flat = flat.map(|name| (name.replace('.', "_"), own.clone()));
        self.flat.extend(flat);
        self.own.push(own);
    }

    /// The layer that a name with dots, as `unet.mid_block.attentions.0.proj_in`, means.
    pub(super) fn dotted(&self, name: &str) -> Option<&str> {
        let name = name.replace(".text_model.", ".");
        let at = self.own.binary_search(&name).ok()?;
        Some(&self.own[at])
    }

    /// The layer that a name without dots, below the prefix of its network, means.
    pub(super) fn flat(&self, network: &str, name: &str) -> Option<&str> {
        let name = format!("{network}_{name}");
        self.flat.get(&name).map(String::as_str)
    }

    /// The layers' names among a [`PersonalizedModel`]'s tensors, without `.weight`, sorted.
    pub fn own(&self) -> &[String] {
        &self.own
    }
}

/// The layers with a weight of two or four dimensions, tables of embeddings left out.
fn layers(names: &ParamNames) -> impl Iterator<Item = String> {
    let weights = names
        .iter()
        .filter(|(_, shape)| [2, 4].contains(&shape.len()));
    let layers = weights.filter_map(|(name, _)| name.strip_suffix(".weight"));
    layers
        .filter(|layer| !layer.ends_with("_embedding"))
        .map(String::from)
}

/// What the original code calls a layer of a block of the U-Net.
fn original_name(layer: &str, config: &UNet2DConditionConfig) -> Option<String> {
    let parts: Vec<&str> = layer.split('.').collect();
    let number = |at: usize| parts.get(at)?.parse::<usize>().ok();
    let per_block = config.layers_per_block.at(0)?;
    let below = |from: usize| parts.get(from..).unwrap_or_default().join("_");
    let place = |block: String, kind: &str, from: usize| match kind {
        "attentions" => Some(format!("{block}_1_{}", below(from))),
        "resnets" => Some(format!("{block}_0_{}", resnet_part(parts.get(from)?)?)),
        _ => None,
    };
    match (parts[0], parts.get(1).copied()?) {
        ("down_blocks", _) => {
            let (level, index) = (number(1)?, number(3)?);
            let first = 1 + (per_block + 1) * level;
            match parts[2] {
                "downsamplers" => Some(format!("input_blocks_{}_0_op", first + per_block)),
                kind => place(format!("input_blocks_{}", first + index), kind, 4),
            }
        }
        ("mid_block", "attentions") => Some(format!("middle_block_1_{}", below(3))),
        ("mid_block", "resnets") => {
            let part = resnet_part(parts.get(3)?)?;
            Some(format!("middle_block_{}_{part}", 2 * number(2)?))
        }
        ("up_blocks", _) => {
            let (level, index) = (number(1)?, number(3)?);
            let first = (per_block + 1) * level;
            let has_attention = config.up_block_types.get(level)?.has_attention();
            match parts[2] {
                "upsamplers" => Some(format!(
                    "output_blocks_{}_{}_conv",
                    first + per_block,
                    1 + usize::from(has_attention)
                )),
                kind => place(format!("output_blocks_{}", first + index), kind, 4),
            }
        }
        _ => None,
    }
}

fn resnet_part(part: &str) -> Option<&'static str> {
    match part {
        "conv1" => Some("in_layers_2"),
        "conv2" => Some("out_layers_3"),
        "time_emb_proj" => Some("emb_layers_1"),
        "conv_shortcut" => Some("skip_connection"),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_by_the_names_of_all_tools() {
        let names = LayerNames::of_stable_diffusion().unwrap();
        for (flat, own) in [
            (
                "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0",
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
            ),
            (
                "input_blocks_4_1_transformer_blocks_0_attn2_to_out_0",
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
            ),
            (
                "input_blocks_3_0_op",
                "unet.down_blocks.0.downsamplers.0.conv",
            ),
            (
                "middle_block_1_proj_in",
                "unet.mid_block.attentions.0.proj_in",
            ),
            (
                "middle_block_2_in_layers_2",
                "unet.mid_block.resnets.1.conv1",
            ),
            (
                "output_blocks_2_1_conv",
                "unet.up_blocks.0.upsamplers.0.conv",
            ),
            (
                "output_blocks_5_2_conv",
                "unet.up_blocks.1.upsamplers.0.conv",
            ),
            (
                "output_blocks_11_1_transformer_blocks_0_ff_net_0_proj",
                "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj",
            ),
            (
                "output_blocks_8_0_emb_layers_1",
                "unet.up_blocks.2.resnets.2.time_emb_proj",
            ),
        ] {
            assert_eq!(names.flat(UNET, flat), Some(own), "{flat}");
        }
        let own = "text_encoder.encoder.layers.3.mlp.fc1";
        assert_eq!(
            names.flat(TEXT_ENCODER, "text_model_encoder_layers_3_mlp_fc1"),
            Some(own)
        );
        assert_eq!(
            names.dotted("text_encoder.text_model.encoder.layers.3.mlp.fc1"),
            Some(own)
        );
        assert_eq!(names.dotted(own), Some(own));
        assert_eq!(names.flat(UNET, "down_blocks_1_attentions_9_proj_in"), None);
    }
}
