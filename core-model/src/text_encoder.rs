//! CLIP's text encoder, `CLIPTextModel` in transformers: what turns a prompt into the hidden
//! states that the U-Net attends to.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::canonical;
use crate::config::{apply_config_dicts, from_object, read_object};
use crate::error::Result;
use crate::network::{Class, Network};
use crate::nn::{Embedding, LayerNorm};
use crate::ops;
use crate::params::{ParamBuilder, ParamNames, to_vec};
use crate::vit::{Activation, CLIP_KEYS, Norm, Transformer, TransformerConfig};

/// The key of the token table.
pub(crate) const TOKEN_TABLE: &str = "embeddings.token_embedding.weight";

/// `config.json` of a `CLIPTextModel`; absent keys take that class's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextEncoderConfig {
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
    /// Start of text.
    pub bos_token_id: u32,
    /// End of text; 2 is written by old files that mean "the largest id".
    pub eos_token_id: u32,
    /// What fills the positions after the end.
    pub pad_token_id: u32,
    /// Channels of the shared space, used by a whole CLIP model only.
    pub projection_dim: usize,
}

impl Default for TextEncoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            bos_token_id: 49406,
            eos_token_id: 49407,
            pad_token_id: 1,
            projection_dim: 512,
        }
    }
}

/// Token and position tables, transformer, final norm: the part below `text_model` in a CLIP
/// model.
#[derive(Module, Debug)]
pub struct TextTransformer {
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Transformer,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    config: TextEncoderConfig,
    /// The format of the transformer; hidden states are given in float32.
    #[module(skip)]
    format: DType,
}

impl TextTransformer {
    pub(crate) fn new(config: &TextEncoderConfig, pb: &ParamBuilder) -> Result<Self> {
        let d = config.hidden_size;
        let sizes = TransformerConfig {
            hidden_size: d,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act,
            qkv_bias: true,
            causal: true,
            norm: Norm::Before,
            scaled: false,
            gated: false,
        };
        let tables = pb.pp("embeddings");
        let positions = config.max_position_embeddings;
        Ok(Self {
            token_embedding: Embedding::new(config.vocab_size, d, &tables.pp("token_embedding"))?,
            position_embedding: Embedding::new(positions, d, &tables.pp("position_embedding"))?,
            encoder: Transformer::new(&sizes, &CLIP_KEYS, &pb.pp("encoder.layers"))?,
            final_layer_norm: LayerNorm::new(d, config.layer_norm_eps, &pb.pp("final_layer_norm"))?,
            config: config.clone(),
            format: pb.computes_in(),
        })
    }

    /// The last hidden state [batch, n, channels]; see [`TextEncoder::forward`].
    pub(crate) fn forward(
        &self,
        ids: &[Vec<u32>],
        placeholder_rows: Option<Tensor<2>>,
    ) -> Tensor<3> {
        self.final_layer_norm
            .forward(self.before_norm(ids, placeholder_rows))
    }

    fn before_norm(&self, ids: &[Vec<u32>], placeholder_rows: Option<Tensor<2>>) -> Tensor<3> {
        let embedded = self.embed(ids, placeholder_rows);
        let positions = self.positions(&embedded);
        self.encode(embedded + positions)
    }

    /// As [`forward`](Self::forward), but the rows get no position embedding.
    fn forward_with_inputs(&self, ids: &[Vec<u32>], rows: Tensor<2>) -> Tensor<3> {
        let known = self.known(ids);
        let embedded = self.embed(&known, None);
        let positions = self.positions(&embedded);
        let inputs = self.put_in(ids, embedded + positions, rows);
        self.final_layer_norm.forward(self.encode(inputs))
    }

    /// The position embeddings of prompts as long as these, [1, n, channels].
    fn positions(&self, embedded: &Tensor<3>) -> Tensor<3> {
        let [_, n, d] = embedded.dims();
        let table = self.position_embedding.weight.val();
        table.narrow(0, 0, n).reshape([1, n, d])
    }

