//! The TOML file of an experiment: variants of a recipe, concepts, prompts, judges.

mod evaluation;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::SchedulerKind;
use core_model::source::is_repository;
use core_train::RunConfig;
use core_train::config::{ConceptConfig, Group, ModelConfig, Recipe, from_tree, parse, set_path};
use serde::Deserialize;
use toml::{Table, Value};

use crate::effects::Effect;
pub use evaluation::{Evaluation, OneOrMore};

/// An experiment with everything that it refers to read and checked.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The folder of the results.
    pub name: String,
    /// The generator.
    pub model: ModelConfig,
    /// Where to compute.
    pub device: String,
    /// The concepts, in order.
    pub concepts: Vec<Concept>,
    /// The seeds of training and sampling.
    pub seeds: Vec<u64>,
    /// What is compared; the first is the baseline.
    pub variants: Vec<Variant>,
    /// How evaluation images are drawn.
    pub sampling: Sampling,
    /// The evaluation prompts of both groups.
    pub prompts: Vec<EvaluationPrompt>,
    /// Who judges, and how.
    pub evaluation: Evaluation,
    /// What is claimed about the scores.
    pub effects: Vec<Effect>,
}

/// A folder of photos with its `concept.toml`.
#[derive(Debug, Clone)]
pub struct Concept {
    /// The folder as the experiment names it, relative to the working folder.
    pub folder: PathBuf,
    /// Absent when the folder is not there, which only `--dry-run` accepts.
    pub config: Option<ConceptConfig>,
}

impl Concept {
    /// The concept's name, or that of its folder.
    pub fn name(&self) -> String {
        match &self.config {
            Some(config) => config.name.clone(),
            None => self
                .folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }
}

/// One method.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Its name in tables and folders.
    pub name: String,
    /// What it trains; `None` for the untuned model, prompted with the super-category.
    pub recipe: Option<Recipe>,
}

/// `[sampling]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The sampler; the checkpoint's own when absent.
    pub scheduler: Option<SchedulerKind>,
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance_scale: f64,
    /// Images of every prompt.
    pub images_per_prompt: usize,
    /// CSV with the columns `group,kind,prompt`.
    pub prompts: PathBuf,
}

/// A row of the prompt file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationPrompt {
    /// Which concepts it is for.
    pub group: Group,
    /// plain, background, colour, style, action, outfit.
    pub kind: String,
    /// The template; `{}` is the concept.
    pub prompt: String,
}

