//! The evaluation images: generated once, from the same noise for every variant, and kept as files.

mod generator;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use core_model::files::{hex, remove_scratch, write_atomically, write_png};
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::SchedulerKind;
use core_train::BaseModel;
use core_train::config::ConceptConfig;
use core_train::optimize::TestTime;
use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::base::Base;
use crate::experiment::{EvaluationPrompt, Experiment, Variant};
use crate::plan::{Cell, PlannedRun};
pub use generator::time_image;
pub(crate) use generator::{Drawn, evaluation_noise};
use generator::{Generator, batch_size, batches};

/// The file that names the run and the sampling from which the images of a folder come.
pub(crate) const SOURCE: &str = "source.json";

/// How a claim on the images of a cell is called.
pub(crate) fn claim_name(experiment: &Experiment, cell: &Cell) -> String {
    let folder = folder_of(experiment, cell);
    let digest = hex(&Sha256::digest(folder.to_string_lossy().as_bytes()));
    format!("images-{}", &digest[..16])
}

/// One image of the experiment.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The index of the prompt among those for the concept.
    pub prompt_index: usize,
    /// The prompt.
    pub prompt: EvaluationPrompt,
    /// The index of the image among those of the prompt.
    pub image: usize,
    /// The file, relative to the results.
    pub file: PathBuf,
}

impl Wanted {
    /// The file as tables name it, with `/` on every system.
    pub fn name(&self) -> String {
        self.file.to_string_lossy().replace('\\', "/")
    }
}

/// The images of a cell, in order.
pub fn wanted(experiment: &Experiment, cell: &Cell) -> Vec<Wanted> {
    let concept = &experiment.concepts[cell.concept];
    let folder = folder_of(experiment, cell);
    let mut wanted = Vec::new();
    for (prompt_index, prompt) in experiment.prompts_for(concept).into_iter().enumerate() {
        for image in 0..experiment.sampling.images_per_prompt {
            let file = folder
                .join(prompt_index.to_string())
                .join(format!("{image:05}.png"));
            wanted.push(Wanted {
                prompt_index,
                prompt: prompt.clone(),
                image,
                file,
            });
        }
    }
    wanted
}

/// The folder of a cell's images, relative to the results.
pub(crate) fn folder_of(experiment: &Experiment, cell: &Cell) -> PathBuf {
    Path::new("images")
        .join(&experiment.variants[cell.variant].name)
        .join(&experiment.concepts[cell.concept].name)
        .join(cell.seed.to_string())
}

/// The images of one cell that are to be generated.
#[derive(Debug, Clone, Copy)]
pub struct GenerationJob<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its variant, concept and seed.
    pub cell: &'a Cell,
    /// The experiment's folder.
    pub results: &'a Path,
    /// The base model.
    pub base: &'a Base,
    /// Becomes true when work is to stop.
    pub stop: &'a AtomicBool,
}

