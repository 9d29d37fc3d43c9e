//! `neti`: a mapper that gives the concept another embedding at every timestep and for every
//! cross-attention layer (NeTI).

use std::path::Path;

use core_model::Network;
use core_model::neti::{FREQUENCIES, NetiConfig, NetiMapper, PREFIX};
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Adapter, Loading, Trained};
use crate::error::Result;
use crate::off::Off;

/// The mapper's file in a run folder.
pub const NETI: &str = "neti.safetensors";

/// A mapper that gives the concept's token another embedding at every timestep and for every cross-attention layer of the
/// U-Net (NeTI). The initializer decides its length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Neti {
    /// The number of units of each hidden layer.
    pub hidden: usize,
    /// The number of frequencies by which timestep and layer are encoded.
    pub frequencies: usize,
    /// The number of timesteps, for each layer, whose features the first layer starts with.
    pub time_anchors: usize,
    /// The standard deviation of the frequencies of the timestep.
    pub sigma_t: f64,
    /// The standard deviation of the frequencies of the layer.
    pub sigma_l: f64,
    /// The probability with which a forward pass keeps only the first hidden units of a layer's embedding, a random
    /// number of them for each sample.
    pub nested_dropout: f64,
    /// The strength with which a second vector is added to the hidden state of the token, of which values are made;
    /// `false` makes keys and values of the same states.
    pub bypass: Bypass,
}

/// A strength, or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected `bypass` to be a number above 0 or false"
)]
pub enum Bypass {
    /// The length of what is added, relative to the hidden state.
    Strength(f64),
    /// Nothing is added.
    Off(Off),
}

impl Default for Neti {
    fn default() -> Self {
        Self {
            hidden: 128,
            frequencies: 1024,
            time_anchors: 10,
            sigma_t: 0.03,
            sigma_l: 2.0,
            nested_dropout: 0.5,
            bypass: Bypass::Strength(0.2),
        }
    }
}

impl Neti {
    /// What it makes of a model whose concept starts at a vector of this norm.
    fn config(&self, model: &PersonalizedModel, target_norm: f32) -> NetiConfig {
        NetiConfig {
            hidden: self.hidden,
            frequencies: self.frequencies,
            time_anchors: self.time_anchors,
            bypass: match self.bypass {
                Bypass::Strength(strength) => Some(strength),
                Bypass::Off(_) => None,
            },
            layers: model.unet().cross_attentions(),
            channels: model.text_encoder().config().hidden_size,
            target_norm,
        }
    }
}

impl Adapter for Neti {
    fn moves(&self, name: &str) -> bool {
        name.starts_with(PREFIX) && name != FREQUENCIES
    }

    fn extend(&self, model: PersonalizedModel, seed: u64) -> Result<PersonalizedModel> {
        // A later stage goes on with the mapper of an earlier one.
        let Some(embedding) = model.embedding() else {
            return Ok(model);
        };
        let config = self.config(&model, embedding.norm());
        let sigmas = [self.sigma_t, self.sigma_l];
        let device = embedding.vectors().device();
        let mapper = NetiMapper::random(config, sigmas, seed, &device)?;
        Ok(model.with_mapper(mapper))
    }

    fn parameter(&self, key: &str) -> Option<String> {
        key.starts_with(PREFIX).then(|| key.to_string())
    }

    fn file(&self) -> &'static str {
        NETI
    }

    fn is_concept(&self) -> bool {
        true
    }

    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()> {
        let Some(mapper) = trained.model.mapper() else {
            return Ok(());
        };
        let mut metadata = trained.metadata();
        let token = trained.phrase.token().to_string();
        metadata.insert("placeholder_token".into(), token);
        Ok(mapper.save(path, &metadata)?)
    }

    fn load(
        &self,
        path: &Path,
        loading: Loading<'_>,
        mut pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        let model = &pipeline.model;
        let device = model.text_encoder().token_table().device();
        let channels = model.text_encoder().config().hidden_size;
        let layers = model.unet().cross_attentions();
        let mapper = NetiMapper::load(path, channels, layers, &device)?;
        pipeline.add_mapper(mapper, loading.phrase.token())?;
        Ok(pipeline)
    }
}
