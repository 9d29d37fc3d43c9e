//! Numbers that end a run.

use std::path::Path;

use crate::error::Error;

/// A loss, gradient or weight that is NaN or infinite.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What it is.
    pub what: String,
    /// NaN or an infinity.
    pub value: f32,
}

impl Fault {
    /// The error for users: in which stage and step it was, up to which step of the stage
    /// everything is kept, and where.
    pub(crate) fn at(self, stage: &str, step: usize, kept: usize, folder: &Path) -> Error {
        Error::NotFinite {
            stage: stage.to_string(),
            step,
            what: self.what,
            value: self.value,
            kept,
            folder: folder.to_path_buf(),
        }
    }
}

/// The number itself, unless it is NaN or infinite.
pub(crate) fn finite(what: &str, value: f32) -> Result<f32, Fault> {
    if value.is_finite() {
        return Ok(value);
    }
    let what = what.to_string();
    Err(Fault { what, value })
}
