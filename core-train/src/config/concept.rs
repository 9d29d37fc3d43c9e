//! `[concept]`: the thing to be learned.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[concept]`, or `concept.toml` in a folder of photos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptConfig {
    /// What the concept is called.
    pub name: String,
    /// Folder of photos (png, jpg, webp); the folder of the TOML file when absent.
    #[serde(default = "here")]
    pub images: PathBuf,
    /// How photos become square.
    #[serde(default)]
    pub resize: Resize,
    /// Whether photos are mirrored at random.
    #[serde(default)]
    pub flip: bool,
    /// What stands for the concept in prompts; `<name>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder_token: Option<String>,
    /// What kind of thing it is, in one word or more.
    pub super_category: String,
    /// Whose input embedding learning starts from; the super-category's when absent. Of several
    /// tokens the mean is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer_token: Option<String>,
    /// Picks the default prompt sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// How many input embeddings are learned; they take as many positions in a prompt.
    #[serde(default = "one")]
    pub num_vectors: usize,
}

fn here() -> PathBuf {
    PathBuf::from(".")
}

fn one() -> usize {
    1
}

impl ConceptConfig {
    /// What stands for the concept in prompts.
    pub fn placeholder_token(&self) -> String {
        match &self.placeholder_token {
            Some(token) => token.clone(),
            None => format!("<{}>", self.name),
        }
    }

    /// The word or words whose embedding learning starts from.
    pub fn initializer(&self) -> &str {
        self.initializer_token
            .as_deref()
            .unwrap_or(&self.super_category)
    }
}

/// How a photo becomes square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Scale the shorter side, cut the middle out.
    #[default]
    Crop,
    /// Scale both sides, whatever becomes of the proportions.
    Squash,
}

/// The two kinds of concepts for which the paper has prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Animals and people: they act and wear things.
    Animate,
    /// Everything else.
    Inanimate,
}

impl Group {
    /// The name in TOML and CSV files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Animate => "animate",
            Self::Inanimate => "inanimate",
        }
    }
}
