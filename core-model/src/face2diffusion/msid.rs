//! The multi-scale identity encoder: a vision transformer whose class token is read after several
//! layers, so that the shallow ones lose the camera pose as well.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::dino::{DinoConfig, class_tokens};
use crate::error::{Error, Result};
use crate::nn::{BatchNorm, LayerNorm};
use crate::params::{ParamBuilder, ParamNames};
use crate::vit::{
    Activation, Norm, PatchEmbedding, PatchGrid, Transformer, TransformerConfig, VIT_KEYS,
    VIT_PATCHES,
};

/// Epsilon of the heads' norms, torch's default.
const EPS: f64 = 1e-5;

/// The sizes of the encoder; absent keys are those of the published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MsidConfig {
    /// Side of an image, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer.
    pub num_attention_heads: usize,
    /// Epsilon of the layers' norms.
    pub layer_norm_eps: f64,
    /// The layers, from 0, after which the class token is read; in ascending order.
    pub layers: Vec<usize>,
    /// Whether each of these class tokens passes a batch norm and a layer norm of its own.
    pub norm_heads: bool,
}

impl Default for MsidConfig {
    fn default() -> Self {
        Self {
            image_size: 112,
            patch_size: 8,
            hidden_size: 384,
            intermediate_size: 1536,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-6,
            layers: vec![2, 5, 8, 11],
            norm_heads: true,
        }
    }
}

impl MsidConfig {
    /// Of a vision transformer whose class tokens are read after these layers, without heads.
    pub fn of_vit(vit: &DinoConfig, layers: &[usize]) -> Self {
        Self {
            image_size: vit.image_size,
            patch_size: vit.patch_size,
            hidden_size: vit.hidden_size,
            intermediate_size: vit.intermediate_size,
            num_hidden_layers: vit.num_hidden_layers,
            num_attention_heads: vit.num_attention_heads,
            layer_norm_eps: vit.layer_norm_eps,
            layers: layers.to_vec(),
            norm_heads: false,
        }
    }

    /// Channels of an identity.
    pub fn width(&self) -> usize {
        self.layers.len() * self.hidden_size
    }

    /// Refuses layers that the network does not have.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check_layers(&self) -> Result<()> {
        let Self {
            layers,
            num_hidden_layers,
            ..
        } = self;
        let ascending = layers.is_sorted_by(|a, b| a < b);
        let known = layers.iter().all(|layer| layer < num_hidden_layers);
        if layers.is_empty() || !ascending || !known {
            return Err(Error::Invalid(format!(
                "`layers` is {layers:?}; expected numbers from 0 to {} in ascending order, one for each \
                 layer after which the class token is read",
                num_hidden_layers.saturating_sub(1)
            )));
        }
        Ok(())
    }

    fn sizes(&self) -> TransformerConfig {
        TransformerConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            layer_norm_eps: self.layer_norm_eps,
            hidden_act: Activation::Gelu,
            qkv_bias: true,
            causal: false,
            norm: Norm::Before,
            scaled: false,
            gated: false,
        }
    }
}

