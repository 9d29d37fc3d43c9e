//! Validation images during training, always from the same noise, and their scores. The loss alone says
//! little about image quality.

mod scorer;

use std::path::Path;

use core_model::files::write_png;
use core_model::rng::randn;
use image::RgbImage;

use crate::config::ValidationConfig;
use crate::error::{Error, Result};
use crate::setup::VALIDATION_SAMPLING;
use crate::stepper::{Step, Stepper};
use scorer::Scorer;

/// What is drawn after some steps of a run.
pub(crate) struct Validation<'a> {
    config: Option<&'a ValidationConfig>,
    scorer: Option<Scorer>,
}

/// The validation images of one step.
#[derive(Default)]
pub(crate) struct Drawn {
    /// Each with its prompt.
    pub(crate) images: Vec<(String, RgbImage)>,
    /// The mean scores, by the metric's column.
    pub(crate) scores: Vec<(&'static str, f64)>,
}

impl<'a> Validation<'a> {
    /// Reads what scores need, before the first step.
    ///
    /// # Errors
    /// Image encoders and photos that cannot be read.
    pub(crate) fn new(stepper: &Stepper<'a>) -> Result<Self> {
        let run = stepper.config();
        let config = run.validation.as_ref();
        let scored = config.filter(|validation| validation.scores);
        let scorer = scored.map(|scored| Scorer::new(&run.concept, scored, stepper.device()));
        Ok(Self {
            config,
            scorer: scorer.transpose()?,
        })
    }

    /// Draws one image per validation prompt to `folder/STAGE-STEP-00.png` and on, and scores them, when
    /// the step is one after which the run wants images.
    ///
    /// # Errors
    /// A scheduler that cannot be sampled with, an unwritable folder, a score that is NaN.
    pub(crate) fn draw(&self, stepper: &Stepper<'_>, step: &Step, folder: &Path) -> Result<Drawn> {
        let due = |config: &&ValidationConfig| step.position.step.is_multiple_of(config.every);
        let Some(validation) = self.config.filter(due) else {
            return Ok(Drawn::default());
        };
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let images = images(stepper, validation)?;
        for (index, (_, image)) in images.iter().enumerate() {
            let name = format!("{}-{:05}-{index:02}.png", step.row.stage, step.row.step);
            write_png(&folder.join(name), image)?;
        }
        let scores = match &self.scorer {
            Some(scorer) => scorer.scores(&images)?,
            None => Vec::new(),
        };
        Ok(Drawn { images, scores })
    }
}

/// One image per prompt, with the networks as they are now.
fn images(stepper: &Stepper<'_>, validation: &ValidationConfig) -> Result<Vec<(String, RgbImage)>> {
    let config = stepper.config();
    let pipeline = stepper.pipeline();
    let phrase = config.phrase();
    let [channels, height, width] = pipeline.latent_shape()?;
    let uncond = pipeline.negative_states(&[String::new()]);
    let mut images = Vec::new();
    for (index, template) in validation.prompts.iter().enumerate() {
        let cond = pipeline.prompt_states(&[phrase.fill(template)])?;
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
        let decoded = pipeline.decode(latents).into_iter();
        images.extend(decoded.map(|image| (template.clone(), image)));
    }
    Ok(images)
}
