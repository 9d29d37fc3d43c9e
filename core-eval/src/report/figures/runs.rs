//! What figures read of a results folder's runs: the terms of the loss step by step, the window of
//! rescaling, photos and class words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::files::read_to_string;
use core_model::noise_scheduler::SchedulerKind;
use core_model::photos::PhotoFolder;
use core_train::Run;
use core_train::optimize::TestTime;
use core_train::run::folder::METRICS;
use indexmap::IndexMap;
use serde::Deserialize;

use crate::curves::CurveRow;
use crate::images::SOURCE;
use crate::report::ScoreRow;

/// The values of one optimiser step by column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) stage: String,
    pub(super) values: Vec<(String, Option<f64>)>,
}

impl Step {
    pub(super) fn value(&self, column: &str) -> Option<f64> {
        let mut values = self.values.iter();
        values.find(|(name, _)| name == column)?.1
    }
}

/// The runs of every variant that has any.
pub(super) type StepsOf = IndexMap<String, Vec<Vec<Step>>>;

/// Where the images of a variant, a concept and a seed come from, as `source.json` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ImageSource {
    /// The address of the run; none for the untuned model.
    pub(super) run: Option<String>,
    /// The class word of the concept.
    pub(super) super_category: String,
    /// The sampler, instead of the model's own.
    pub(super) scheduler: Option<SchedulerKind>,
    /// The number of denoising steps.
    pub(super) steps: usize,
    /// The strength of classifier-free guidance.
    pub(super) guidance_scale: f64,
    /// The test-time optimisation of the variant.
    #[serde(default)]
    pub(super) test_time: Option<TestTime>,
    /// The folder of the results that the images belong to.
    #[serde(skip)]
    pub(super) results: PathBuf,
}

impl ImageSource {
    /// Reads the source of an image's folder; `None` where it is gone.
    ///
    /// # Errors
    /// A file of another version.
    pub(super) fn of_image(image: &Path) -> Result<Option<Self>> {
        let Some(folder) = image.parent().and_then(Path::parent) else {
            return Ok(None);
        };
        let file = folder.join(SOURCE);
        if !file.is_file() {
            return Ok(None);
        }
        let mut source: Self =
            serde_json::from_str(&read_to_string(&file)?).with_context(|| {
                format!(
                    "{}: not as this version writes it; run the experiment again, which generates \
                 these images anew",
                    file.display()
                )
            })?;
        // images/VARIANT/CONCEPT/SEED
        let results = folder.ancestors().nth(4);
        source.results = results.map_or(PathBuf::new(), Path::to_path_buf);
        Ok(Some(source))
    }

    /// The folder of the run, if the run is there.
    pub(super) fn run_folder(&self) -> Option<PathBuf> {
        let folder = self.results.join("runs").join(self.run.as_ref()?);
        folder.is_dir().then_some(folder)
    }
}

/// A variant, a concept and a seed.
pub(super) type Place = (String, String, u64);

/// The images of an experiment: where each comes from.
#[derive(Debug, Default)]
pub(super) struct Sources(pub(super) IndexMap<Place, ImageSource>);

impl Sources {
    /// Reads the sources of the images that a table names.
    ///
    /// # Errors
    /// A damaged file.
    pub(super) fn read(results: &Path, rows: &[ScoreRow]) -> Result<Self> {
        let mut sources = IndexMap::new();
        for row in rows {
            let place = (row.variant.clone(), row.concept.clone(), row.seed);
            if sources.contains_key(&place) {
                continue;
            }
            if let Some(source) = ImageSource::of_image(&file_of(results, row))? {
                sources.insert(place, source);
            }
        }
        Ok(Self(sources))
    }

    /// The class word of a concept.
    pub(super) fn word(&self, concept: &str) -> Option<&str> {
        let mut sources = self.0.iter();
        let (_, source) = sources.find(|((_, of, _), _)| of == concept)?;
        Some(&source.super_category)
    }

    /// The photos of a concept, as the configuration of one of its runs names them; none where no run
    /// or no photo is left.
    pub(super) fn photos(&self, concept: &str) -> Vec<PathBuf> {
        let folders = self.0.iter().filter(|((_, of, _), _)| of == concept);
        let folders = folders.filter_map(|(_, source)| source.run_folder());
        let photos = folders.filter_map(|folder| {
            let images = Run::open(&folder).ok()?.config.concept.images;
            Some(PhotoFolder::read(&images).ok()?.files)
        });
        photos.into_iter().next().unwrap_or_default()
    }

    /// The steps of all runs, with every term of the loss; empty where a run is gone.
    ///
    /// # Errors
    /// A damaged `metrics.csv`.
    pub(super) fn steps(&self) -> Result<StepsOf> {
        let mut steps = StepsOf::new();
        let trained = self
            .0
            .iter()
            .filter(|(_, source)| source.test_time.is_none());
        for ((variant, ..), source) in trained.filter(|(_, source)| source.run.is_some()) {
            let Some(folder) = source.run_folder() else {
                return Ok(StepsOf::new());
            };
            if Run::open(&folder).is_ok_and(|run| run.config.adapter.is_some()) {
                continue;
            }
            let run = read_steps(&folder.join(METRICS))?;
            steps.entry(variant.clone()).or_default().push(run);
        }
        Ok(steps)
    }