impl Experiment {
    /// The folder of the model, and the same experiment with folders for the judges; what is not
    /// on this machine is fetched or made.
    ///
    /// # Errors
    /// What cannot be had, and why.
    pub fn located(mut self) -> Result<(Self, ModelFolder)> {
        let model = self.model.source().locate()?;
        self.evaluation.encoders.locate()?;
        Ok((self, model))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    model: ModelEntry,
    #[serde(default = "cpu")]
    device: String,
    concepts: Vec<PathBuf>,
    #[serde(default = "first_seed")]
    seeds: Vec<u64>,
    recipe: Option<PathBuf>,
    variants: Vec<VariantEntry>,
    sampling: Sampling,
    evaluation: Evaluation,
    #[serde(default)]
    effects: Vec<Effect>,
}

fn cpu() -> String {
    "cpu".into()
}

fn first_seed() -> Vec<u64> {
    vec![0]
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ModelEntry {
    Path(PathBuf),
    Table(ModelConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantEntry {
    name: String,
    recipe: Option<PathBuf>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    untuned: bool,
}

impl Experiment {
    /// Reads an experiment; paths in it are relative to it.
    ///
    /// # Errors
    /// Unknown keys, impossible values, absent recipes or prompts; each names file and key.
    pub fn load(path: &Path) -> Result<Self> {
        let file: File = parse(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let fail = |reason: String| -> Result<()> { bail!("{}: {reason}", path.display()) };
        check_name(&file.name).or_else(|reason| fail(format!("`name` {reason}")))?;
        if file.concepts.is_empty() {
            fail("`concepts` is empty; name at least one folder of photos".into())?;
        }
        if file.seeds.is_empty() {
            fail("`seeds` is empty; write seeds = [0]".into())?;
        }
        if file.variants.is_empty() {
            fail("there are no [[variants]]; write at least one".into())?;
        }
        for (index, variant) in file.variants.iter().enumerate() {
            check_name(&variant.name)
                .or_else(|reason| fail(format!("`variants.{index}.name` {reason}")))?;
            if file.variants[..index]
                .iter()
                .any(|other| other.name == variant.name)
            {
                fail(format!("two variants are called `{}`", variant.name))?;
            }
        }
        for effect in &file.effects {
            if let Effect::ScoreDifference { metric, .. } = effect
                && file
                    .evaluation
                    .encoders
                    .get(metric.definition().encoder())
                    .is_none()
            {
                fail(format!(
                    "effect `{}`: `metric` is `{}`, which needs a folder `{}` below [evaluation]",
                    effect.name(),
                    metric.column(),
                    metric.definition().encoder().key
                ))?;
            }
            for name in effect.variants() {
                if file.variants.iter().all(|variant| variant.name != *name) {
                    fail(format!(
                        "effect `{}` names no variant with `{name}`",
                        effect.name()
                    ))?;
                }
            }
        }
        let mut sampling = file.sampling;
        sampling.prompts = base.join(&sampling.prompts);
        for (key, value) in [
            ("steps", sampling.steps),
            ("images_per_prompt", sampling.images_per_prompt),
        ] {
            if value == 0 {
                fail(format!("`sampling.{key}` is 0; expected 1 or more"))?;
            }
        }
        let prompts = read_prompts(&sampling.prompts)?;
        let mut evaluation = file.evaluation;
        evaluation
            .protocols()
            .with_context(|| path.display().to_string())?;
        evaluation
            .check_masks()
            .with_context(|| path.display().to_string())?;
        let here = |path: &Path| match is_repository(base, path) {
            true => path.to_path_buf(),
            false => base.join(path),
        };
        evaluation.encoders.map(|path| Ok(here(path)))?;
        let mut model = match file.model {
            ModelEntry::Path(path) => ModelConfig::from(path),
            ModelEntry::Table(model) => model,
        };
        model.path = here(&model.path);
        let recipe = file.recipe.map(|recipe| base.join(recipe));
        let concepts = file.concepts.iter().map(|c| concept(&base.join(c)));
        let concepts: Vec<Concept> = concepts.collect::<Result<_>>()?;
        for (index, concept) in concepts.iter().enumerate() {
            let name = concept.name();
            if concepts[..index].iter().any(|other| other.name() == name) {
                fail(format!("two concepts are called `{name}`"))?;
            }
            let Some(config) = &concept.config else {
                continue;
            };
            if !prompts
                .iter()
                .any(|prompt| Some(prompt.group) == config.group)
            {
                let prompts = sampling.prompts.display();
                fail(format!(
                    "the concept `{name}` has no prompts: its `group` in concept.toml is {}, and \
                     {prompts} has no row for that",
                    config.group.map_or("absent", Group::name)
                ))?;
            }
        }
        for (index, seed) in file.seeds.iter().enumerate() {
            if file.seeds[..index].contains(seed) {
                fail(format!("`seeds` holds {seed} twice"))?;
            }
        }
        let variants = file
            .variants
            .iter()
            .map(|entry| variant(entry, recipe.as_deref(), base, path));
        Ok(Self {
            name: file.name,
            model,
            device: file.device,
            concepts,
            seeds: file.seeds,
            variants: variants.collect::<Result<_>>()?,
            sampling,
            prompts,
            evaluation,
            effects: file.effects,
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
    /// What the recipe and the concept do not agree on.
    pub fn run_config(
        &self,
        variant: &Variant,
        concept: &Concept,
        seed: u64,
    ) -> Result<Option<RunConfig>> {
        let (Some(recipe), Some(config)) = (&variant.recipe, &concept.config) else {
            return Ok(None);
        };
        let run = RunConfig {
            seed,
            device: self.device.clone(),
            model: self.model.clone(),
            concept: config.clone(),
            validation: None,
            stages: recipe.stages.clone(),
        };
        let origin = Path::new("").join(format!("variant `{}`", variant.name));
        Ok(Some(run.complete(&origin)?))
    }

    /// Only the named variants and the baseline.
    ///
    /// # Errors
    /// A name that no variant has.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        let known: Vec<&str> = self.variants.iter().map(|v| v.name.as_str()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("--variant `{unknown}` is none of: {}", known.join(", "));
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

/// Names become folders.
fn check_name(name: &str) -> Result<(), String> {
    let bad = |c: char| matches!(c, '/' | '\\' | ':' | '\0') || c.is_control();
    if name.trim().is_empty() || name.starts_with('.') || name.contains(bad) {
        return Err(format!(
            "is `{name}`, which cannot name a folder; use letters and spaces"
        ));
    }
    Ok(())
}

fn concept(folder: &Path) -> Result<Concept> {
    if !folder.exists() {
        return Ok(Concept {
            folder: folder.to_path_buf(),
            config: None,
        });
    }
    let mut config: ConceptConfig = parse(&folder.join("concept.toml"))?;
    config.images = folder.join(&config.images);
    check_name(&config.name)
        .map_err(|reason| anyhow::anyhow!("{}: `name` {reason}", folder.display()))?;
    Ok(Concept {
        folder: folder.to_path_buf(),
        config: Some(config),
    })
}

/// A variant's recipe: its own or the common one, with terms removed and values set.
fn variant(
    entry: &VariantEntry,
    common: Option<&Path>,
    base: &Path,
    origin: &Path,
) -> Result<Variant> {
    let name = entry.name.clone();
    let about = |reason: String| format!("{}: variant `{name}`: {reason}", origin.display());
    if entry.untuned {
        if entry.recipe.is_some() || !entry.remove.is_empty() || !entry.set.is_empty() {
            bail!(about(
                "an untuned variant trains nothing; drop `recipe`, `remove`, `set`".into()
            ));
        }
        return Ok(Variant { name, recipe: None });
    }
    let own = entry.recipe.as_ref().map(|own| base.join(own));
    let Some(path) = own.or(common.map(Path::to_path_buf)) else {
        bail!(about(
            "there is no `recipe`, neither its own nor the experiment's".into()
        ));
    };
    let mut tree: Table = parse(&path)?;
    // Paths count the terms as the recipe lists them, so values are set before terms go.
    for (key, value) in &entry.set {
        set_path(&mut tree, key, value.clone()).map_err(|reason| anyhow::anyhow!(about(reason)))?;
    }
    for kind in &entry.remove {
        if !remove_regularizer(&mut tree, kind) {
            bail!(about(format!(
                "`remove` names `{kind}`, a regularizer that {} does not have",
                path.display()
            )));
        }
    }
    let recipe: Recipe = from_tree(&path, tree).with_context(|| about("its recipe".into()))?;
    Ok(Variant {
        name,
        recipe: Some(recipe.anchored(&path)),
    })
}

fn remove_regularizer(tree: &mut Table, kind: &str) -> bool {
    let mut found = false;
    let stages = tree
        .get_mut("stages")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for stage in stages {
        let terms = stage.get_mut("regularizers").and_then(Value::as_array_mut);
        for terms in terms.into_iter() {
            let before = terms.len();
            terms.retain(|term| term.get("kind").and_then(Value::as_str) != Some(kind));
            found |= terms.len() < before;
        }
    }
    found
}

fn read_prompts(path: &Path) -> Result<Vec<EvaluationPrompt>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    let mut prompts = Vec::new();
    for row in reader.deserialize() {
        let prompt: EvaluationPrompt = row.with_context(|| {
            format!("{}: expected the columns group,kind,prompt", path.display())
        })?;
        if !prompt.prompt.contains("{}") {
            bail!(
                "{}: prompt `{}` has no {{}}, where the concept goes",
                path.display(),
                prompt.prompt
            );
        }
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        bail!("{}: has no prompts", path.display());
    }
    Ok(prompts)
}
