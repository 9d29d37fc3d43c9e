//! Class images of prior preservation: drawn once by the untuned model and kept for all runs that
//! want the same, or taken from a folder.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_losses::PriorPreservation;
use core_model::files::{cache_folder, hex, write_png};
use core_model::image_processor::{crop, load_image};
use core_model::photos::PhotoFolder;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::randn;
use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::base_model::BaseModel;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::phrase::CLASS;
use crate::progress::Progress;

/// As diffusers' pipelines draw when nothing is said.
const OPTIONS: SamplingOptions = SamplingOptions {
    kind: None,
    num_inference_steps: 50,
    guidance_scale: 7.5,
};

/// The class prompts of a term.
pub fn class_prompts(prior: &PriorPreservation, super_category: &str) -> Vec<String> {
    let prompts = prior.prompts.iter();
    prompts
        .map(|prompt| prompt.replace(CLASS, super_category))
        .collect()
}

/// The class images as squares of `side` pixels.
///
/// # Errors
/// A folder without images, a model that cannot be sampled with, a cache that cannot be written.
pub fn class_images(
    config: &RunConfig,
    prior: &PriorPreservation,
    base: &BaseModel,
    side: u32,
) -> Result<Vec<RgbImage>> {
    if let Some(folder) = &prior.images {
        if !folder.is_dir() {
            let reason = "is no folder; `images` of prior_preservation names a folder of images";
            return Err(Error::run_folder(folder, reason));
        }
        let images = PhotoFolder::read(folder)?;
        return images
            .files
            .iter()
            .map(|file| Ok(crop(&load_image(file)?, side)))
            .collect();
    }
    let prompts = class_prompts(prior, &config.concept.super_category);
    let folder = place(config, base, &prompts)?;
    draw(&folder, prior.num_images, &prompts, config.seed, base)
}

/// Where the images of this model, these prompts and this seed are.
fn place(config: &RunConfig, base: &BaseModel, prompts: &[String]) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    let weights = base.folder.weights();
    hasher.update(format!(
        "class images 1\0{:?}\0{:?}\0{:?}\0{prompts:?}\0{}\0{}\0{}",
        base.folder.digests()?,
        weights.variant,
        weights.precision,
        config.seed,
        OPTIONS.num_inference_steps,
        OPTIONS.guidance_scale,
    ));
    let digest = hex(&hasher.finalize());
    Ok(cache_folder()?.join(format!("core/class-images/{}", &digest[..16])))
}

/// Draws what is not there; image i has noise of its own and the i-th prompt, counted around, so
/// that it does not depend on how many there are.
fn draw(
    folder: &Path,
    count: usize,
    prompts: &[String],
    seed: u64,
    base: &BaseModel,
) -> Result<Vec<RgbImage>> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let pipeline: &StableDiffusionPipeline = &base.pipeline;
    let shape = pipeline.latent_shape()?;
    let device: &Device = &base.device;
    let mut progress: Option<Progress> = None;
    let mut images = Vec::with_capacity(count);
    for index in 0..count {
        let path = folder.join(format!("{index:05}.png"));
        if !path.exists() {
            let start = || Progress::new("class images", index as u64, count as u64);
            let progress = progress.get_or_insert_with(start);
            let prompt = prompts[index % prompts.len()].clone();
            let [cond, uncond] = [prompt, String::new()].map(|p| pipeline.encode_prompts(&[p]));
            let [channels, height, width] = shape;
            let noise = [1, channels, height, width];
            let noise = randn(noise, seed, "class image", index as u64, device);
            let latents = pipeline.sample(cond, uncond, noise, &OPTIONS, &mut |_| {})?;
            for image in pipeline.decode(latents) {
                write_png(&path, &image)?;
            }
            progress.advance("");
        }
        images.push(load_image(&path)?);
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(images)
}
