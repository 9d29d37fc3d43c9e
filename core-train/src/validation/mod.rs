//! Validation images during training, always from the same noise. The loss alone says little
//! about image quality.

use std::path::Path;

use core_model::files::write_png;
use core_model::rng::randn;

use crate::error::{Error, Result};
use crate::setup::VALIDATION_SAMPLING;
use crate::stepper::{Step, Stepper};

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
    let uncond = pipeline.prompt_states(&[String::new()]);
    for (index, template) in validation.prompts.iter().enumerate() {
        let cond = pipeline.prompt_states(&[phrase.fill(template)]);
        let shape = [1, channels, height, width];
        let device = stepper.device();
        let noise = randn(shape, config.seed, "validation", index as u64, device);
        let latents = pipeline.sample(
            cond,
            uncond.clone(),
            noise,
            &VALIDATION_SAMPLING,
            &mut |_| {},
        )?;
        for image in pipeline.decode(latents) {
            let name = format!("{}-{:05}-{index:02}.png", step.row.stage, step.row.step);
            write_png(&folder.join(name), &image)?;
        }
    }
    Ok(())
}
