//! `embedding`: the concept's input embeddings (Textual Inversion, CoRe's first stage).

use std::path::Path;

use core_model::learned_embedding::LearnedEmbedding;
use core_model::params::to_vec;
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Adapter, Direction, Loading, Trained, metadata};
use crate::error::Result;
use crate::phrase::Phrase;

/// The concept's file in a run folder.
pub const EMBEDDING: &str = "learned_embeds.safetensors";

/// The vectors of the concept's token (Textual Inversion, the first stage of CoRe).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// The direction of the vectors alone, at a fixed length. Absent: direction and length are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

impl Adapter for Embedding {
    fn moves(&self, name: &str) -> bool {
        name == ConceptEmbedding::NAME
    }

    fn extend(&self, model: PersonalizedModel, _: u64) -> Result<PersonalizedModel> {
        match self.direction {
            Some(direction) => direction.apply(model),
            None => Ok(model),
        }
    }

    fn file(&self) -> &'static str {
        EMBEDDING
    }

    fn is_concept(&self) -> bool {
        true
    }

    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()> {
        let embedding = learned_embedding(trained.phrase, trained.base_name, trained.model)?;
        let Some(mut embedding) = embedding else {
            return Ok(());
        };
        if self.direction.is_some() {
            let scale = length(&embedding.vectors[..embedding.dim]);
            embedding.metadata.insert("scale".into(), scale.to_string());
        }
        Ok(embedding.save(path)?)
    }

    fn load(
        &self,
        path: &Path,
        loading: Loading<'_>,
        mut pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        let embedding = LearnedEmbedding::load(path)?;
        pipeline.add_concept(&embedding, loading.phrase.token())?;
        Ok(pipeline)
    }
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt()
}

/// The concept of a model under its placeholder token, with super-category and base model in its
/// metadata; `None` for a model whose concept has no vectors.
///
/// # Errors
/// Vectors that are NaN or infinite.
pub fn learned_embedding(
    phrase: &Phrase,
    base_name: &Path,
    model: &PersonalizedModel,
) -> Result<Option<LearnedEmbedding>> {
    let Some(concept) = model.embedding() else {
        return Ok(None);
    };
    let vectors = concept.vectors();
    let [_, width] = vectors.dims();
    let values = to_vec(vectors);
    let rows: Vec<Vec<f32>> = values.chunks(width).map(<[f32]>::to_vec).collect();
    let mut embedding = LearnedEmbedding::new(phrase.token(), &rows)?;
    embedding.metadata.extend(metadata(phrase, base_name));
    Ok(Some(embedding))
}
