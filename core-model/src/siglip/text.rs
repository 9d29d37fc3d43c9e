//! The text tower of SigLIP.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::TowerSizes;
use crate::error::Result;
use crate::nn::{Embedding, LayerNorm, Linear};
use crate::params::ParamBuilder;
use crate::vit::{Activation, CLIP_KEYS, Transformer};

/// The `text_config` of a SigLIP model; absent keys take transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SiglipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer.
    pub num_attention_heads: usize,
    /// Positions of a prompt.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Channels of the shared space; those of a token when absent.
    pub projection_size: Option<usize>,
}

impl Default for SiglipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 64,
            hidden_act: Activation::GeluNew,
            layer_norm_eps: 1e-6,
            projection_size: None,
        }
    }
}

impl SiglipTextConfig {
    /// Channels of the shared space.
    pub(super) fn projection(&self) -> usize {
        self.projection_size.unwrap_or(self.hidden_size)
    }
}

/// Token and position tables, transformer, final norm, and a linear map of the last position.
#[derive(Module, Debug)]
pub(super) struct TextTower {
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Transformer,
    final_layer_norm: LayerNorm,
    head: Linear,
}

impl TextTower {
    pub(super) fn new(config: &SiglipTextConfig, pb: &ParamBuilder) -> Result<Self> {
        let (d, positions) = (config.hidden_size, config.max_position_embeddings);
        let sizes = TowerSizes {
            hidden_size: d,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act,
        };
        let (tables, layers) = (pb.pp("embeddings"), pb.pp("encoder.layers"));
        Ok(Self {
            token_embedding: Embedding::new(config.vocab_size, d, &tables.pp("token_embedding"))?,
            position_embedding: Embedding::new(positions, d, &tables.pp("position_embedding"))?,
            encoder: Transformer::new(&sizes.transformer(), &CLIP_KEYS, &layers)?,
            final_layer_norm: LayerNorm::new(d, config.layer_norm_eps, &pb.pp("final_layer_norm"))?,
            head: Linear::new(d, config.projection(), true, &pb.pp("head"))?,
        })
    }

    /// Prompts of n ids each to features [batch, shared]. The last position is read, which is padding
    /// in nearly every prompt: the network was trained so.
    pub(super) fn forward(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let (batch, n) = (ids.len(), ids.first().map_or(0, Vec::len));
        assert!(
            ids.iter().all(|row| row.len() == n),
            "all prompts must have {n} positions"
        );
        let table = self.position_embedding.weight.val();
        let [positions, d] = table.dims();
        assert!(
            (1..=positions).contains(&n),
            "prompts must have 1 to {positions} positions, not {n}"
        );
        let values: Vec<i64> = ids.iter().flatten().map(|id| i64::from(*id)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(values, [batch, n]), &table.device());
        let positions = table.narrow(0, 0, n).reshape([1, n, d]);
        let hidden = self
            .encoder
            .forward(self.token_embedding.forward(ids) + positions);
        let last = hidden.narrow(1, n - 1, 1).reshape([batch, d]);
        self.head.forward(self.final_layer_norm.forward(last))
    }
}
