//! The TOML file of an experiment, and how the files that it names are read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use core_model::files::seen_from;
use core_model::folder::EncoderFolder;
use core_model::source::is_repository;
use core_train::config::{ConceptConfig, ModelConfig, Recipe, from_tree, parse, set_path};
use core_train::logging::ReportTo;
use core_train::optimize::TestTime;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Table, Value};

use super::{Evaluation, Experiment, Keep, Sampling, Validation, Variant, read_prompts};
use crate::effects::Effect;

/// Variants of a method, trained on the same concepts and compared with the same prompts and noise.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The name of the experiment and of its folder below `results/`.
    name: String,
    /// The model to start from: its path, or a table.
    model: ModelEntry,
    /// The device to compute on: `cpu`, `wgpu`, `cuda`, or one of several as in `cuda:1`.
    #[serde(default = "cpu")]
    device: String,
    /// The folders of the concepts, each with photos and a `concept.toml`.
    concepts: Vec<PathBuf>,
    /// The seeds. Every variant is trained on every concept once per seed.
    #[serde(default = "first_seed")]
    seeds: Vec<u64>,
    /// The recipe of all variants that do not name one of their own.
    recipe: Option<PathBuf>,
    /// What is compared. The first variant is the baseline of the paired differences.
    variants: Vec<VariantEntry>,
    /// How the evaluation images are generated.
    sampling: Sampling,
    /// How the images are scored.
    evaluation: Evaluation,
    /// Images during training, of every run. Absent: none.
    validation: Option<Validation>,
    /// Where the numbers of every step go beside `metrics.csv` of each run. Absent: nowhere else.
    #[serde(default)]
    report_to: Vec<ReportTo>,
    /// Claims about the result, each with a 95 % interval.
    #[serde(default)]
    effects: Vec<Effect>,
    /// What stays on disk of a run whose images are drawn: everything, or what the tables and figures need.
    #[serde(default)]
    keep: Keep,
}

fn cpu() -> String {
    "cpu".into()
}

fn first_seed() -> Vec<u64> {
    vec![0]
}

/// The model.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ModelEntry {
    /// The path of the model, as `path` of the table.
    Path(PathBuf),
    /// The model with other settings than the defaults.
    Table(ModelConfig),
}

impl From<ModelEntry> for ModelConfig {
    fn from(entry: ModelEntry) -> Self {
        match entry {
            ModelEntry::Path(path) => Self::from(path),
            ModelEntry::Table(model) => model,
        }
    }
}

/// One method: a recipe with changes, or the untuned model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VariantEntry {
    /// The name of the variant in tables and folders.
    name: String,
    /// The recipe. Absent: the recipe of the experiment.
    recipe: Option<PathBuf>,
    /// The kinds of regularisers that are removed from every stage.
    #[serde(default)]
    remove: Vec<String>,
    /// Values that are changed in the recipe, by their path: `"stages.0.rescale" = false`. They are
    /// set before regularisers are removed.
    #[serde(default)]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    set: Table,
    /// Whether nothing is trained: the model is prompted with the super-category.
    #[serde(default)]
    untuned: bool,
    /// Test-time optimisation: before the images of a prompt are generated, the learned embedding
    /// is optimised for that prompt, as in `test_time = { steps = 10, learning_rate = 5e-4 }`.
    /// Absent: none.
    test_time: Option<TestTime>,
    /// The strength of classifier-free guidance of this variant's images. Absent: that of `[sampling]`.
    guidance_scale: Option<f64>,
}

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// Unknown keys and values of other types, each with its line.
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(parse(path)?)
    }

    /// Reads prompts, recipes and concepts. Paths are relative to `base`; names of hub repositories are
    /// kept.
    ///
    /// # Errors
    /// An absent or damaged file, or values that do not fit, naming it.
    pub(super) fn resolve(self, base: &Path) -> Result<Experiment> {
        let here = |path: &Path| match is_repository(base, path) {
            true => path.to_path_buf(),
            false => seen_from(base, path),
        };
        let mut model = ModelConfig::from(self.model);
        model.path = here(&model.path);
        let mut evaluation = self.evaluation;
        let encoders = &mut evaluation.encoders;
        encoders.replace(|path| Ok(EncoderFolder::new(here(path))))?;
        let mut sampling = self.sampling;
        sampling.prompts = seen_from(base, &sampling.prompts);
        let common = self.recipe.map(|recipe| seen_from(base, &recipe));
        let variants = self.variants.iter().map(|entry| {
            let variant = entry.resolve(common.as_deref(), base);
            variant.with_context(|| format!("variant `{}`", entry.name))
        });
        let variants = variants.collect::<Result<_>>()?;
        let folders = self.concepts.iter().map(|folder| seen_from(base, folder));
        let (present, absent): (Vec<_>, Vec<_>) = folders.partition(|folder| folder.exists());
        let concepts = present.iter().map(|folder| read_concept(folder));
        Ok(Experiment {
            name: self.name,
            model,
            device: self.device,
            concepts: concepts.collect::<Result<_>>()?,
            absent,
            seeds: self.seeds,
            variants,
            prompts: read_prompts(&sampling.prompts)?,
            sampling,
            evaluation,
            validation: self.validation,
            report_to: self.report_to,
            effects: self.effects,
            keep: self.keep,
        })
    }
}

fn read_concept(folder: &Path) -> Result<ConceptConfig> {
    let mut concept: ConceptConfig = parse(&folder.join("concept.toml"))?;
    for photos in concept.folders_mut() {
        *photos = seen_from(folder, photos);
    }
    Ok(concept)
}

impl VariantEntry {
    /// The variant with its recipe: its own or the common one, with values set and terms removed.
    fn resolve(&self, common: Option<&Path>, base: &Path) -> Result<Variant> {
        let name = self.name.clone();
        if self.untuned {
            if self.recipe.is_some() || !self.remove.is_empty() || !self.set.is_empty() {
                bail!("an untuned variant trains nothing; drop `recipe`, `remove`, `set`");
            }
            if self.test_time.is_some() {
                bail!(
                    "an untuned variant has no learned embedding that could be optimised; drop \
                     `test_time`"
                );
            }
            return Ok(Variant {
                name,
                recipe: None,
                test_time: None,
                guidance_scale: self.guidance_scale,
            });
        }
        let own = self.recipe.as_ref().map(|own| seen_from(base, own));
        let path = own.or(common.map(Path::to_path_buf));
        let path = path.context("there is no `recipe`, neither its own nor the experiment's")?;
        let mut tree: Table = parse(&path)?;
        // Paths count the terms as the recipe lists them, so values are set before terms are removed.
        for (key, value) in &self.set {
            set_path(&mut tree, key, value.clone()).map_err(anyhow::Error::msg)?;
        }
        for kind in &self.remove {
            if !remove_regularizer(&mut tree, kind) {
                bail!(
                    "`remove` names `{kind}`, a regularizer that {} does not have",
                    path.display()
                );
            }
        }
        let recipe: Recipe = from_tree(&path, tree).context("its recipe")?;
        if let Some(test_time) = &self.test_time {
            test_time.check(&recipe, &path).context("`test_time`")?;
        }
        Ok(Variant {
            name,
            recipe: Some(recipe.anchored(&path)),
            test_time: self.test_time,
            guidance_scale: self.guidance_scale,
        })
    }
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
