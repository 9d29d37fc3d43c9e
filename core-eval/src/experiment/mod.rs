//! An experiment: variants of a recipe, concepts, prompts, and how images are scored.

mod check;
mod evaluation;
mod file;
mod keep;
mod validation;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::source::EncoderSource;
use core_train::RunConfig;
use core_train::adapters::Neti;
use core_train::config::{ConceptConfig, Group, ModelConfig, Recipe, StageConfig};
use core_train::logging::ReportTo;
use core_train::optimize::TestTime;
use core_train::phrase::SLOT;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::effects::Effect;
use crate::metrics::{Compared, Metric};
use crate::protocol::is_unrelated;
use crate::rows::read_rows;
pub use evaluation::{Evaluation, OneOrMore};
use file::File;
pub use keep::Keep;
pub use validation::Validation;

/// An experiment. The files that it names are read and checked.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The name of the experiment and of its results folder.
    pub name: String,
    /// The base model.
    pub model: ModelConfig,
    /// The device to compute on.
    pub device: String,
    /// The concepts, in order.
    pub concepts: Vec<ConceptConfig>,
    /// Folders of concepts that are absent, which only a dry run accepts.
    pub absent: Vec<PathBuf>,
    /// The seeds of training and sampling.
    pub seeds: Vec<u64>,
    /// The variants that are compared; the first is the baseline.
    pub variants: Vec<Variant>,
    /// How evaluation images are generated.
    pub sampling: Sampling,
    /// The evaluation prompts of both groups.
    pub prompts: Vec<EvaluationPrompt>,
    /// The networks and protocols that images are scored with.
    pub evaluation: Evaluation,
    /// Images during training.
    pub validation: Option<Validation>,
    /// Where the numbers of every step go beside `metrics.csv`.
    pub report_to: Vec<ReportTo>,
    /// Claims about the results.
    pub effects: Vec<Effect>,
    /// What stays on disk of a run whose images are drawn.
    pub keep: Keep,
}

/// The keys are those of the file that an experiment is read from.
impl JsonSchema for Experiment {
    fn schema_name() -> Cow<'static, str> {
        "Experiment".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        File::json_schema(generator)
    }
}

/// One method.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Its name in tables and folders.
    pub name: String,
    /// What it trains; `None` for the base model, which is prompted with the super-category.
    pub recipe: Option<Recipe>,
    /// How the learned embedding is optimised for each prompt before its images are generated.
    pub test_time: Option<TestTime>,
    /// The strength of classifier-free guidance; `None` for that of the experiment's sampling.
    pub guidance_scale: Option<f64>,
}

impl Variant {
    /// The strength of classifier-free guidance of its images.
    pub(crate) fn guidance_scale(&self, sampling: &Sampling) -> f64 {
        self.guidance_scale.unwrap_or(sampling.guidance_scale)
    }

    /// Whether an encoder that was trained before makes what stands for its concepts.
    pub(crate) fn is_tuning_free(&self) -> bool {
        let recipe = self.recipe.as_ref();
        recipe.is_some_and(|recipe| recipe.adapter.is_some())
    }

    /// The mapper that it trains, if it trains one.
    pub(crate) fn neti(&self) -> Option<&Neti> {
        self.recipe
            .as_ref()?
            .stages
            .iter()
            .find_map(StageConfig::neti)
    }
}

/// How the evaluation images are generated.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The sampler. Absent: that of the model.
    pub scheduler: Option<SchedulerKind>,
    /// The number of denoising steps.
    pub steps: usize,
    /// The strength of classifier-free guidance.
    pub guidance_scale: f64,
    /// The number of hidden units that the mappers of `neti` variants keep; fewer follow the prompt more. Absent: all.
    #[serde(default)]
    pub truncation: Option<usize>,
    /// The number of images per prompt.
    pub images_per_prompt: usize,
    /// A CSV file of evaluation prompts with the columns `group,kind,prompt`.
    pub prompts: PathBuf,
}

impl Sampling {
    /// Refuses a sampler that the model cannot be sampled with, before anything is trained.
    ///
    /// # Errors
    /// The key of the model's `scheduler_config.json` that does not fit.
    fn check(&self, model: &ModelFolder) -> Result<()> {
        let config = SchedulerConfig::of_model(model.path())?;
        config.sampler(self.scheduler, self.steps)?;
        Ok(())
    }
}

/// A row of the prompt file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationPrompt {
    /// Which concepts it is for.
    pub group: Group,
    /// plain, background, colour, style, action, outfit, unrelated.
    pub kind: String,
    /// The template; `{}` is the concept, which prompts of the kind `unrelated` leave out.
    pub prompt: String,
}