impl GenerationJob<'_> {
    /// Generates the images that are missing, and returns how many. Images of another run or another
    /// sampling are removed first.
    ///
    /// # Errors
    /// An unreadable model, an unwritable folder, a request to stop.
    pub fn run(&self, on_image: &(dyn Fn() + Sync)) -> Result<usize> {
        let Self {
            experiment,
            cell,
            results,
            base,
            ..
        } = *self;
        let concept = &experiment.concepts[cell.concept];
        self.prepare(&results.join(folder_of(experiment, cell)), concept)?;
        let mut generator: Option<Generator> = None;
        let mut generated = 0;
        // Batches do not depend on which images exist, so an interrupted experiment ends with the
        // same bits.
        let wanted = wanted(experiment, cell);
        for batch in batches(
            &wanted,
            batch_size(base.folder())?,
            self.test_time().is_some(),
        ) {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            let is_there = |image: &Wanted| results.join(&image.file).exists();
            if !batch.iter().all(is_there) {
                let generator = match &mut generator {
                    Some(generator) => generator,
                    None => {
                        let (base, seed) = (base.get()?, cell.seed);
                        let drawn = self.source(base)?;
                        let scale = self.variant().guidance_scale(&experiment.sampling);
                        generator.insert(Generator::new(
                            experiment, base, concept, seed, scale, drawn,
                        )?)
                    }
                };
                let images = generator.generate(batch, experiment.sampling.steps)?;
                for (wanted, image) in batch.iter().zip(images) {
                    write(&results.join(&wanted.file), &image)?;
                }
                generated += batch.len();
            }
            batch.iter().for_each(|_| on_image());
        }
        Ok(generated)
    }

    /// Whether all images are there, from this run and this sampling.
    ///
    /// # Errors
    /// An unreadable model or folder.
    pub(crate) fn is_done(&self) -> Result<bool> {
        let (name, source) = self.origin()?;
        if !is_from(&self.results.join(name), &source)? {
            return Ok(false);
        }
        let mut wanted = wanted(self.experiment, self.cell).into_iter();
        Ok(wanted.all(|image| self.results.join(image.file).exists()))
    }

    /// The folder of the images, relative to the results, and what it says about their origin.
    ///
    /// # Errors
    /// An unreadable model.
    pub(crate) fn origin(&self) -> Result<(PathBuf, String)> {
        let concept = &self.experiment.concepts[self.cell.concept];
        let folder = folder_of(self.experiment, self.cell);
        let source = source(self.experiment, self.cell, concept, self.base.folder())?;
        Ok((folder, source))
    }

    fn variant(&self) -> &Variant {
        &self.experiment.variants[self.cell.variant]
    }

    fn test_time(&self) -> Option<TestTime> {
        self.variant().test_time
    }

    /// What the images are drawn with.
    fn source(&self, base: &BaseModel) -> Result<Drawn> {
        let concept = &self.experiment.concepts[self.cell.concept];
        let run = self.cell.run.as_ref().map(|run| run.folder(self.results));
        Drawn::open(base, concept, run.as_deref(), self.test_time())
    }

    /// Empties the folder when its images come from another run or sampling.
    fn prepare(&self, folder: &Path, concept: &ConceptConfig) -> Result<()> {
        let source = source(self.experiment, self.cell, concept, self.base.folder())?;
        if is_from(folder, &source)? {
            return remove_half_written(folder);
        }
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(write_atomically(&folder.join(SOURCE), source.as_bytes())?)
    }
}

/// Removes what a process that was killed while it drew left in a folder of images and in the folders of its prompts.
fn remove_half_written(folder: &Path) -> Result<()> {
    remove_scratch(folder, Duration::ZERO)?;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            remove_scratch(&path, Duration::ZERO)?;
        }
    }
    Ok(())
}

/// Whether a folder of images says this about their origin. Whoever holds its claim may be removing it.
fn is_from(folder: &Path, source: &str) -> Result<bool> {
    let path = folder.join(SOURCE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text == source),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn write(path: &Path, image: &RgbImage) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(write_png(path, image)?)
}

fn source(
    experiment: &Experiment,
    cell: &Cell,
    concept: &ConceptConfig,
    model: &ModelFolder,
) -> Result<String> {
    let sampling = &experiment.sampling;
    let prompts: Vec<String> = experiment
        .prompts_for(concept)
        .into_iter()
        .map(|prompt| prompt.prompt)
        .collect();
    let mut hasher = Sha256::new();
    let variant = model.weights().variant.unwrap_or_default();
    hasher.update(format!("{:?}{variant}", model.digests()?));
    let variant = &experiment.variants[cell.variant];
    let mut source = serde_json::json!({
        "run": cell.run.as_ref().map(|run| &run.address),
        "model": hex(&hasher.finalize()),
        "super_category": concept.super_category,
        "scheduler": sampling.scheduler.map(SchedulerKind::name),
        "steps": sampling.steps,
        "guidance_scale": variant.guidance_scale(sampling),
        "images_per_prompt": sampling.images_per_prompt,
        "prompts": prompts,
    });
    let is_mapped = |run: &PlannedRun| run.config.neti().is_some();
    if let (Some(kept), true) = (
        sampling.truncation,
        cell.run.as_ref().is_some_and(is_mapped),
    ) {
        source["truncation"] = kept.into();
    }
    if let Some(test_time) = variant.test_time {
        source["test_time"] = serde_json::to_value(test_time)?;
    }
    Ok(serde_json::to_string_pretty(&source)? + "\n")
}

/// The images of every cell.
pub(crate) fn jobs<'a>(
    experiment: &'a Experiment,
    cells: &'a [Cell],
    results: &'a Path,
    base: &'a Base,
    stop: &'a AtomicBool,
) -> Vec<GenerationJob<'a>> {
    let jobs = cells.iter().map(|cell| GenerationJob {
        experiment,
        cell,
        results,
        base,
        stop,
    });
    jobs.collect()
}
