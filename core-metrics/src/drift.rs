//! Drift: how far an image moved from the one that the base model generates for the same prompt from
//! the same noise, as 1 minus the cosine of DINO's features. Prompts that do not speak of the concept
//! should give the base model's images: 0 means that learning the concept changed nothing else
//! (the language drift of Ruiz et al. 2023, section 3.3). It runs where base images are given.

use crate::dino::DINO;
use crate::encoder::cosine;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct Drift;

impl Definition for Drift {
    fn title(&self) -> &'static str {
        "drift"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &DINO
    }

    fn compared_with(&self) -> Compared {
        Compared::BaseImage
    }

    fn region(&self) -> Region {
        Region::Whole
    }

    fn similarity(&self, image: &[f32], base: &[f32]) -> f64 {
        1.0 - cosine(image, base)
    }

    fn worst_prompt_in_table(&self) -> bool {
        false
    }
}
