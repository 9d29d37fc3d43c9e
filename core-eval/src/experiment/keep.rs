//! `keep` of an experiment: what stays on disk.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stays on disk of a run whose images are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// All of it.
    #[default]
    Everything,
    /// The images, the concept, the log and the digests of the weights. The weights are removed when nothing needs them
    /// any more, and trained again when more images are wanted.
    Images,
}

impl Keep {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Everything, Self::Images];
}
