//! What draws evaluation images: the pipeline of a run or of the base model, batch by batch.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use burn::tensor::{Tensor, TensorData};
use core_model::folder::ModelFolder;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::standard_normal;
use core_model::unet::{SampleSize, UNet2DConditionConfig};
use core_train::config::ConceptConfig;
use core_train::optimize::TestTime;
use core_train::phrase::SLOT;
use core_train::{BaseModel, Run};
use image::RgbImage;

use super::Wanted;
use crate::experiment::Experiment;

/// Images that are generated together; with test-time optimisation, of one prompt only, since every
/// prompt then has an embedding of its own.
pub(super) fn batches(wanted: &[Wanted], size: usize, by_prompt: bool) -> Vec<&[Wanted]> {
    let same = |a: &Wanted, b: &Wanted| !by_prompt || a.prompt_index == b.prompt_index;
    let parts = wanted.chunk_by(same);
    parts.flat_map(|part| part.chunks(size)).collect()
}

/// A pipeline with a learned concept, or the base model's.
pub(super) struct Generator<'a> {
    experiment: &'a Experiment,
    concept: &'a ConceptConfig,
    seed: u64,
    guidance_scale: f64,
    drawn: Drawn,
    base: &'a BaseModel,
    /// The prompt that the embedding was optimised for last, and the pipeline with it.
    optimized: Option<(String, StableDiffusionPipeline)>,
}

impl<'a> Generator<'a> {
    pub(super) fn new(
        experiment: &'a Experiment,
        base: &'a BaseModel,
        concept: &'a ConceptConfig,
        seed: u64,
        guidance_scale: f64,
        mut drawn: Drawn,
    ) -> Result<Self> {
        let truncation = experiment.sampling.truncation;
        if let (Some(kept), Some(_)) = (truncation, drawn.pipeline.model.mapper()) {
            drawn.pipeline = drawn.pipeline.with_truncation(kept)?;
        }
        Ok(Self {
            experiment,
            concept,
            seed,
            guidance_scale,
            drawn,
            base,
            optimized: None,
        })
    }

    pub(super) fn generate(&mut self, batch: &[Wanted], steps: usize) -> Result<Vec<RgbImage>> {
        let prompts: Vec<String> = batch
            .iter()
            .map(|image| image.prompt.prompt.replace(SLOT, &self.drawn.word))
            .collect();
        let names_concept = |image: &&Wanted| image.prompt.prompt.contains(SLOT);
        match batch.first().filter(names_concept).zip(prompts.first()) {
            Some((_, prompt)) => self.optimize(prompt)?,
            None => self.optimized = None,
        }
        let pipeline = self.optimized.as_ref().map(|(_, pipeline)| pipeline);
        let pipeline = pipeline.unwrap_or(&self.drawn.pipeline);
        let cond = pipeline.prompt_states(&prompts)?;
        let uncond = pipeline.negative_states(&[String::new()]);
        let sampling = &self.experiment.sampling;
        let options = SamplingOptions {
            kind: sampling.scheduler,
            num_inference_steps: steps,
            guidance_scale: self.guidance_scale,
        };
        let noise = self.noise(batch)?;
        let latents = pipeline.sample(cond, uncond, noise, &options, &mut |_| {})?;
        Ok(pipeline.decode(latents))
    }

    /// Optimises the embedding for a prompt, if the variant says so.
    fn optimize(&mut self, prompt: &str) -> Result<()> {
        let is_known = matches!(&self.optimized, Some((known, _)) if known == prompt);
        if self.drawn.test_time.is_none() || is_known {
            return Ok(());
        }
        let pipeline = self.drawn.for_prompt(self.base, prompt)?;
        self.optimized = Some((prompt.to_string(), pipeline));
        Ok(())
    }

