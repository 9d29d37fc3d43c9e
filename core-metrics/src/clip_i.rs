//! CLIP-I: whether an image shows what the photos show, by the cosines of CLIP's image features
//! (Gal et al. 2023; Ruiz et al. 2023, section 4.2). CLIP was taught by captions, so it tells kinds
//! of things better than one thing from another of its kind.

use crate::clip::CLIP;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct ClipI;

impl Definition for ClipI {
    fn title(&self) -> &'static str {
        "CLIP-I"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &CLIP
    }

    fn compared_with(&self) -> Compared {
        Compared::Photos
    }

    fn region(&self) -> Region {
        Region::Foreground
    }

    /// DINO's shows the same more clearly.
    fn worst_prompt_in_table(&self) -> bool {
        false
    }
}