    fn encode(&self, inputs: Tensor<3>) -> Tensor<3> {
        let inputs = ops::cast(inputs, self.format);
        ops::cast(self.encoder.forward(inputs), DType::F32)
    }

    /// The prompts with token 0 at the places of their placeholders.
    fn known(&self, ids: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let vocab = self.config.vocab_size as u32;
        let known = |id: &u32| if *id < vocab { *id } else { 0 };
        ids.iter()
            .map(|row| row.iter().map(known).collect())
            .collect()
    }

    fn embed(&self, ids: &[Vec<u32>], placeholder_rows: Option<Tensor<2>>) -> Tensor<3> {
        let (batch, n) = (ids.len(), ids.first().map_or(0, Vec::len));
        assert!(
            ids.iter().all(|row| row.len() == n),
            "all prompts must have {n} positions"
        );
        let device = self.token_embedding.weight.val().device();
        let vocab = self.config.vocab_size as u32;
        let words = self.known(ids).concat().into_iter().map(i64::from);
        let words = TensorData::new(words.collect::<Vec<i64>>(), [batch, n]);
        let embedded = self
            .token_embedding
            .forward(Tensor::<2, Int>::from_data(words, &device));
        let Some(rows) = placeholder_rows else {
            assert!(
                ids.iter().flatten().all(|id| *id < vocab),
                "a prompt holds a placeholder but no rows were given for it"
            );
            return embedded;
        };
        self.put_in(ids, embedded, rows)
    }

    /// Rows [vectors, channels] at the places of the placeholders in inputs [batch, n, channels].
    fn put_in(&self, ids: &[Vec<u32>], inputs: Tensor<3>, rows: Tensor<2>) -> Tensor<3> {
        let vocab = self.config.vocab_size as u32;
        let [batch, n, _] = inputs.dims();
        let device = inputs.device();
        let [count, d] = rows.dims();
        assert_eq!(
            d, self.config.hidden_size,
            "placeholder rows must have the table's width"
        );
        let row_of = |id: &u32| i64::from(id.saturating_sub(vocab)).min(count as i64 - 1);
        let vectors: Vec<i64> = ids.iter().flatten().map(row_of).collect();
        let vectors = TensorData::new(vectors, [batch * n]);
        let vectors = Tensor::<1, Int>::from_data(vectors, &device);
        let vectors: Tensor<3> = rows.select(0, vectors).reshape([batch, n, d]);
        let is_placeholder: Vec<bool> = ids.iter().flatten().map(|id| *id >= vocab).collect();
        let mask = TensorData::new(is_placeholder, [batch, n, 1]);
        let mask = Tensor::<3, Bool>::from_data(mask, &device).expand([batch, n, d]);
        inputs.mask_where(mask, vectors)
    }

    /// The hidden state at the end of every prompt, [batch, channels]: the largest id where the
    /// config names the historical end token 2, else the first end token.
    pub(crate) fn pooled(&self, ids: &[Vec<u32>], hidden: Tensor<3>) -> Tensor<2> {
        let [batch, n, d] = hidden.dims();
        let end = self.config.eos_token_id;
        let rows: Vec<i64> = ids
            .iter()
            .enumerate()
            .map(|(row, ids)| {
                let at = if end == 2 {
                    let largest = ids.iter().max();
                    ids.iter().position(|id| Some(id) == largest)
                } else {
                    ids.iter().position(|id| *id == end)
                };
                (row * n + at.unwrap_or(0)) as i64
            })
            .collect();
        let device = hidden.device();
        hidden
            .reshape([batch * n, d])
            .select(0, Tensor::<1, Int>::from_data(rows.as_slice(), &device))
    }
}

/// A text encoder on its own, as a Stable Diffusion folder holds it.
#[derive(Module, Debug)]
pub struct TextEncoder {
    text_model: TextTransformer,
    #[module(skip)]
    names: ParamNames,
}

