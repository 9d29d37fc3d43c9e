//! The evaluation images: same noise for every variant, drawn once, kept as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::device::parse_device;
use core_model::files::{hex, read_to_string, write_atomically};
use core_model::learned_embedding::LearnedEmbedding;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::standard_normal;
use core_train::config::ConceptConfig;
use core_train::data::prompts::fill;
use core_train::run_dir::{EMBEDDING, UNET};
use sha2::{Digest, Sha256};

use crate::experiment::{EvaluationPrompt, Experiment};
use crate::plan::{Cell, PlannedRun};
use crate::report::write_png;

/// Says which run and which sampling the images of a folder come from.
const SOURCE: &str = "source.json";

/// One image that the experiment wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The prompt's place among those for the concept.
    pub prompt_index: usize,
    /// The prompt.
    pub prompt: EvaluationPrompt,
    /// The image's number.
    pub image: usize,
    /// The file, relative to the results.
    pub file: PathBuf,
}

/// The images of a cell, in order.
pub fn wanted(experiment: &Experiment, cell: &Cell) -> Vec<Wanted> {
    let Some(concept) = &experiment.concepts[cell.concept].config else {
        return Vec::new();
    };
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

/// Draws the images of a cell that are not there yet; those of another run or another sampling are
/// removed first.
///
/// # Errors
/// An unreadable model, an unwritable folder, a prompt that cannot be encoded.
pub fn draw(
    experiment: &Experiment,
    cell: &Cell,
    results: &Path,
    model: &str,
    on_image: &(dyn Fn() + Sync),
) -> Result<()> {
    let Some(concept) = &experiment.concepts[cell.concept].config else {
        return Ok(());
    };
    let folder = results.join(folder(experiment, cell, concept));
    let source = source(experiment, cell, concept, model)?;
    let path = folder.join(SOURCE);
    let known = if path.exists() {
        read_to_string(&path)?
    } else {
        String::new()
    };
    if known != source {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        write_atomically(&path, source.as_bytes())?;
    }
    let wanted = wanted(experiment, cell);
    // Batches are the same whatever is there already, so that an interrupted experiment draws the
    // same bits.
    let device = parse_device(&experiment.device)?;
    let mut painter: Option<Painter> = None;
    let mut batches = Vec::new();
    let batch_size = batch_size(experiment)?;
    for batch in wanted.chunks(batch_size) {
        batches.push(batch);
    }
    for batch in batches {
        if batch
            .iter()
            .any(|image| !results.join(&image.file).exists())
        {
            let painter = match &mut painter {
                Some(painter) => painter,
                None => painter.insert(Painter::new(experiment, cell, concept, results, &device)?),
            };
            painter.draw(batch, results)?;
        }
        for _ in batch {
            on_image();
        }
    }
    Ok(())
}

/// Images drawn together; fixed by the model alone.
fn batch_size(experiment: &Experiment) -> Result<usize> {
    let unet = core_model::unet::UNet2DConditionConfig::from_file(
        &experiment.model.path.join("unet/config.json"),
    )?;
    let side = unet.sample_size.unwrap_or(64);
    Ok(StableDiffusionPipeline::images_per_batch(side, side))
}

fn source(
    experiment: &Experiment,
    cell: &Cell,
    concept: &ConceptConfig,
    model: &str,
) -> Result<String> {
    let sampling = &experiment.sampling;
    let prompts: Vec<String> = experiment
        .prompts_for(concept)
        .into_iter()
        .map(|prompt| prompt.prompt)
        .collect();
    let mut hasher = Sha256::new();
    hasher.update(model);
    let source = serde_json::json!({
        "run": cell.run.as_ref().map(|run| &run.address),
        "model": hex(&hasher.finalize()),
        "super_category": concept.super_category,
        "scheduler": sampling.scheduler.name(),
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "images_per_prompt": sampling.images_per_prompt,
        "prompts": prompts,
    });
    Ok(serde_json::to_string_pretty(&source)? + "\n")
}

/// A loaded model that knows the concept.
struct Painter<'a> {
    experiment: &'a Experiment,
    concept: &'a ConceptConfig,
    seed: u64,
    /// What stands for `{}` in prompts.
    word: String,
    pipeline: StableDiffusionPipeline,
    rows: Option<Tensor<2>>,
    device: Device,
}

impl<'a> Painter<'a> {
    fn new(
        experiment: &'a Experiment,
        cell: &Cell,
        concept: &'a ConceptConfig,
        results: &Path,
        device: &Device,
    ) -> Result<Self> {
        let run = cell.run.as_ref().map(|run| run.folder(results));
        let (pipeline, word, rows) = open(&experiment.model.path, concept, run.as_deref(), device)?;
        let device = device.clone();
        Ok(Self {
            experiment,
            concept,
            seed: cell.seed,
            word,
            pipeline,
            rows,
            device,
        })
    }

    fn draw(&self, batch: &[Wanted], results: &Path) -> Result<()> {
        let sampling = &self.experiment.sampling;
        let prompts: Vec<String> = batch
            .iter()
            .map(|image| fill(&image.prompt.prompt, &self.word))
            .collect();
        let cond = self.pipeline.encode_prompts(&prompts, self.rows.as_ref());
        let uncond = self.pipeline.encode_prompts(&[String::new()], None);
        let options = SamplingOptions {
            kind: Some(sampling.scheduler),
            num_inference_steps: sampling.steps,
            guidance_scale: sampling.guidance_scale,
        };
        let noise = self.noise(batch)?;
        let latents = self
            .pipeline
            .sample(cond, uncond, noise, &options, &mut |_| {})?;
        for (wanted, image) in batch.iter().zip(self.pipeline.decode(latents)) {
            let path = results.join(&wanted.file);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            }
            write_png(&path, &image)?;
        }
        Ok(())
    }

    /// Noise of every image, a function of seed, concept, prompt and number alone, so that
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

/// The model of a run, or the untuned one; the words for the concept in prompts; the learned rows.
///
/// # Errors
/// An unreadable model or run.
pub(crate) fn open(
    model: &Path,
    concept: &ConceptConfig,
    run: Option<&Path>,
    device: &Device,
) -> Result<(StableDiffusionPipeline, String, Option<Tensor<2>>)> {
    let Some(run) = run else {
        let pipeline = StableDiffusionPipeline::load(model, device)?;
        return Ok((pipeline, concept.super_category.clone(), None));
    };
    let tuned = run.join(UNET);
    let unet = if tuned.exists() {
        tuned
    } else {
        model.join("unet")
    };
    let mut pipeline = StableDiffusionPipeline::load_with_unet(model, &unet, device)?;
    let embedding = LearnedEmbedding::load(&run.join(EMBEDDING))?;
    let token = concept.placeholder_token();
    let rows = pipeline.add_concept(&embedding, &token, device)?;
    Ok((pipeline, token, Some(rows)))
}

/// Whether a cell's run is there.
pub(crate) fn is_trained(run: &PlannedRun, results: &Path) -> bool {
    run.folder(results).exists()
}
