//! SigLIP-I: CLIP-I's question, asked of SigLIP's image features (Zhai et al. 2023). It runs where its
//! folder is named.

use crate::siglip::SIGLIP;
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct SiglipI;

impl Definition for SiglipI {
    fn title(&self) -> &'static str {
        "SigLIP-I"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &SIGLIP
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
