//! The named protocols: one entry per paper or evaluation code, every rule with its source. An entry
//! says in what it differs from [`DREAMBOOTH`].

use super::{Averaging, Blank, Pairing, Protocol, Scale, TextRule};

/// Ruiz et al. 2023, section 4.2: mean pairwise cosine of generated and real images, for CLIP-T of
/// prompt and image; per subject, then over subjects.
const DREAMBOOTH: Protocol = Protocol {
    name: "dreambooth",
    source: "Ruiz et al. 2023, DreamBooth, section 4.2",
    encoders: "CLIP ViT-B/32; DINO ViT-S/16",
    text: TextRule::ClassWord,
    text_scale: Scale::Raw,
    image_scale: Scale::Raw,
    pairing: Pairing::All,
    averaging: Averaging::Macro,
    images_per_prompt: None,
    blank: Blank::Scored,
    masked: false,
    left_out: &[],
};

/// Every protocol that has a name.
///
/// Encoders and preprocessing are not part of a preset: they come from the folders given, and
/// `protocol.json` holds their digests. The sources' own encoders stand in [`Protocol::encoders`].
pub(super) static PRESETS: &[Protocol] = &[
    DREAMBOOTH,
    // The CoRe paper's evaluation: foregrounds for CLIP-I and DINO, following JeDi; stylisation
    // and outfit prompts are left out of both. It names neither encoders nor fill.
    Protocol {
        name: "core",
        source: "Wu et al. 2025, CoRe, evaluation metrics, after Zeng et al. 2024, JeDi",
        encoders: "not named",
        masked: true,
        left_out: &["style", "outfit"],
        ..DREAMBOOTH
    },
    // `evaluation/clip_eval.py` of rinongal/textual_inversion: `target_text.replace("*", "")`, mean
    // over all pairs. It has no DINO; ours is computed like its CLIP-I.
    Protocol {
        name: "textual-inversion",
        source: "rinongal/textual_inversion, evaluation/clip_eval.py",
        encoders: "CLIP ViT-B/32; no DINO",
        text: TextRule::Removed,
        ..DREAMBOOTH
    },
    // `customconcept101/evaluate.py` of adobe-research/custom-diffusion: CLIPScore with w = 2.5
    // (Hessel et al. 2021), the modifier token taken out of the captions, `np.mean` of all pairs.
    Protocol {
        name: "custom-diffusion",
        source: "adobe-research/custom-diffusion, customconcept101/evaluate.py",
        encoders: "CLIP ViT-B/32 in float16; DINO ViT-S/16",
        text: TextRule::Removed,
        text_scale: Scale::ClipScore,
        ..DREAMBOOTH
    },
    // `oft-db/eval.py` of Zeju1997/oft: the first four images of each prompt, all-black ones
    // skipped, the prompt as stored, one mean over everything.
    Protocol {
        name: "oft",
        source: "Zeju1997/oft, oft-db/eval.py",
        encoders: "CLIP ViT-L/14; DINO ViT-S/16",
        text: TextRule::AsItIs,
        averaging: Averaging::Pooled,
        images_per_prompt: Some(4),
        blank: Blank::LeftOut,
        ..DREAMBOOTH
    },
    // `dreambench_plus/metrics` of yuangpeng/dreambench_plus: 100 times the cosine of the n-th
    // image and the n-th reference, one mean over everything.
    Protocol {
        name: "dreambench-plus",
        source: "yuangpeng/dreambench_plus, dreambench_plus/metrics",
        encoders: "CLIP ViT-B/32; DINO ViT-S/8 and DINOv2 ViT-S/14",
        text: TextRule::AsItIs,
        text_scale: Scale::Hundredfold,
        image_scale: Scale::Hundredfold,
        pairing: Pairing::OneToOne,
        averaging: Averaging::Pooled,
        ..DREAMBOOTH
    },
];
