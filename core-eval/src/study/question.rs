//! The questions that are asked about a pair of images.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A question about two images.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Which image shows the thing in the photos.
    Identity,
    /// Which image shows what the sentence says.
    Prompt,
    /// Which image is better in all.
    Overall,
}

impl Question {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Prompt => "prompt",
            Self::Overall => "overall",
        }
    }

    /// What people read.
    pub fn text(self) -> &'static str {
        match self {
            Self::Identity => "Which image shows the same thing as the photos?",
            Self::Prompt => "Which image follows the sentence better?",
            Self::Overall => "Which image do you prefer overall?",
        }
    }
}
