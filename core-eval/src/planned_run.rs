//! A run that an experiment needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_train::RunConfig;

/// A run and its address.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// Everything that determines it.
    pub config: RunConfig,
    /// The hash of that, in hexadecimal.
    pub address: String,
    /// The run that ends after its first stages, from which it goes on, where others do too.
    pub earlier: Option<Arc<PlannedRun>>,
}

impl PlannedRun {
    /// Its folder.
    pub fn folder(&self, results: &Path) -> PathBuf {
        results.join("runs").join(&self.address)
    }
}
