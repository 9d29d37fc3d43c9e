//! Which weights a stage may move.
//!
//! A new set is one variant and one line in [`TrainSet::holds`].

use serde::{Deserialize, Serialize};

/// A set of weights, by its name in `stages.train`. Sets may be combined; the text encoder and
/// the autoencoder are always frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainSet {
    /// The concept's rows of the token table.
    Embedding,
    /// All weights of the U-Net.
    Unet,
    /// The cross-attention layers of the U-Net.
    CrossAttention,
    /// What those layers read from the prompt: keys and values (Custom Diffusion).
    CrossAttentionKv,
}

impl TrainSet {
    /// The name in TOML files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Unet => "unet",
            Self::CrossAttention => "cross_attention",
            Self::CrossAttentionKv => "cross_attention_kv",
        }
    }

    /// Whether the set holds the U-Net's weight with this key of the checkpoint.
    pub fn holds(self, key: &str) -> bool {
        match self {
            Self::Embedding => false,
            Self::Unet => true,
            Self::CrossAttention => key.contains(".attn2."),
            Self::CrossAttentionKv => key.contains(".attn2.to_k.") || key.contains(".attn2.to_v."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TrainSet;

    #[test]
    fn sets_are_chosen_by_the_keys_of_diffusers() {
        let block = "down_blocks.1.attentions.0.transformer_blocks.0";
        let key = |name: &str| format!("{block}.{name}.weight");
        for (set, chosen) in [
            (TrainSet::Embedding, [false; 4]),
            (TrainSet::Unet, [true; 4]),
            (TrainSet::CrossAttention, [false, true, true, true]),
            (TrainSet::CrossAttentionKv, [false, false, true, true]),
        ] {
            let names = ["attn1.to_k", "attn2.to_out.0", "attn2.to_k", "attn2.to_v"];
            assert_eq!(names.map(|name| set.holds(&key(name))), chosen, "{set:?}");
        }
    }
}
