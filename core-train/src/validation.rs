//! Validation images during training, always from the same noise. The loss alone says little
//! about image quality.

use std::path::Path;

use core_model::files::write_png;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::pipeline::SamplingOptions;
use core_model::rng::randn;

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::stepper::{Step, Stepper};

/// Few steps suffice to see where training goes.
const OPTIONS: SamplingOptions = SamplingOptions {
    kind: Some(SchedulerKind::DpmppTwoM),
    num_inference_steps: 20,
    guidance_scale: 7.5,
};

/// Refuses validation images of a model that cannot be sampled with, before the first step.
///
/// # Errors
/// The key of the model's `scheduler_config.json` that does not fit.
pub(crate) fn check(config: &RunConfig, scheduler_config: &SchedulerConfig) -> Result<()> {
    if config.validation.is_some() {
        scheduler_config.sampler(OPTIONS.kind, OPTIONS.num_inference_steps)?;
    }
    Ok(())
}

/// Draws one image per validation prompt to `folder/STAGE-STEP-00.png` and on, when the step is
/// one after which the run wants images.
///
/// # Errors
/// A scheduler that cannot be sampled with, an unwritable folder.
pub(crate) fn draw(stepper: &Stepper<'_>, step: &Step, folder: &Path) -> Result<()> {
    let config = stepper.config();
    let Some(validation) = &config.validation else {
        return Ok(());
    };
    if !step.position.step.is_multiple_of(validation.every) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let pipeline = stepper.pipeline();
    let phrase = config.phrase();
    let [channels, height, width] = pipeline.latent_shape()?;
    let uncond = pipeline.encode_prompts(&[String::new()]);
    for (index, template) in validation.prompts.iter().enumerate() {
        let cond = pipeline.encode_prompts(&[phrase.fill(template)]);
        let shape = [1, channels, height, width];
        let device = cond.device();
        let noise = randn(shape, config.seed, "validation", index as u64, &device);
        let latents = pipeline.sample(cond, uncond.clone(), noise, &OPTIONS, &mut |_| {})?;
        for image in pipeline.decode(latents) {
            let name = format!("{}-{:05}-{index:02}.png", step.row.stage, step.row.step);
            write_png(&folder.join(name), &image)?;
        }
    }
    Ok(())
}
