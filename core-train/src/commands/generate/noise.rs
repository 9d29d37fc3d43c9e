//! The initial noise of images, and latents in files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::rng::randn;

use super::generator::Generator;
use super::plan::Plan;

/// The key of latents in files.
const LATENTS: &str = "latents";

/// Latents [images, channels, height, width] as they stand in a file.
#[derive(Default)]
pub(super) struct LatentsFile {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl LatentsFile {
    /// Adds the latents of a batch after those that are there.
    pub(super) fn add(&mut self, [count, rest @ ..]: [usize; 4], values: Vec<f32>) {
        let [channels, height, width] = rest;
        self.shape = [self.shape[0] + count, channels, height, width];
        self.values.extend(values);
    }

    /// Writes the file, if one is wanted, and checks what was drawn.
    ///
    /// # Errors
    /// An unwritable file, latents that are not finite.
    pub(super) fn finish(self, path: Option<&Path>) -> Result<()> {
        let finite = self.values.iter().all(|value| value.is_finite());
        if let Some(path) = path {
            let tensor = TensorToWrite {
                name: LATENTS.to_string(),
                shape: self.shape.to_vec(),
                values: self.values,
            };
            save_tensors(path, vec![tensor], Precision::Float32, &[])?;
        }
        ensure!(
            finite,
            "the latents are not finite, so the images are worthless; lower --guidance-scale or check \
             the learned concept"
        );
        Ok(())
    }
}

/// The tensor `latents` of a file, one per wanted image.
///
/// # Errors
/// An unreadable file, latents of another shape or number, values that are not finite.
pub(super) fn read(path: &Path, num_images: usize) -> Result<LatentsFile> {
    let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
    let (values, shape) = file.read_f32(LATENTS)?.with_context(|| {
        let keys: Vec<&str> = file.keys().take(5).collect();
        format!(
            "{}: no tensor `{LATENTS}`; there are {keys:?}",
            path.display()
        )
    })?;
    let shape: [usize; 4] = shape.as_slice().try_into().with_context(|| {
        let expected = "[images, channels, height, width]";
        format!(
            "{}: `{LATENTS}` has shape {shape:?}, expected {expected}",
            path.display()
        )
    })?;
    ensure!(
        shape[0] == num_images,
        "{}: `{LATENTS}` holds noise for {} images but --num-images is {num_images}",
        path.display(),
        shape[0],
    );
    ensure!(
        !values.is_empty() && values.iter().all(|value| value.is_finite()),
        "{}: `{LATENTS}` is empty or holds values that are not finite",
        path.display()
    );
    Ok(LatentsFile { values, shape })
}

/// The noise of a file on the generator's device.
///
/// # Errors
/// Latents that do not fit the model.
pub(super) fn of_file(file: LatentsFile, generator: &Generator) -> Result<Tensor<4>> {
    let [_, channels, height, width] = file.shape;
    let pipeline = generator.pipeline();
    pipeline
        .check_latents([channels, height, width])
        .context("--init-latents")?;
    let data = TensorData::new(file.values, file.shape);
    Ok(Tensor::from_data(data, generator.device()))
}

/// Noise of unit variance for the images of one prompt. That of an image depends on its seed, its
/// number among the images of that seed and its size only.
///
/// # Errors
/// A size that the model cannot draw; a model that names no size of its own.
pub(super) fn of_seeds(
    plan: &Plan,
    size: [Option<u32>; 2],
    generator: &Generator,
) -> Result<Tensor<4>> {
    let [channels, height, width] = latent_shape(size, generator)?;
    let one = |image: usize| {
        let (seed, number) = plan.seed_of(image);
        randn(
            [1, channels, height, width],
            seed.unwrap_or_default(),
            "initial latents",
            number as u64,
            generator.device(),
        )
    };
    let all = (0..plan.images_per_prompt()).map(one);
    Ok(Tensor::cat(all.collect(), 0))
}

/// The shape of the latents of images with these width and height in pixels, or the model's own.
fn latent_shape(size: [Option<u32>; 2], generator: &Generator) -> Result<[usize; 3]> {
    let pipeline = generator.pipeline();
    let channels = pipeline.model.unet().config().in_channels;
    let factor = pipeline.vae.config().factor();
    let [width, height] = size;
    let side = |name: &str, pixels: u32| -> Result<usize> {
        let pixels = pixels as usize;
        let below = (pixels / factor).max(1) * factor;
        ensure!(
            pixels.is_multiple_of(factor),
            "--{name} is {pixels}, but this model draws sides that are multiples of {factor} pixels; take \
             {below} or {}",
            below + factor
        );
        Ok(pixels / factor)
    };
    let width = width.map(|pixels| side("width", pixels)).transpose()?;
    let height = height.map(|pixels| side("height", pixels)).transpose()?;
    let shape = match (width, height) {
        (Some(width), Some(height)) => [channels, height, width],
        (width, height) => {
            let [channels, own_height, own_width] = pipeline
                .latent_shape()
                .context("neither --width and --height nor --init-latents are given")?;
            [
                channels,
                height.unwrap_or(own_height),
                width.unwrap_or(own_width),
            ]
        }
    };
    pipeline.check_latents(shape)?;
    Ok(shape)
}