/// What a class token passes before it is a part of the identity.
#[derive(Module, Debug)]
struct NormHead {
    batch_norm: BatchNorm,
    layer_norm: LayerNorm,
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Msid {
    embeddings: PatchEmbedding,
    encoder: Transformer,
    /// One for each layer that is read, or none.
    heads: Vec<NormHead>,
    #[module(skip)]
    config: MsidConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Msid {
    /// An encoder below `pb`.
    ///
    /// # Errors
    /// Impossible sizes, a missing or misshapen tensor.
    pub fn new(config: &MsidConfig, pb: &ParamBuilder) -> Result<Self> {
        config.check_layers()?;
        let d = config.hidden_size;
        let grid = PatchGrid {
            num_channels: 3,
            image_size: config.image_size,
            patch_size: config.patch_size,
        };
        let head = |layer: &usize| {
            let pb = pb.pp(format!("norms.layer_{layer}"));
            Ok(NormHead {
                batch_norm: BatchNorm::new(d, EPS, &pb.pp(0))?,
                layer_norm: LayerNorm::new(d, EPS, &pb.pp(1))?,
            })
        };
        let heads = config.layers.iter().filter(|_| config.norm_heads);
        Ok(Self {
            embeddings: PatchEmbedding::new(&grid, d, &VIT_PATCHES, &pb.pp("embeddings"))?,
            encoder: Transformer::new(&config.sizes(), &VIT_KEYS, &pb.pp("encoder.layer"))?,
            heads: heads.map(head).collect::<Result<_>>()?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    /// The encoder in a file with keys of timm or of transformers.
    ///
    /// # Errors
    /// [`Error::Format`] for a file without a head that the sizes name; what does not fit the sizes.
    pub fn of_file(config: &MsidConfig, mut file: Checkpoint, device: &Device) -> Result<Self> {
        let fused: Vec<String> = file
            .keys()
            .filter(|key| key.contains(FUSED))
            .map(String::from)
            .collect();
        for key in fused {
            let parts = ["query", "key", "value"];
            let parts =
                parts.map(|part| key.replace(FUSED, &format!(".attention.attention.{part}.")));
            file.split_rows(&key, &parts)?;
        }
        let missing = config.layers.iter().filter(|layer| {
            let key = format!("norms.layer_{layer}.0.weight");
            config.norm_heads && file.info(&key).is_none()
        });
        let missing: Vec<String> = missing
            .map(|layer| format!("`norms.layer_{layer}`"))
            .collect();
        if !missing.is_empty() {
            let reason = format!(
                "has no heads {}; adapter.json names the layers {:?}, and with \"norm_heads\": true each \
                 needs one: name the layers of this file there, or fetch msid.pt again",
                missing.join(", "),
                config.layers
            );
            return Err(Error::format(file.path(), reason));
        }
        Self::new(config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// The key of every parameter.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// [batch, 3, side, side] in -1..1 to identities [batch, layers * channels].
    pub fn forward(&self, faces: Tensor<4>) -> Tensor<2> {
        let tokens = self.embeddings.forward(faces);
        let states = self.encoder.hidden_states(tokens, &self.config.layers);
        let features = class_tokens(states);
        if self.heads.is_empty() {
            return features;
        }
        let d = self.config.hidden_size;
        let heads = self.heads.iter().enumerate().map(|(index, head)| {
            let token = features.clone().narrow(1, index * d, d);
            head.layer_norm.forward(head.batch_norm.forward(token))
        });
        Tensor::cat(heads.collect(), 1)
    }
}

/// What marks query, key and value in one tensor.
const FUSED: &str = ".attention.qkv.";

/// timm's names of the parts of a vision transformer, and those of transformers.
const TIMM: [(&str, &str); 8] = [
    (
        "patch_embed.proj.",
        "embeddings.patch_embeddings.projection.",
    ),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.qkv.", FUSED),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    ("blocks.", "encoder.layer."),
];

/// The spelling of transformers for a key of timm's or its own. The final norm is not used, and the count
/// of batches is no weight.
pub(crate) fn canonical_key(key: &str) -> Option<String> {
    let unused = ["norm.", "layernorm.", "head.", "pooler."];
    if unused.iter().any(|start| key.starts_with(start)) || key.ends_with("num_batches_tracked") {
        return None;
    }
    match key {
        "cls_token" => return Some("embeddings.cls_token".into()),
        "pos_embed" => return Some("embeddings.position_embeddings".into()),
        _ => {}
    }
    if key.starts_with("norms.") {
        return Some(key.to_string());
    }
    let renamed = TIMM
        .iter()
        .fold(key.to_string(), |key, (timm, ours)| key.replace(timm, ours));
    Some(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_timm_and_of_transformers_are_one() {
        for (timm, ours) in [
            ("cls_token", "embeddings.cls_token"),
            (
                "patch_embed.proj.bias",
                "embeddings.patch_embeddings.projection.bias",
            ),
            (
                "blocks.3.norm1.weight",
                "encoder.layer.3.layernorm_before.weight",
            ),
            (
                "blocks.11.attn.qkv.bias",
                "encoder.layer.11.attention.qkv.bias",
            ),
            (
                "blocks.0.attn.proj.weight",
                "encoder.layer.0.attention.output.dense.weight",
            ),
            (
                "blocks.0.mlp.fc1.weight",
                "encoder.layer.0.intermediate.dense.weight",
            ),
            (
                "blocks.0.mlp.fc2.weight",
                "encoder.layer.0.output.dense.weight",
            ),
            ("norms.layer_2.0.running_var", "norms.layer_2.0.running_var"),
        ] {
            assert_eq!(canonical_key(timm).as_deref(), Some(ours));
            assert_eq!(canonical_key(ours).as_deref(), Some(ours));
        }
        for unused in [
            "norm.weight",
            "layernorm.bias",
            "norms.layer_2.0.num_batches_tracked",
        ] {
            assert_eq!(canonical_key(unused), None, "{unused}");
        }
    }

    #[test]
    fn layers_that_do_not_exist_or_are_out_of_order_are_refused() {
        for layers in [vec![], vec![12], vec![5, 2], vec![2, 2]] {
            let config = MsidConfig {
                layers,
                ..MsidConfig::default()
            };
            let message = config.check_layers().map_err(|error| error.to_string());
            assert!(message.is_err_and(|message| message.contains("from 0 to 11")));
        }
        assert!(MsidConfig::default().check_layers().is_ok());
    }
}
