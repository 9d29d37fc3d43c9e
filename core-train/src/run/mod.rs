//! What a run leaves behind, and how it is opened again.

pub(crate) mod checkpoint;
pub mod environment;
pub mod first_stages;
pub mod folder;
pub mod position;
pub mod removed;
pub mod scratch;
pub mod state;

use std::path::{Path, PathBuf};

use core_model::folder::ModelFolder;
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::StableDiffusionPipeline;

use crate::adapters::{Adapter, Embedding, Loading, OFT, TEXT_ENCODER, Trained, UNET};
use crate::base_model::BaseModel;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::phrase::Phrase;
use crate::tuning_free::with_person;
use folder::CONFIG;
use removed::Removed;

/// The results that change the U-Net alone, which no prompt needs.
pub const OF_UNET: [&str; 2] = [UNET, OFT];

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was trained, and how; its paths are absolute.
    pub config: RunConfig,
    folder: PathBuf,
}

impl Run {
    /// Opens a run folder.
    ///
    /// # Errors
    /// [`Error::RunFolder`] for a folder without `config.toml`; what is wrong with that file.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = folder.join(CONFIG);
        if !config.is_file() {
            let reason = "is no run folder of `core-train train`: there is no config.toml";
            return Err(Error::run_folder(folder, reason));
        }
        Ok(Self {
            config: RunConfig::load(&config, &[])?,
            folder: folder.to_path_buf(),
        })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How the concept is written in its prompts.
    pub fn phrase(&self) -> Phrase {
        self.config.phrase()
    }

    /// The run's own base model.
    ///
    /// # Errors
    /// As [`BaseModel::load`].
    pub fn base_model(&self, device: &str) -> Result<BaseModel> {
        BaseModel::load(&self.config.model, device)
    }

    /// The base model with everything that the run has trained.
    ///
    /// # Errors
    /// [`Error::RunFolder`] for a result that is missing; files that are damaged or do not fit the
    /// base model.
    pub fn pipeline(&self, base: &BaseModel) -> Result<StableDiffusionPipeline> {
        self.load(base, 1.0, |_| true)
    }

    /// The same with changes of low rank `lora_scale` times as strong as they were trained.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub fn pipeline_at_scale(
        &self,
        base: &BaseModel,
        lora_scale: f64,
    ) -> Result<StableDiffusionPipeline> {
        self.load(base, lora_scale, |_| true)
    }

    /// The same with the base model's U-Net, for work that only encodes prompts.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub fn prompt_pipeline(&self, base: &BaseModel) -> Result<StableDiffusionPipeline> {
        self.load(base, 1.0, |adapter| !OF_UNET.contains(&adapter.file()))
    }

    fn load(
        &self,
        base: &BaseModel,
        lora_scale: f64,
        wanted: impl Fn(&dyn Adapter) -> bool,
    ) -> Result<StableDiffusionPipeline> {
        if let Some(adapter) = &self.config.adapter {
            return with_person(&self.folder, &self.config, adapter, base, lora_scale);
        }
        let mut pipeline = base.pipeline.clone();
        let phrase = self.phrase();
        let loading = Loading {
            phrase: &phrase,
            base: &base.folder,
            lora_scale,
        };
        for adapter in results(&self.config).into_iter().filter(|a| wanted(*a)) {
            let path = self.folder.join(adapter.file());
            if !path.exists() {
                return Err(self.missing(adapter.file())?);
            }
            pipeline = adapter.load(&path, loading, pipeline)?;
        }
        Ok(pipeline)
    }
}

impl Run {
    /// The results without the concept, which are what is large of a run.
    pub fn weights(&self) -> Vec<&'static str> {
        let weights = results(&self.config).into_iter();
        let weights = weights.filter(|adapter| !adapter.is_concept());
        weights.map(|adapter| adapter.file()).collect()
    }

    /// Why a result is not there.
    fn missing(&self, result: &str) -> Result<Error> {
        let removed = Removed::read(&self.folder)?;
        let reason = match removed.filter(|removed| removed.holds(result)) {
            Some(removed) => format!(
                "was removed, since {}; `core-train train {}` trains it again into another folder",
                removed.reason,
                self.folder.join(CONFIG).display()
            ),
            None => "is missing; the run is damaged, or another program removed the file".into(),
        };
        Ok(Error::run_folder(self.folder.join(result), reason))
    }
}

/// The sets of weights whose results a run leaves behind, one for each file, that of the last stage
/// which has it; and the concept in any case, unless it is a word of the vocabulary. None with `adapter`.
pub(crate) fn results(config: &RunConfig) -> Vec<&dyn Adapter> {
    let mut results: Vec<&dyn Adapter> = Vec::new();
    if config.adapter.is_some() {
        return results;
    }
    for entry in config.stages.iter().flat_map(|stage| &stage.train) {
        let adapter = entry.adapter.adapter();
        let same_file = |other: &&mut &dyn Adapter| other.file() == adapter.file();
        match results.iter_mut().find(same_file) {
            Some(earlier) => *earlier = adapter,
            None => results.push(adapter),
        }
    }
    if config.rare_token.is_none() && !results.iter().any(|adapter| adapter.is_concept()) {
        results.insert(0, &Embedding { direction: None });
    }
    // What changes layers of a network is put into the network of the run.
    results.sort_by_key(|adapter| ![UNET, TEXT_ENCODER].contains(&adapter.file()));
    results
}

/// Writes what every set of weights has trained.
///
/// # Errors
/// An unwritable folder.
pub(crate) fn save_results(
    config: &RunConfig,
    base: &ModelFolder,
    model: &PersonalizedModel,
    folder: &Path,
) -> Result<()> {
    save(config, base, model, folder, |_| true)
}

/// Writes the concept alone, as it is now, to the file where it will be at the end.
///
/// # Errors
/// An unwritable folder.
pub(crate) fn save_concept(
    config: &RunConfig,
    base: &ModelFolder,
    model: &PersonalizedModel,
    folder: &Path,
) -> Result<()> {
    save(config, base, model, folder, |adapter| adapter.is_concept())
}

fn save(
    config: &RunConfig,
    base: &ModelFolder,
    model: &PersonalizedModel,
    folder: &Path,
    wanted: impl Fn(&dyn Adapter) -> bool,
) -> Result<()> {
    let trained = Trained {
        phrase: &config.phrase(),
        base_name: &config.model.path,
        base,
        model,
        stages: &config.stages,
    };
    for adapter in results(config).into_iter().filter(|a| wanted(*a)) {
        adapter.save(&trained, &folder.join(adapter.file()))?;
    }
    Ok(())
}