    /// The initial noise of images: a function of seed, concept, prompt and image index alone, so that
    /// variants are compared on the same noise.
    fn noise(&self, batch: &[Wanted]) -> Result<Tensor<4>> {
        let [c, h, w] = self.drawn.pipeline.latent_shape()?;
        let mut values = Vec::with_capacity(batch.len() * c * h * w);
        for image in batch {
            let place = (self.concept.name.as_str(), image.prompt.prompt.as_str());
            values.extend(evaluation_noise(self.seed, place, image.image, c * h * w));
        }
        Ok(Tensor::from_data(
            TensorData::new(values, [batch.len(), c, h, w]),
            &self.base.device,
        ))
    }
}

/// The initial noise of one image of a concept and a prompt.
pub(crate) fn evaluation_noise(
    seed: u64,
    (concept, prompt): (&str, &str),
    image: usize,
    length: usize,
) -> Vec<f32> {
    let purpose = format!("evaluation noise\0{concept}\0{prompt}");
    standard_normal(seed, &purpose, image as u64, length)
}

/// What images of one variant, concept and seed are drawn with.
pub(crate) struct Drawn {
    /// The model of a run, or the base model.
    pub(crate) pipeline: StableDiffusionPipeline,
    /// The words for the concept in prompts.
    pub(crate) word: String,
    /// The run; none for the base model.
    run: Option<Run>,
    /// How the embedding is optimised for each prompt.
    test_time: Option<TestTime>,
}

impl Drawn {
    /// Opens a run, or takes the base model.
    ///
    /// # Errors
    /// An unreadable run.
    pub(crate) fn open(
        base: &BaseModel,
        concept: &ConceptConfig,
        run: Option<&Path>,
        test_time: Option<TestTime>,
    ) -> Result<Self> {
        let Some(run) = run else {
            return Ok(Self {
                pipeline: base.pipeline.clone(),
                word: concept.super_category.clone(),
                run: None,
                test_time: None,
            });
        };
        let run = Run::open(run)?;
        Ok(Self {
            pipeline: run.pipeline(base)?,
            word: run.phrase().words().to_string(),
            run: Some(run),
            test_time,
        })
    }

    /// The pipeline for a prompt that is filled with the concept's words.
    ///
    /// # Errors
    /// As [`TestTime::optimize`].
    pub(crate) fn for_prompt(
        &self,
        base: &BaseModel,
        prompt: &str,
    ) -> Result<StableDiffusionPipeline> {
        let pipeline = self.pipeline.clone();
        match (&self.run, &self.test_time) {
            (Some(run), Some(test_time)) => {
                Ok(test_time.optimize(run, base, pipeline, prompt, &mut |_| {})?)
            }
            _ => Ok(pipeline),
        }
    }
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
    let drawn = Drawn::open(base, concept, None, None)?;
    let guidance_scale = experiment.sampling.guidance_scale;
    let mut generator = Generator::new(experiment, base, concept, seed, guidance_scale, drawn)?;
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
pub(super) fn batch_size(model: &ModelFolder) -> Result<usize> {
    let unet = UNet2DConditionConfig::from_file(&model.path().join("unet/config.json"))?;
    let size = unet.sample_size.unwrap_or(SampleSize::Square(64));
    let (height, width) = (size.height(), size.width());
    Ok(StableDiffusionPipeline::images_per_batch(height, width))
}

#[cfg(test)]
mod tests {
    use core_train::config::Group;

    use super::*;
    use crate::experiment::EvaluationPrompt;

    #[test]
    fn with_test_time_optimisation_a_batch_has_one_prompt() {
        let image = |prompt_index: usize, image: usize| Wanted {
            prompt_index,
            prompt: EvaluationPrompt {
                group: Group::Animate,
                kind: "plain".into(),
                prompt: format!("a {{}}, {prompt_index}"),
            },
            image,
            file: PathBuf::new(),
        };
        let wanted: Vec<Wanted> = [(0, 0), (0, 1), (0, 2), (1, 0)]
            .map(|(prompt, number)| image(prompt, number))
            .into();
        let sizes = |by_prompt| -> Vec<usize> {
            let batches = batches(&wanted, 2, by_prompt).into_iter();
            batches.map(<[Wanted]>::len).collect()
        };
        assert_eq!(sizes(false), [2, 2]);
        assert_eq!(sizes(true), [2, 1, 1]);
    }
}