    /// The steps between which the norm is restored, counted over all stages, of the first run that
    /// has such a window.
    pub(super) fn rescaling(&self) -> Option<[f64; 2]> {
        let folders = self.0.values().filter_map(ImageSource::run_folder);
        folders.into_iter().find_map(|folder| {
            let config = Run::open(&folder).ok()?.config;
            let mut before = 0;
            for stage in &config.stages {
                if let Some(window) = stage.rescale_window() {
                    return Some([window.from, window.to].map(|step| (before + step) as f64));
                }
                before += stage.steps;
            }
            None
        })
    }
}

/// Where the image of a row is: relative to the results, or as a merged table names it.
pub(super) fn file_of(results: &Path, row: &ScoreRow) -> PathBuf {
    let inside = results.join(&row.image);
    match inside.exists() {
        true => inside,
        false => PathBuf::from(&row.image),
    }
}

/// Columns of `metrics.csv`: the norm of the learned embedding, and the last one before the scores of
/// validation images.
pub(super) const EMBEDDING_NORM: &str = "embedding_norm";
const LEARNING_RATE: &str = "learning_rate";

/// The steps of `metrics.csv`: the columns between `step` and `learning_rate`.
fn read_steps(path: &Path) -> Result<Vec<Step>> {
    let at = || path.display().to_string();
    let mut reader = csv::Reader::from_path(path).with_context(at)?;
    let header = reader.headers().with_context(at)?.clone();
    ensure!(
        header.iter().take(3).eq(["stage", "step", "loss"]),
        "{}: expected the columns stage,step,loss,...; it is not the metrics.csv of a run",
        path.display()
    );
    let mut steps = Vec::new();
    for record in reader.records() {
        let record = record.with_context(at)?;
        let columns = header.iter().zip(&record).skip(2);
        // Scores of validation images follow the learning rate.
        let values = columns.take_while(|(name, _)| *name != LEARNING_RATE);
        let values = values.map(|(name, text)| (name.to_string(), text.parse().ok()));
        steps.push(Step {
            stage: record[0].to_string(),
            values: values.collect(),
        });
    }
    Ok(steps)
}

/// The steps of `curves.csv`, which has no single terms.
pub(super) fn steps_of_curves(rows: &[CurveRow]) -> StepsOf {
    let mut runs: BTreeMap<(&str, &str, u64), usize> = BTreeMap::new();
    let mut steps = StepsOf::new();
    for row in rows {
        let of_variant = steps.entry(row.variant.clone()).or_default();
        let place = (row.variant.as_str(), row.concept.as_str(), row.seed);
        let index = *runs.entry(place).or_insert(of_variant.len());
        if index == of_variant.len() {
            of_variant.push(Vec::new());
        }
        of_variant[index].push(Step {
            stage: row.stage.clone(),
            values: vec![
                ("loss".into(), Some(row.loss)),
                (EMBEDDING_NORM.into(), row.embedding_norm),
            ],
        });
    }
    steps
}

/// The terms that any run has, those of all variants in the order of the first; the weighted total
/// only where there are no single terms.
pub(super) fn terms(steps: &StepsOf) -> Vec<String> {
    let mut terms: Vec<String> = Vec::new();
    let first = steps.values().flatten().filter_map(|run| run.first());
    for (name, _) in first.flat_map(|step| &step.values) {
        let other = ["loss", EMBEDDING_NORM].contains(&name.as_str());
        if !other && !terms.contains(name) {
            terms.push(name.clone());
        }
    }
    match terms.is_empty() {
        true => vec!["loss".into()],
        false => terms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_of_a_run_are_the_columns_between_the_loss_and_the_norm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("metrics.csv");
        let text = "stage,step,loss,diffusion,context_embedding,embedding_norm,learning_rate,clip_t\n\
                    a,1,0.5,0.4,0.1,1.5,0.1,0.6\nb,1,0.25,0.25,,,0.1,\n";
        std::fs::write(&file, text).expect("a file");
        let run = read_steps(&file).expect("steps");
        assert_eq!(run[0].value("context_embedding"), Some(0.1));
        assert_eq!(run[1].value("context_embedding"), None);
        let steps = StepsOf::from([("CoRe".to_string(), vec![run])]);
        assert_eq!(terms(&steps), ["diffusion", "context_embedding"]);
        std::fs::write(&file, "variant,metric\na,b\n").expect("a file");
        let message = read_steps(&file).expect_err("another table").to_string();
        assert!(message.contains("metrics.csv"), "{message}");
    }
}
