//! What the TOML files of `core-train train` say: one struct per section, the paper's values as
//! defaults, every unknown key an error.
//!
//! Reading goes in three steps: text to tree, the recipe's keys and `--set` edits of the tree
//! ([`set_path`]), tree to structs; then paths are taken relative to the file, prompt files read, and values checked. The
//! result says everything itself and is what a run folder keeps.

mod checker;
mod concept;
mod optimizer;
mod overrides;
mod paths;
mod prompt_source;
mod recipe;
mod sets;
mod stage;
mod train_entry;
mod tuning_free;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_losses::LossTerm;
use core_metrics::Metric;
use core_model::Precision;
use core_model::files::read_to_string;
use core_model::noise_scheduler::PredictionType;
use core_model::source::ModelSource;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use concept::{ConceptConfig, Group, Resize};
pub use optimizer::{LrSchedule, OptimizerConfig, OptimizerKind};
pub use overrides::{set_argument, set_path};
pub use paths::relative as relative_path;
pub use prompt_source::PromptSource;
pub use recipe::Recipe;
pub use stage::{Rescale, RescaleWindow, StageConfig};
pub use train_entry::TrainEntry;
pub use tuning_free::TuningFree;

use crate::adapters::Neti;
use crate::error::{Error, Result};
use crate::initializers::InitializerConfig;
use crate::logging::{ReportTo, Wanted};
use crate::phrase::Phrase;

/// A run: one concept, learned by one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// The device to compute on: `cpu`, `wgpu`, `cuda`, or one of several as in `cuda:1`.
    #[serde(default = "cpu")]
    pub device: String,
    /// A recipe file. Its stages and keys apply wherever this file does not set them itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
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
    /// The model to start from.
    pub model: ModelConfig,
    /// The concept to learn.
    pub concept: ConceptConfig,
    /// Images during training. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
    /// Where the numbers of every step go beside `metrics.csv`. Absent: nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report_to: Vec<ReportTo>,
    /// The number of steps between two checkpoints, each a run folder of its own below `checkpoints/`; it
    /// is counted anew in each stage. Absent: no checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<usize>,
    /// The stages of training, first to last; none with `adapter`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageConfig>,
}

/// A Stable Diffusion 1.x or 2.x model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder in diffusers' layout, a one-file checkpoint, or a repository of the Hugging Face hub
    /// as `owner/name`, or as `owner/name@revision` with a branch, a tag or a commit.
    pub path: PathBuf,
    /// The variant of the weights, as `fp16` for `model.fp16.safetensors`. Absent: the files without
    /// a variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What the U-Net of a one-file checkpoint predicts. It must be set for Stable Diffusion 2.x when
    /// the file does not contain it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// The number format of frozen weights in memory. GPUs compute products in it, and cuda convolutions too;
    /// trained weights, losses and everything else, and all on the cpu, are in float32. Absent: `float32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
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

