//! SigLIP-T: CLIP-T's question, asked of SigLIP (Zhai et al. 2023), which was taught pair by pair. It
//! runs where its folder is named.

use crate::siglip::SIGLIP;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct SiglipT;

impl Definition for SiglipT {
    fn title(&self) -> &'static str {
        "SigLIP-T"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &SIGLIP
    }

    fn compared_with(&self) -> Compared {
        Compared::Text
    }

    fn region(&self) -> Region {
        Region::Whole
    }

    /// CLIP-T's shows the same.
    fn worst_prompt_in_table(&self) -> bool {
        false
    }
}
