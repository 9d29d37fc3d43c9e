//! CLIP-T: whether an image shows what its prompt says, by the cosine of CLIP's features of the
//! whole image and of the text (Radford et al. 2021; Ruiz et al. 2023, section 4.2).

use crate::clip::CLIP;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct ClipT;

impl Definition for ClipT {
    fn title(&self) -> &'static str {
        "CLIP-T"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &CLIP
    }

    fn compared_with(&self) -> Compared {
        Compared::Text
    }

    fn region(&self) -> Region {
        Region::Whole
    }
}