/// Images during training, always from the same noise, so that they show what training changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// The number of steps between two sets of images; it is counted anew in each stage.
    pub every: usize,
    /// One image is drawn for each of these prompts. `{}` stands for the concept.
    pub prompts: Vec<String>,
    /// Whether the images are scored, as under the protocol `dreambooth`; the means stand in
    /// `metrics.csv`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub scores: bool,
    /// The folders of the image encoders that `scores` needs, by their keys below `[evaluation]` of
    /// an experiment: `{ clip = "..", dino = ".." }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub encoders: BTreeMap<String, PathBuf>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl ValidationConfig {
    /// The scores that its images get: those whose image encoders are named, without those that need
    /// images of the base model or a face.
    pub fn metrics(&self) -> impl Iterator<Item = Metric> {
        let named = |metric: &Metric| {
            let key = metric.definition().encoder().key;
            let needs_more = metric.reads_base_image() || metric.reads_faces();
            self.encoders.contains_key(key) && !needs_more
        };
        Metric::ALL.iter().copied().filter(named)
    }
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
        let mut tree = parse::<toml::Table>(path)?;
        let config: Self = if sets.is_empty() && !tree.contains_key(RECIPE) {
            // Errors of the text itself show the line.
            parse(path)?
        } else {
            // Another recipe comes before changes of its stages.
            let names_recipe = |set: &&String| set.split('=').next().map(str::trim) == Some(RECIPE);
            let (recipes, others): (Vec<_>, Vec<_>) = sets.iter().partition(names_recipe);
            for set in recipes {
                set_argument(&mut tree, set)?;
            }
            add_recipe(&mut tree, path)?;
            for set in others {
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
        for folder in self.concept.folders_mut() {
            *folder = paths::resolve(&base, folder);
        }
        self.resolve_adapter(&base);
        for folder in self.encoder_folders() {
            *folder = paths::resolve_model(&base, folder);
        }
        validate::num_vectors(&self, origin)?;
        let num_vectors = self.num_vectors.take().or(self.concept.num_vectors);
        self.concept.num_vectors = Some(num_vectors.unwrap_or(1));
        self.initializer = match self.initializer {
            Some(initializer) => Some(initializer.complete(&base)?),
            None => None,
        };
        validate::tokens(&self, origin)?;
        if self.rare_token.is_none() {
            self.concept.placeholder_token = Some(self.concept.placeholder_token());
        }
        let group = self.concept.group;
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.complete(index, &base, group, origin)?;
            for folder in stage.class_image_folders() {
                *folder = paths::resolve(&base, folder);
            }
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
        for photos in config.concept.folders_mut() {
            *photos = paths::relative(folder, photos);
        }
        if let Some(adapter) = &mut config.adapter {
            adapter.path = paths::relative(folder, &adapter.path);
        }
        for encoder in config.encoder_folders() {
            *encoder = paths::relative_model(folder, encoder);
        }
        for images in config
            .stages
            .iter_mut()
            .flat_map(StageConfig::class_image_folders)
        {
            *images = paths::relative(folder, images);
        }
        toml::to_string(&config).map_err(|error| Error::run_folder(folder, error.to_string()))
    }

    /// The folders of the image encoders that score validation images.
    fn encoder_folders(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let validation = self.validation.iter_mut();
        validation.flat_map(|validation| validation.encoders.values_mut())
    }

    /// How the concept is written in prompts.
    pub fn phrase(&self) -> Phrase {
        let placeholder = self.concept.placeholder_token();
        let token = self.rare_token.as_deref().unwrap_or(&placeholder);
        Phrase::new(self.phrase.as_deref(), token, &self.concept.super_category)
    }

    /// The mapper that the concept is, if a stage trains one.
    pub fn neti(&self) -> Option<&Neti> {
        self.stages.iter().find_map(StageConfig::neti)
    }

    /// What is written while it trains.
    pub(crate) fn log(&self) -> Wanted<'_> {
        let validation = self.validation.iter();
        let scores = validation.flat_map(ValidationConfig::metrics);
        let scores: Vec<&str> = scores.map(Metric::column).collect();
        Wanted::new(&self.term_kinds(), &scores, &self.report_to)
    }

    /// The kinds of terms of all stages beside the diffusion loss, in order of first appearance:
    /// columns of `metrics.csv`.
    pub fn term_kinds(&self) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        for term in self.stages.iter().flat_map(|stage| &stage.regularizers) {
            let is_diffusion = matches!(term, LossTerm::Diffusion(_));
            if !is_diffusion && !kinds.contains(&term.kind()) {
                kinds.push(term.kind());
            }
        }
        kinds
    }
}

/// The key that names a recipe.
const RECIPE: &str = "recipe";

/// Puts the recipe that a run file names into its tree; what the file says itself stays.
fn add_recipe(tree: &mut toml::Table, file: &Path) -> Result<()> {
    let Some(value) = tree.remove(RECIPE) else {
        return Ok(());
    };
    let Some(path) = value.as_str() else {
        return Err(Error::Config {
            path: file.to_path_buf(),
            key: RECIPE.into(),
            reason: format!("is {value}, expected the path of a recipe file in quotes"),
        });
    };
    let path = paths::resolve(&paths::folder_of(file), Path::new(path));
    let recipe = parse::<Recipe>(&path)?.anchored(&path);
    let recipe = toml::Table::try_from(&recipe).map_err(|error| Error::Toml {
        path,
        reason: error.to_string(),
    })?;
    for (key, value) in recipe {
        tree.entry(key).or_insert(value);
    }
    Ok(())
}

/// Reads a TOML file; errors show line, column and, for names, what is valid.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Toml`] when it does not fit.
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
