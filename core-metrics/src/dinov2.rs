//! DINOv2: DINO's question, asked of the newer network (Oquab et al. 2023). DreamBench++ reports it
//! beside DINO (Peng et al. 2024). It runs where its folder is named.

use anyhow::ensure;
use core_model::dino::DinoKind;

use crate::dino::{check, load};
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct DinoV2;

impl Definition for DinoV2 {
    fn title(&self) -> &'static str {
        "DINOv2"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &DINOV2
    }

    fn compared_with(&self) -> Compared {
        Compared::Photos
    }

    fn region(&self) -> Region {
        Region::Foreground
    }

    fn tells_instances_apart(&self) -> bool {
        true
    }

    /// DINO's shows the same.
    fn worst_prompt_in_table(&self) -> bool {
        false
    }
}

static DINOV2: EncoderKind = EncoderKind {
    key: "dinov2",
    title: "DINOv2",
    folder: "a DINOv2 model as transformers writes it",
    required: false,
    face_input: None,
    check: |folder| {
        let config = check(folder)?;
        ensure!(
            config.kind == DinoKind::Dinov2,
            "{}: `model_type` is \"vit\", expected \"dinov2\"; name a ViT as `dino`",
            folder.join("config.json").display()
        );
        Ok(())
    },
    load,
};
