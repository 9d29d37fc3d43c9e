//! The layers that LoRA and OFT change: `targets = ..`.

use std::collections::BTreeSet;

use core_model::lora::LayerNames;
use core_model::personalized::PersonalizedModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Layers by a name for many of them, or by the ends of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"attention\", \"cross_attention\", \"transformer\", \"all\", or a list of ends of names, as [\"attn2.to_k\"]"
)]
pub enum Targets {
    /// One of four usual choices.
    Named(NamedTargets),
    /// Every layer whose name ends in one of these, as `"attn2.to_k"`.
    Ends(Vec<String>),
}

impl Default for Targets {
    fn default() -> Self {
        Self::Named(NamedTargets::Attention)
    }
}

/// The usual choices of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedTargets {
    /// `to_q`, `to_k`, `to_v` and `to_out.0` of self- and cross-attention, as diffusers' scripts; in
    /// the text encoder `q_proj`, `k_proj`, `v_proj` and `out_proj`.
    Attention,
    /// The same of cross-attention alone.
    CrossAttention,
    /// Every linear layer and 1x1 convolution of the transformers, as kohya's scripts; in the text
    /// encoder the feed-forward part as well.
    Transformer,
    /// The convolutions of residual blocks and samplers as well (LoCon).
    All,
}

const UNET_ATTENTION: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];
const TEXT_ATTENTION: [&str; 4] = [".q_proj", ".k_proj", ".v_proj", ".out_proj"];
const FEED_FORWARD: [&str; 2] = [".fc1", ".fc2"];
const BLOCKS: [&str; 3] = [".resnets.", ".downsamplers.", ".upsamplers."];

impl NamedTargets {
    fn holds(self, layer: &str) -> bool {
        let ends = |ends: &[&str]| ends.iter().any(|end| layer.ends_with(end));
        if layer.starts_with("text_encoder.") {
            let is_wide = matches!(self, Self::Transformer | Self::All);
            return ends(&TEXT_ATTENTION) || (is_wide && ends(&FEED_FORWARD));
        }
        match self {
            Self::Attention => ends(&UNET_ATTENTION),
            Self::CrossAttention => layer.contains(".attn2.") && ends(&UNET_ATTENTION),
            Self::Transformer => layer.contains(".attentions."),
            Self::All => {
                let in_block = BLOCKS.iter().any(|block| layer.contains(block));
                layer.contains(".attentions.") || in_block
            }
        }
    }
}

impl Targets {
    /// The layers of a model's U-Net, and with `text_encoder` of its text encoder.
    ///
    /// # Errors
    /// The end of a name that no layer has.
    pub fn layers(
        &self,
        model: &PersonalizedModel,
        text_encoder: bool,
    ) -> Result<BTreeSet<String>, String> {
        let names = LayerNames::of_model(model);
        let all = || {
            let all = names.own().iter();
            all.filter(|layer| text_encoder || layer.starts_with("unet."))
        };
        match self {
            Self::Named(named) => Ok(all().filter(|layer| named.holds(layer)).cloned().collect()),
            Self::Ends(ends) => {
                let is_end = |layer: &str, end: &str| layer.ends_with(&format!(".{end}"));
                if let Some(end) = ends
                    .iter()
                    .find(|end| !all().any(|layer| is_end(layer, end)))
                {
                    return Err(format!(
                        "`targets` holds {end:?}, with which the name of no layer ends; a name is for \
                         example `attn2.to_k`, or \"attention\" for all layers of that kind"
                    ));
                }
                let chosen = all().filter(|layer| ends.iter().any(|end| is_end(layer, end)));
                Ok(chosen.cloned().collect())
            }
        }
    }
}
