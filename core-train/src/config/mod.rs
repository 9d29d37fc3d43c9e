//! What the TOML files of `core-train train` say: one struct a section, the paper's values as
//! defaults, every unknown key an error.
//!
//! Reading goes in three steps: text to tree, `--set` edits of the tree ([`set_path`]), tree to
//! structs; then paths are taken relative to the file, prompt files read, and values checked. The
//! result says everything itself and is what a run folder keeps.

mod concept;
mod overrides;
mod paths;
mod prompt_source;
mod stage;
mod validate;

use std::path::{Path, PathBuf};

use core_model::files::read_to_string;
use core_model::noise_scheduler::PredictionType;
use core_model::params::WeightPrecision;
use core_model::source::ModelSource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use concept::{ConceptConfig, Group, Resize};
pub use overrides::{set_argument, set_path};
pub use prompt_source::PromptSource;
pub use stage::{LrSchedule, OptimizerConfig, Recipe, Rescale, RescaleWindow, StageConfig};

use crate::error::{Error, Result};

/// Everything that determines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// `cpu`, `wgpu[:i]` or `cuda[:i]`.
    #[serde(default = "cpu")]
    pub device: String,
    /// `[model]`.
    pub model: ModelConfig,
    /// `[concept]`.
    pub concept: ConceptConfig,
    /// `[validation]`: pictures on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
    /// `[[stages]]`, first to last.
    pub stages: Vec<StageConfig>,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder in the layout of diffusers, one-file checkpoint, or repository of the hub
    /// (`owner/name`).
    pub path: PathBuf,
    /// Which weights of several, as `fp16` for `model.fp16.safetensors`; the plain ones when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What a one-file checkpoint of Stable Diffusion 2.x predicts, which the file does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// Number format in which frozen weights are kept in memory; what is trained, and everything
    /// that is computed, is float32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<WeightPrecision>,
}

impl ModelConfig {
    /// The model that it names.
    pub fn source(&self) -> ModelSource {
        ModelSource {
            path: self.path.clone(),
            variant: self.variant.clone(),
            prediction_type: self.prediction_type,
            precision: self.precision.unwrap_or_default(),
        }
    }

    /// The same, its path seen from `folder`.
    #[must_use]
    pub fn seen_from(mut self, folder: &Path) -> Self {
        self.path = paths::resolve_model(folder, &self.path);
        self
    }
}

/// `[validation]`: images with the same noise every time, so that they show what changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Steps between two sets of images, counted in each stage.
    pub every: usize,
    /// One image each; `{}` is the concept.
    pub prompts: Vec<String>,
}

fn cpu() -> String {
    "cpu".into()
}

impl RunConfig {
    /// Reads a file, applies `--set` arguments, completes and checks.
    ///
    /// # Errors
    /// [`Error::Toml`], [`Error::Override`] and [`Error::Config`], each naming key and reason.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self> {
        let config: Self = if sets.is_empty() {
            parse(path)?
        } else {
            let mut tree = parse::<toml::Table>(path)?;
            for set in sets {
                set_argument(&mut tree, set)?;
            }
            from_tree(path, tree)?
        };
        config.complete(path)
    }

    /// The same for a configuration that was put together by a program: its paths are relative to
    /// the folder of `origin`, a file which errors name.
    ///
    /// # Errors
    /// [`Error::Config`] naming key and reason.
    pub fn complete(mut self, origin: &Path) -> Result<Self> {
        let base = paths::folder_of(origin);
        self.model = self.model.seen_from(&base);
        self.concept.images = paths::resolve(&base, &self.concept.images);
        self.concept.placeholder_token = Some(self.concept.placeholder_token());
        let group = self.concept.group;
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.complete(index, &base, group, origin)?;
        }
        validate::run(&self, origin)?;
        Ok(self)
    }

    /// The text of `config.toml` in `folder`: complete, with paths relative to that folder.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when the values cannot be written as TOML.
    pub fn to_toml(&self, folder: &Path) -> Result<String> {
        let mut config = self.clone();
        config.model.path = paths::relative_model(folder, &config.model.path);
        config.concept.images = paths::relative(folder, &config.concept.images);
        toml::to_string(&config).map_err(|error| Error::run_folder(folder, error.to_string()))
    }

    /// Whether any stage changes weights of the U-Net.
    pub fn trains_unet(&self) -> bool {
        self.stages.iter().any(StageConfig::trains_unet)
    }

    /// The kinds of regularisers of all stages, in order of first appearance: the columns of
    /// `metrics.csv`.
    pub fn regularizer_kinds(&self) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        for regularizer in self.stages.iter().flat_map(|stage| &stage.regularizers) {
            if !kinds.contains(&regularizer.kind()) {
                kinds.push(regularizer.kind());
            }
        }
        kinds
    }
}

/// Reads a TOML file; errors show line, column and, for names, what is valid.
///
/// # Errors
/// [`Error::Model`] when it cannot be read, [`Error::Toml`] when it does not fit.
pub fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_to_string(path)?;
    toml::from_str(&text).map_err(|error| toml_error(path, &error))
}

/// From an edited tree to structs.
///
/// # Errors
/// [`Error::Toml`] naming the key.
pub fn from_tree<T: DeserializeOwned>(path: &Path, tree: toml::Table) -> Result<T> {
    tree.try_into().map_err(|error| toml_error(path, &error))
}

fn toml_error(path: &Path, error: &toml::de::Error) -> Error {
    Error::Toml {
        path: path.to_path_buf(),
        reason: error.to_string().trim_end().to_string(),
    }
}

/// A model path as `[model]` with nothing else.
impl From<PathBuf> for ModelConfig {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            variant: None,
            prediction_type: None,
            precision: None,
        }
    }
}
