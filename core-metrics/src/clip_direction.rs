//! Directional CLIP: whether an image differs from the base model's image as its prompt differs from
//! the base prompt. It is the cosine of two directions in CLIP's space, from base image to image and
//! from base prompt to prompt (Gal et al. 2022, StyleGAN-NADA, section 4.1). It runs where base images
//! and their prompt are given.

use crate::clip::CLIP;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct ClipDirection;

impl Definition for ClipDirection {
    fn title(&self) -> &'static str {
        "directional CLIP"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &CLIP
    }

    fn compared_with(&self) -> Compared {
        Compared::Direction
    }

    fn region(&self) -> Region {
        Region::Whole
    }

    fn worst_prompt_in_table(&self) -> bool {
        false
    }
}
