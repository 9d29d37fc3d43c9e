//! Held-out people as a tuning-free encoder draws them: two photos, then one image for each prompt.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use core_model::files::write_png;
use core_model::noise_scheduler::SchedulerKind;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::{randn, rng};
use image::RgbImage;

use super::person_latents::People;
use super::scenes::{Split, images, pixels, rendered};
use crate::progress::Progress;
use crate::world::View;
use crate::world::contact_sheet::contact_sheet;

/// People on the sheet, and photos of each.
const PEOPLE: u64 = 8;
const PHOTOS: usize = 2;

/// What is asked for; `{}` stands for the person.
const PROMPTS: [&str; 6] = [
    "a photo of a {}",
    "a {} in the snow",
    "a sketch of a {}",
    "a {} wearing glasses",
    "a {} in red",
    "a smiling {}",
];

const SAMPLING: SamplingOptions = SamplingOptions {
    kind: Some(SchedulerKind::DpmppTwoM),
    num_inference_steps: 20,
    guidance_scale: 6.0,
};

/// A sheet with one row per person.
pub(super) struct PeopleSheet<'a> {
    pub(super) seed: u64,
    pub(super) base: &'a StableDiffusionPipeline,
    pub(super) device: &'a Device,
}

impl PeopleSheet<'_> {
    /// Draws the people as `person` makes them of photos [photos, 3, side, side] in -1..1, and writes the
    /// sheet. `word` stands for a person in its prompts.
    ///
    /// # Errors
    /// Prompts that do not fit, an unwritable file.
    pub(super) fn write(
        &self,
        path: &Path,
        word: &str,
        person: &dyn Fn(Tensor<4>) -> Result<StableDiffusionPipeline>,
    ) -> Result<()> {
        let people = People::new(self.seed, "sheet person", Split::HeldOut, 1);
        let [c, h, w] = self.base.latent_shape()?;
        let mut sheet: Vec<RgbImage> = Vec::new();
        let mut progress = Progress::new("people on the contact sheet", 0, PEOPLE);
        for number in 0..PEOPLE {
            let identity = people.identity(number);
            let mut generator = rng(self.seed, "sheet photos", number);
            let photos = (0..PHOTOS)
                .flat_map(|_| rendered(&identity, &View::sample(&mut generator, &identity)));
            let photos = pixels(photos.collect(), self.device);
            let pipeline = person(photos.clone())?;
            let prompts = PROMPTS.map(|prompt| prompt.replace("{}", word)).to_vec();
            let cond = pipeline.prompt_states(&prompts)?;
            let uncond = pipeline.negative_states(&[String::new()]);
            let shape = [prompts.len(), c, h, w];
            let noise = randn(shape, self.seed, "sheet noise", number, self.device);
            let latents = pipeline.sample(cond, uncond, noise, &SAMPLING, &mut |_| {})?;
            sheet.extend(images(photos));
            sheet.extend(pipeline.decode(latents));
            progress.advance("");
        }
        progress.finish();
        let columns = PHOTOS + PROMPTS.len();
        Ok(write_png(path, &contact_sheet(&sheet, columns as u32))?)
    }
}
