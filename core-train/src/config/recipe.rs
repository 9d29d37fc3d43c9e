//! A recipe: a method without a concept.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths;
use super::prompt_source::PromptSource;
use super::stage::StageConfig;
use super::{ConceptConfig, ModelConfig, RunConfig, TuningFree};
use crate::initializers::InitializerConfig;

/// A method without a concept: how the concept is written in prompts, where learning starts, and the
/// stages of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The text that replaces `{}` in prompts. It contains `{token}`, the concept's token, and may
    /// contain `{class}`, the super-category; with `adapter` it may be `{class}` alone. Absent: `"{token}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<String>,
    /// A rare word that serves as the concept's token, in one or more entries of the vocabulary. Absent:
    /// a new token is learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rare_token: Option<String>,
    /// The vectors at which learning the concept's embedding starts. Absent: `"super_category"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<InitializerConfig>,
    /// The number of vectors that are learned. Absent: that of the concept, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_vectors: Option<usize>,
    /// A tuning-free encoder that makes what stands for the concept from its photos. Absent: the stages
    /// train it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<TuningFree>,
    /// The stages of training, first to last; none with `adapter`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageConfig>,
}

impl Recipe {
    /// Takes prompt files relative to the recipe's own place, so that the stages can be put into
    /// a [`RunConfig`] that lies elsewhere.
    #[must_use]
    pub fn anchored(mut self, path: &Path) -> Self {
        let base = paths::folder_of(path);
        let resolve = |file: &mut PathBuf| *file = paths::resolve(&base, file);
        let folders = self.stages.iter_mut();
        folders
            .flat_map(StageConfig::class_image_folders)
            .for_each(&resolve);
        if let Some(adapter) = &mut self.adapter {
            resolve(&mut adapter.path);
        }
        if let Some(file) = self.initializer.as_mut().and_then(InitializerConfig::file) {
            resolve(file);
        }
        for source in self.stages.iter_mut().flat_map(StageConfig::prompt_sources) {
            match source {
                PromptSource::List(_) => {}
                PromptSource::File(file) => resolve(file),
                PromptSource::ByGroup { animate, inanimate } => {
                    resolve(animate);
                    resolve(inanimate);
                }
            }
        }
        self
    }

    /// The run that trains this recipe on a concept.
    pub fn run(
        &self,
        seed: u64,
        device: &str,
        model: ModelConfig,
        concept: ConceptConfig,
    ) -> RunConfig {
        RunConfig {
            seed,
            device: device.to_string(),
            recipe: None,
            phrase: self.phrase.clone(),
            rare_token: self.rare_token.clone(),
            initializer: self.initializer.clone(),
            num_vectors: self.num_vectors,
            adapter: self.adapter.clone(),
            model,
            concept,
            validation: None,
            report_to: Vec::new(),
            checkpoint_every: None,
            stages: self.stages.clone(),
        }
    }
}
