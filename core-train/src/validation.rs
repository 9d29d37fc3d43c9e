//! Pictures on the way, with the same noise every time: a loss says little about them.

use std::path::Path;

use burn::tensor::Tensor;
use core_model::files::write_png;
use core_model::noise_scheduler::SchedulerKind;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::randn;

use crate::data::prompts::fill;
use crate::error::{Error, Result};

/// Few steps suffice to see where training goes.
const OPTIONS: SamplingOptions = SamplingOptions {
    kind: Some(SchedulerKind::DpmppTwoM),
    num_inference_steps: 20,
    guidance_scale: 7.5,
};

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shots<'a> {
    /// Templates, one picture each.
    pub(crate) prompts: &'a [String],
    /// What stands for the concept.
    pub(crate) token: &'a str,
    /// Its input embeddings, [num_vectors, d].
    pub(crate) rows: &'a Tensor<2>,
    /// The run's.
    pub(crate) seed: u64,
}

/// Draws one picture a prompt to `folder/NAME-00.png` and on.
pub(crate) fn draw(
    pipeline: &StableDiffusionPipeline,
    shots: &Shots<'_>,
    folder: &Path,
    name: &str,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let [channels, height, width] = pipeline.latent_shape()?;
    let uncond = pipeline.encode_prompts(&[String::new()], None);
    for (index, template) in shots.prompts.iter().enumerate() {
        let prompt = fill(template, shots.token);
        let cond = pipeline.encode_prompts(&[prompt], Some(shots.rows));
        let shape = [1, channels, height, width];
        let device = shots.rows.device();
        let noise = randn(shape, shots.seed, "validation", index as u64, &device);
        let latents = pipeline.sample(cond, uncond.clone(), noise, &OPTIONS, &mut |_| {})?;
        for image in pipeline.decode(latents) {
            let path = folder.join(format!("{name}-{index:02}.png"));
            write_png(&path, &image)?;
        }
    }
    Ok(())
}
