//! What the keys of a one-file checkpoint say of the whole: its family, and how names are counted.

use std::path::Path;

use super::keys::{self, Counts};
use super::{CLIP, OPEN_CLIP, UNET, VAE};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::noise_scheduler::PredictionType;

/// Keys that tell other families of models.
const OTHERS: [(&str, &str); 3] = [
    ("conditioner.embedders.", "Stable Diffusion XL"),
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
    ("model.diffusion_model.double_blocks.", "Flux"),
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
        let refuse = |reason: String| Err(Error::format(file, reason));
        for (start, family) in OTHERS {
            if whole.keys().any(|key| key.starts_with(start)) {
                return refuse(format!(
                    "is a {family} model, another architecture than Stable Diffusion 1.x and 2.x"
                ));
            }
        }
        let has = |start: &str| whole.keys().any(|key| key.starts_with(start));
        let tower = match (has(CLIP), has(OPEN_CLIP)) {
            (true, false) => TextTower::Clip,
            (false, true) => TextTower::OpenClip,
            _ => {
                return refuse(format!(
                    "is no one-file checkpoint of Stable Diffusion: expected tensors below \
                     `{UNET}`, `{VAE}` and either `{CLIP}` or `{OPEN_CLIP}`"
                ));
            }
        };
        let counts = Counts::of(whole.keys());
        if let Some(key) = whole.keys().find(|key| !is_known(key, counts)) {
            return refuse(format!(
                "tensor `{key}` belongs to no part of a Stable Diffusion 1.x or 2.x model"
            ));
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
