//! What checks of a file report: its name, the key at fault and the reason.

use std::path::Path;

use crate::error::{Error, Result};

/// Collects the file's name for errors.
pub(super) struct Checker<'a> {
    pub(super) path: &'a Path,
}

impl Checker<'_> {
    pub(super) fn require(
        &self,
        holds: bool,
        key: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<()> {
        if holds {
            return Ok(());
        }
        Err(Error::Config {
            path: self.path.to_path_buf(),
            key: key.into(),
            reason: reason.into(),
        })
    }

    pub(super) fn positive(&self, value: f64, key: String) -> Result<()> {
        let reason = format!("is {value}, expected a number above 0");
        self.require(value.is_finite() && value > 0.0, key, reason)
    }

    pub(super) fn at_least_one(&self, value: usize, key: String) -> Result<()> {
        self.require(value >= 1, key, "is 0, expected at least 1")
    }
}