impl Experiment {
    /// Reads an experiment and the files that it names, and checks it. Paths in the file are relative to
    /// its folder.
    ///
    /// # Errors
    /// Unknown keys, impossible values, absent recipes or prompts; each names file and key.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::read(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let experiment = file.resolve(base);
        let checked = experiment.and_then(|experiment| experiment.check().map(|()| experiment));
        checked.with_context(|| path.display().to_string())
    }

    /// The folder of the model, and the same experiment with folders for the encoders. Hub repositories
    /// are downloaded, and one-file checkpoints converted.
    ///
    /// # Errors
    /// A model or encoder that cannot be obtained.
    pub fn located(mut self) -> Result<(Self, ModelFolder)> {
        let model = self.model.source().locate()?;
        self.evaluation.encoders.locate()?;
        self.sampling.check(&model)?;
        Ok((self, model))
    }

    /// The names of all concepts; an absent one goes by the name of its folder.
    pub fn concept_names(&self) -> Vec<String> {
        let present = self.concepts.iter().map(|concept| concept.name.clone());
        let absent = self.absent.iter().map(|folder| {
            let name = folder.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        });
        present.chain(absent).collect()
    }

    /// The folders of tuning-free encoders, each with the name of its variant.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.variants.iter().filter_map(|variant| {
            let adapter = variant.recipe.as_ref()?.adapter.as_ref()?;
            Some((variant.name.as_str(), adapter.path.as_path()))
        })
    }

    /// The same without those that are on this machine.
    fn absent_adapters(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.adapters().filter(|(_, folder)| !folder.is_dir())
    }

    /// Messages about models and concepts that are not on this machine.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.model.source().is_present() {
            missing.push(format!("model not present: {}", self.model.path.display()));
        }
        for folder in &self.absent {
            missing.push(format!("concept folder not present: {}", folder.display()));
        }
        for (variant, folder) in self.absent_adapters() {
            let folder = folder.display();
            missing.push(format!(
                "tuning-free encoder of variant `{variant}` not present: {folder}"
            ));
        }
        for folder in self.evaluation.encoders.paths() {
            if !EncoderSource::from(folder).is_present() {
                let folder = folder.display();
                missing.push(format!("evaluation model not present: {folder}"));
            }
        }
        missing
    }

    /// Whether everything that is missing is a hub repository.
    pub fn is_obtainable(&self) -> bool {
        let mut encoders = self.evaluation.encoders.paths();
        self.absent.is_empty()
            && self.absent_adapters().next().is_none()
            && self.model.source().is_obtainable()
            && encoders.all(|folder| EncoderSource::from(folder).is_obtainable())
    }

    /// The metrics that run: those whose encoders are named, drift where there are unrelated prompts, and
    /// directional CLIP where a base prompt is named.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut prompts = self.prompts.iter();
        let drifts = prompts.any(|prompt| is_unrelated(&prompt.kind));
        let encoders = &self.evaluation.encoders;
        encoders.metrics_where(|metric| match metric.compared_with() {
            Compared::Text | Compared::Photos => true,
            Compared::BaseImage => drifts,
            Compared::Direction => self.evaluation.base_prompt.is_some(),
        })
    }

    /// The prompts for a concept's group, in the order of the file.
    pub fn prompts_for(&self, concept: &ConceptConfig) -> Vec<EvaluationPrompt> {
        self.prompts
            .iter()
            .filter(|prompt| Some(prompt.group) == concept.group)
            .cloned()
            .collect()
    }

    /// The run that trains a variant on a concept.
    ///
    /// # Errors
    /// A recipe that does not fit the concept.
    pub fn run_config(
        &self,
        variant: &Variant,
        concept: &ConceptConfig,
        seed: u64,
    ) -> Result<Option<RunConfig>> {
        let Some(recipe) = &variant.recipe else {
            return Ok(None);
        };
        let mut run = recipe.run(seed, &self.device, self.model.clone(), concept.clone());
        if !variant.is_tuning_free() {
            run.validation = self.validation.as_ref().map(|v| v.of_run(&self.evaluation));
            run.report_to.clone_from(&self.report_to);
        }
        let origin = Path::new("").join(format!("variant `{}`", variant.name));
        Ok(Some(run.complete(&origin)?))
    }

    /// The same experiment with the named variants and the baseline only.
    ///
    /// # Errors
    /// A name that is not one of the variants.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        let known: Vec<&str> = self.variants.iter().map(|v| v.name.as_str()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            bail!(
                "there is no variant `{unknown}`; the experiment has: {}",
                known.join(", ")
            );
        }
        if !names.is_empty() {
            let mut index = 0;
            self.variants.retain(|variant| {
                index += 1;
                index == 1 || names.contains(&variant.name)
            });
            let left: Vec<String> = self.variants.iter().map(|v| v.name.clone()).collect();
            self.effects
                .retain(|e| e.variants().iter().all(|name| left.contains(name)));
        }
        Ok(self)
    }
}

fn read_prompts(path: &Path) -> Result<Vec<EvaluationPrompt>> {
    let mut prompts = Vec::new();
    for prompt in read_rows::<EvaluationPrompt>(path, "group,kind,prompt")? {
        match (prompt.prompt.contains(SLOT), is_unrelated(&prompt.kind)) {
            (false, false) => bail!(
                "{}: prompt `{}` has no {{}}, where the concept goes; give it the kind `unrelated` to \
                 measure drift",
                path.display(),
                prompt.prompt
            ),
            (true, true) => bail!(
                "{}: prompt `{}` is of the kind `unrelated`, but has {{}} for the concept",
                path.display(),
                prompt.prompt
            ),
            _ => {}
        }
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        bail!("{}: has no prompts", path.display());
    }
    Ok(prompts)
}
