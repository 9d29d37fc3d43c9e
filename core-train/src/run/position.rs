//! How far a run is.

use serde::{Deserialize, Serialize};

/// The stage of a run and its steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the stage, from 0.
    pub stage: usize,
    /// Steps done in it.
    pub step: usize,
    /// Steps done in all stages.
    pub total: usize,
}
