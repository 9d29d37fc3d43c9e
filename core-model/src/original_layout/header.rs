//! What the keys of a one-file checkpoint say of the whole: its family, and how names are counted.

use std::path::Path;

use super::keys::{self, Counts};
use super::{CLIP, OPEN_CLIP, UNET, VAE};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::noise_scheduler::PredictionType;

/// Keys that tell other models, or parts of one, and what such a file is.
const OTHERS: [(&str, &str); 9] = [
    (
        "conditioner.embedders.",
        "a Stable Diffusion XL model, another architecture",
    ),
    (
        "model.diffusion_model.joint_blocks.",
        "a Stable Diffusion 3 model, another architecture",
    ),
    (
        "model.diffusion_model.double_blocks.",
        "a Flux model, another architecture",
    ),
    ("lora_unet_", "a LoRA, a change of a model and none itself"),
    ("lora_te_", "a LoRA, a change of a model and none itself"),
    (
        "control_model.",
        "a ControlNet, which steers a model and is none itself",
    ),
    ("decoder.mid.", "a VAE alone"),
    ("decoder.mid_block.", "a VAE alone"),
    ("down_blocks.0.", "a U-Net alone, in the names of diffusers"),
];

/// Which text tower a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTower {
    /// OpenAI's CLIP in transformers' names: 1.x.
    Clip,
    /// OpenCLIP's: 2.x.
    OpenClip,
}

/// Keys without values by which tools mark what a U-Net predicts, and a schedule that ends
/// without signal.
const VELOCITY_MARK: &str = "v_pred";
const ZERO_SNR_MARK: &str = "ztsnr";

/// What a file says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) tower: TextTower,
    /// From a mark, from `modelspec.prediction_type` (the Stability AI model metadata standard), or
    /// the family's; none where 2.x does not tell.
    pub(super) prediction: Option<PredictionType>,
    /// Whether its schedule ends without signal, from a mark.
    pub(super) zero_terminal_snr: bool,
    pub(super) counts: Counts,
}

impl Header {
    /// Looks at all keys of a file.
    ///
    /// # Errors
    /// Another family, a key of no part of a model, no whole model.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let whole = Checkpoint::open(file, |key| Some(key.to_string()))?;
        whole.say_skipped_objects();
        let refuse = |reason: String| Err(Error::format(file, reason));
        let has = |start: &str| whole.keys().any(|key| key.starts_with(start));
        if let Some((_, what)) = OTHERS.iter().find(|(start, _)| has(start)) {
            return refuse(format!(
                "is {what}; expected a whole model of Stable Diffusion 1.x or 2.x"
            ));
        }
        let tower = match (has(CLIP), has(OPEN_CLIP)) {
            (true, false) => Some(TextTower::Clip),
            (false, true) => Some(TextTower::OpenClip),
            _ => None,
        };
        let tower = match (has(UNET), has(VAE), tower) {
            (true, true, Some(tower)) => tower,
            (false, false, None) => {
                return refuse(format!(
                    "is not a one-file checkpoint of Stable Diffusion: expected tensors below \
                     `{UNET}`, `{VAE}` and either `{CLIP}` or `{OPEN_CLIP}`"
                ));
            }
            (false, ..) => return refuse(lacks("U-Net", UNET)),
            (_, false, _) => return refuse(lacks("VAE (autoencoder)", VAE)),
            (.., None) => return refuse(lacks("text encoder", CLIP)),
        };
        let counts = Counts::of(whole.keys());
        if let Some(key) = whole.keys().find(|key| is_foreign(key, counts)) {
            return refuse(format!(
                "tensor `{key}` belongs to no part of a Stable Diffusion 1.x or 2.x model"
            ));
        }
        let mut further = whole.keys().filter(|key| !is_known(key, counts));
        if let Some(key) = further.next() {
            tracing::warn!(
                "{}: `{key}` and {} further tensors are of no network and not used",
                file.display(),
                further.count()
            );
        }
        let stated = whole.metadata().get("modelspec.prediction_type");
        let prediction = match stated.map(String::as_str) {
            _ if whole.info(VELOCITY_MARK).is_some() => Some(PredictionType::VPrediction),
            Some("v" | "v_prediction") => Some(PredictionType::VPrediction),
            Some("epsilon") => Some(PredictionType::Epsilon),
            Some(other) => {
                return refuse(format!(
                    "its `modelspec.prediction_type` is `{other}`, expected epsilon or v"
                ));
            }
            None if tower == TextTower::Clip => Some(PredictionType::Epsilon),
            None => None,
        };
        Ok(Self {
            tower,
            prediction,
            zero_terminal_snr: whole.info(ZERO_SNR_MARK).is_some(),
            counts,
        })
    }
}

fn lacks(part: &str, start: &str) -> String {
    format!(
        "has no {part}: there are no tensors below `{start}`; take a checkpoint that holds the \
         whole model, or add that part to it"
    )
}

/// Whether a key below a network's name is none of that network.
fn is_foreign(key: &str, counts: Counts) -> bool {
    if let Some(rest) = key.strip_prefix(UNET) {
        return keys::unet(rest, counts.unet_blocks).is_none();
    }
    match key.strip_prefix(VAE) {
        // The discriminator of the autoencoder's training.
        Some(rest) if rest.starts_with("loss.") => false,
        Some(rest) => keys::vae(rest, counts.vae_levels).is_none(),
        None => false,
    }
}

/// Whether a key is of a network, or one that training left: schedules, moving averages.
fn is_known(key: &str, counts: Counts) -> bool {
    if let Some(rest) = key.strip_prefix(UNET) {
        return keys::unet(rest, counts.unet_blocks).is_some();
    }
    if let Some(rest) = key.strip_prefix(VAE) {
        return keys::vae(rest, counts.vae_levels).is_some();
    }
    if let Some(rest) = key.strip_prefix(OPEN_CLIP) {
        return keys::open_clip(rest).is_some();
    }
    if let Some(rest) = key.strip_prefix(CLIP) {
        let rest = rest.strip_prefix("text_model.").unwrap_or(rest);
        return ["embeddings.", "encoder.", "final_layer_norm."]
            .iter()
            .any(|start| rest.starts_with(start));
    }
    let training = [
        "model_ema.",
        "log_",
        "sqrt_",
        "posterior_",
        "betas",
        "alphas_",
    ];
    training.iter().any(|start| key.starts_with(start))
        || matches!(
            key,
            "logvar"
                | "cond_stage_model.logit_scale"
                | "global_step"
                | "lvlb_weights"
                | VELOCITY_MARK
                | ZERO_SNR_MARK
        )
}
