//! The evaluation images: generated once, from the same noise for every variant, and kept as files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::files::{hex, read_to_string, write_atomically, write_png};
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::SchedulerKind;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::standard_normal;
use core_model::unet::{SampleSize, UNet2DConditionConfig};
use core_train::config::ConceptConfig;
use core_train::phrase::SLOT;
use core_train::{BaseModel, Run};
use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::base::Base;
use crate::experiment::{EvaluationPrompt, Experiment};
use crate::plan::{Cell, PlannedRun};

/// The file that names the run and the sampling from which the images of a folder come.
const SOURCE: &str = "source.json";

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
    let folder = folder(experiment, cell, concept);
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

fn folder(experiment: &Experiment, cell: &Cell, concept: &ConceptConfig) -> PathBuf {
    Path::new("images")
        .join(&experiment.variants[cell.variant].name)
        .join(&concept.name)
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
        self.prepare(&results.join(folder(experiment, cell, concept)), concept)?;
        let mut generator: Option<Generator> = None;
        let mut generated = 0;
        // Batches do not depend on which images exist, so an interrupted experiment ends with the
        // same bits.
        for batch in wanted(experiment, cell).chunks(batch_size(base.folder())?) {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            let is_there = |image: &Wanted| results.join(&image.file).exists();
            if !batch.iter().all(is_there) {
                let generator = match &mut generator {
                    Some(generator) => generator,
                    None => {
                        let run = cell.run.as_ref().map(|run| run.folder(results));
                        generator.insert(Generator::new(
                            experiment,
                            base.get()?,
                            concept,
                            cell.seed,
                            run.as_deref(),
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

    /// Empties the folder when its images come from another run or sampling.
    fn prepare(&self, folder: &Path, concept: &ConceptConfig) -> Result<()> {
        let source = source(self.experiment, self.cell, concept, self.base.folder())?;
        let path = folder.join(SOURCE);
        if path.exists() && read_to_string(&path)? == source {
            return Ok(());
        }
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(write_atomically(&path, source.as_bytes())?)
    }
}

fn write(path: &Path, image: &RgbImage) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(write_png(path, image)?)
}

/// Seconds per image in a full batch, measured on two denoising steps of the base model.
///
/// # Errors
/// An unreadable model.
pub fn time_image(
    experiment: &Experiment,
    base: &BaseModel,
    concept: &ConceptConfig,
) -> Result<f64> {
    const STEPS: usize = 2;
    let seed = experiment.seeds[0];
    let generator = Generator::new(experiment, base, concept, seed, None)?;
    let prompts = experiment.prompts_for(concept);
    let size = batch_size(&base.folder)?;
    let batch: Vec<Wanted> = prompts
        .iter()
        .cycle()
        .take(size)
        .map(|prompt| Wanted {
            prompt_index: 0,
            prompt: prompt.clone(),
            image: 0,
            file: PathBuf::new(),
        })
        .collect();
    generator.generate(&batch, STEPS)?;
    let start = Instant::now();
    generator.generate(&batch, STEPS)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(seconds * experiment.sampling.steps as f64 / (STEPS * size) as f64)
}

/// Images per batch, which depends on the model alone.
fn batch_size(model: &ModelFolder) -> Result<usize> {
    let unet = UNet2DConditionConfig::from_file(&model.path().join("unet/config.json"))?;
    let size = unet.sample_size.unwrap_or(SampleSize::Square(64));
    let (height, width) = (size.height(), size.width());
    Ok(StableDiffusionPipeline::images_per_batch(height, width))
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
    let mut source = serde_json::json!({
        "run": cell.run.as_ref().map(|run| &run.address),
        "model": hex(&hasher.finalize()),
        "super_category": concept.super_category,
        "scheduler": sampling.scheduler.map(SchedulerKind::name),
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
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
    Ok(serde_json::to_string_pretty(&source)? + "\n")
}

/// A pipeline with a learned concept, or the base model's.
struct Generator<'a> {
    experiment: &'a Experiment,
    concept: &'a ConceptConfig,
    seed: u64,
    /// What stands for `{}` in prompts.
    word: String,
    pipeline: StableDiffusionPipeline,
    device: Device,
}

impl<'a> Generator<'a> {
    fn new(
        experiment: &'a Experiment,
        base: &BaseModel,
        concept: &'a ConceptConfig,
        seed: u64,
        run: Option<&Path>,
    ) -> Result<Self> {
        let (mut pipeline, word) = open(base, concept, run)?;
        if let (Some(kept), Some(_)) = (experiment.sampling.truncation, pipeline.model.mapper()) {
            pipeline = pipeline.with_truncation(kept)?;
        }
        Ok(Self {
            experiment,
            concept,
            seed,
            word,
            pipeline,
            device: base.device.clone(),
        })
    }

    fn generate(&self, batch: &[Wanted], steps: usize) -> Result<Vec<RgbImage>> {
        let prompts: Vec<String> = batch
            .iter()
            .map(|image| image.prompt.prompt.replace(SLOT, &self.word))
            .collect();
        let cond = self.pipeline.prompt_states(&prompts);
        let uncond = self.pipeline.prompt_states(&[String::new()]);
        let sampling = &self.experiment.sampling;
        let options = SamplingOptions {
            kind: sampling.scheduler,
            num_inference_steps: steps,
            guidance_scale: sampling.guidance_scale,
        };
        let noise = self.noise(batch)?;
        let latents = self
            .pipeline
            .sample(cond, uncond, noise, &options, &mut |_| {})?;
        Ok(self.pipeline.decode(latents))
    }

    /// The initial noise of images: a function of seed, concept, prompt and image index alone, so that
    /// variants are compared on the same noise.
    fn noise(&self, batch: &[Wanted]) -> Result<Tensor<4>> {
        let [c, h, w] = self.pipeline.latent_shape()?;
        let mut values = Vec::with_capacity(batch.len() * c * h * w);
        for image in batch {
            let purpose = format!(
                "evaluation noise\0{}\0{}",
                self.concept.name, image.prompt.prompt
            );
            values.extend(standard_normal(
                self.seed,
                &purpose,
                image.image as u64,
                c * h * w,
            ));
        }
        Ok(Tensor::from_data(
            TensorData::new(values, [batch.len(), c, h, w]),
            &self.device,
        ))
    }
}

/// The model of a run, or the base model, and the words for the concept in prompts.
///
/// # Errors
/// An unreadable run.
pub(crate) fn open(
    base: &BaseModel,
    concept: &ConceptConfig,
    run: Option<&Path>,
) -> Result<(StableDiffusionPipeline, String)> {
    let Some(run) = run else {
        return Ok((base.pipeline.clone(), concept.super_category.clone()));
    };
    let run = Run::open(run)?;
    Ok((run.pipeline(base)?, run.phrase().words().to_string()))
}

/// Whether a run is finished.
pub(crate) fn is_trained(run: &PlannedRun, results: &Path) -> bool {
    run.folder(results).exists()
}