impl Network for TextEncoder {
    type Config = TextEncoderConfig;

    fn class(_config: &TextEncoderConfig) -> Class {
        Class::Transformers("CLIPTextModel", "clip_text_model")
    }

    /// What a whole CLIP model holds beside its text encoder is left out.
    fn new(config: &TextEncoderConfig, pb: &ParamBuilder) -> Result<Self> {
        let text_model = TextTransformer::new(config, pb)?;
        let others = [
            "text_projection.",
            "visual_projection.",
            "vision_model.",
            "logit_scale",
        ];
        pb.skip(|key| others.iter().any(|other| key.starts_with(other)));
        Ok(Self {
            text_model,
            names: pb.finish()?,
        })
    }

    /// Of a whole CLIP model the part about its text encoder.
    fn read_config(path: &Path) -> Result<TextEncoderConfig> {
        let mut object = read_object(path)?;
        apply_config_dicts(&mut object);
        if let Some(Value::Object(text)) = object.remove("text_config") {
            object.extend(text);
        }
        from_object(path, object)
    }

    fn config(&self) -> &TextEncoderConfig {
        &self.text_model.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }

    /// Keys may begin with `text_model.` or not.
    fn canonical_key(key: &str) -> Option<String> {
        canonical(key.strip_prefix("text_model.").unwrap_or(key))
    }

    fn written_key(key: &str) -> String {
        let key = key.strip_prefix("text_model.").unwrap_or(key);
        format!("text_model.{key}")
    }
}

impl TextEncoder {
    pub(crate) fn from_tower(text_model: TextTransformer, names: ParamNames) -> Self {
        Self { text_model, names }
    }

    /// The last hidden state [batch, n, channels] after the final norm, of prompts with n ids each.
    ///
    /// An id of `vocab_size + i` reads row i of `placeholder_rows` [vectors, channels] instead of
    /// the table; gradients flow to these rows when they are tracked.
    ///
    /// # Panics
    /// When prompts differ in length, or hold placeholders without rows.
    pub fn forward(&self, ids: &[Vec<u32>], placeholder_rows: Option<Tensor<2>>) -> Tensor<3> {
        self.text_model.forward(ids, placeholder_rows)
    }

    /// The same with rows that stand in the place of token and position embedding together, as
    /// Face2Diffusion puts them in: they get no position embedding.
    ///
    /// # Panics
    /// When prompts differ in length.
    pub fn forward_with_inputs(&self, ids: &[Vec<u32>], rows: Tensor<2>) -> Tensor<3> {
        self.text_model.forward_with_inputs(ids, rows)
    }

    /// What [`forward`](Self::forward) gives before its final norm.
    pub(crate) fn before_norm(
        &self,
        ids: &[Vec<u32>],
        placeholder_rows: Option<Tensor<2>>,
    ) -> Tensor<3> {
        self.text_model.before_norm(ids, placeholder_rows)
    }

    /// The final norm of hidden states [batch, n, channels].
    pub(crate) fn final_norm(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.text_model.final_layer_norm.forward(hidden)
    }

    /// The same network for a tokenizer with more tokens, whose rows [tokens, channels] follow the others.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn with_more_tokens(&self, rows: Tensor<2>) -> Result<Self> {
        let mut config = self.config().clone();
        config.vocab_size += rows.dims()[0];
        self.with_more_rows(TOKEN_TABLE, rows, &config)
    }

    /// The input embeddings of all tokens, [vocab_size, channels].
    pub fn token_table(&self) -> Tensor<2> {
        self.text_model.token_embedding.weight.val().inner()
    }

    /// The input embedding of a token, a row of the table.
    pub fn token_embedding(&self, id: u32) -> Vec<f32> {
        to_vec(self.token_table().narrow(0, id as usize, 1))
    }
}
