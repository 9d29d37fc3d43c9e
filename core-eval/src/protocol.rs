//! How scores are computed, by name and in writing.

use std::path::Path;

use anyhow::{Result, bail};
use core_model::files::sha256;
use serde_json::{Value, json};

/// A way of scoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// DreamBooth's: raw cosines, all pairs of image and photo, whole pictures.
    Dreambooth,
    /// The paper's: CLIP-I and DINO on masked foregrounds, without stylisation and outfit prompts.
    Core,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Dreambooth, Self::Core];

    /// The protocol of a name.
    ///
    /// # Errors
    /// An unknown name, with the known ones.
    pub fn named(name: &str) -> Result<Self> {
        let known: Vec<&str> = Self::ALL.iter().map(|protocol| protocol.name()).collect();
        match Self::ALL.iter().find(|protocol| protocol.name() == name) {
            Some(protocol) => Ok(*protocol),
            None => bail!("protocol `{name}` is none of: {}", known.join(", ")),
        }
    }

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dreambooth => "dreambooth",
            Self::Core => "core",
        }
    }

    /// Refuses to score without masks what must be masked.
    ///
    /// # Errors
    /// The protocol needs masks and there are none.
    pub fn check_masks(self, given: bool) -> Result<()> {
        match (self, given) {
            (Self::Core, false) => bail!(
                "protocol `core` scores masked foregrounds and needs masks for images and photos; \
                 give them to `core-eval score` with --generated-masks and --references-masks, or \
                 use protocol `dreambooth`"
            ),
            (Self::Dreambooth, true) => bail!(
                "protocol `dreambooth` scores whole pictures and uses no masks; drop them, or use \
                 protocol `core`"
            ),
            _ => Ok(()),
        }
    }

    /// Whether CLIP-I and DINO are given for prompts of a kind.
    pub fn scores_identity(self, kind: &str) -> bool {
        self == Self::Dreambooth || !matches!(kind, "style" | "outfit")
    }

    /// `protocol.json`.
    ///
    /// # Errors
    /// Unreadable files of a judge.
    pub fn to_json(self, clip: &Path, dino: &Path) -> Result<String> {
        let masked = self == Self::Core;
        let protocol = json!({
            "protocol": self.name(),
            "clip": judge(clip)?,
            "dino": judge(dino)?,
            "scale": "raw cosine",
            "pairing": "every image with every photo of its concept",
            "averaging": "over images of a prompt, prompts, then macro over concepts",
            "text": "{} replaced by the super-category",
            "masked": masked,
            "outside_the_mask": if masked { json!("black") } else { Value::Null },
            "left_out_of_clip_i_and_dino": if masked { json!(["style", "outfit"]) } else { json!([]) },
        });
        Ok(serde_json::to_string_pretty(&protocol)? + "\n")
    }
}

fn judge(folder: &Path) -> Result<Value> {
    let preprocessor = folder.join("preprocessor_config.json");
    let mut preprocessing = Value::Null;
    if preprocessor.exists() {
        preprocessing = serde_json::from_str(&core_model::files::read_to_string(&preprocessor)?)?;
    }
    Ok(json!({
        "sha256": sha256(&folder.join("model.safetensors"))?,
        "preprocessing": preprocessing,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_protocol_is_refused_with_the_known_ones() {
        let message = Protocol::named("clip").unwrap_err().to_string();
        assert!(message.contains("dreambooth, core"), "{message}");
    }

    #[test]
    fn the_masked_protocol_refuses_to_go_without_masks() {
        assert!(Protocol::Core.check_masks(false).is_err());
        assert!(Protocol::Dreambooth.check_masks(false).is_ok());
    }

    #[test]
    fn the_masked_protocol_leaves_style_and_outfit_out_of_identity() {
        assert!(!Protocol::Core.scores_identity("style"));
        assert!(!Protocol::Core.scores_identity("outfit"));
        assert!(Protocol::Core.scores_identity("background"));
        assert!(Protocol::Dreambooth.scores_identity("style"));
    }
}
