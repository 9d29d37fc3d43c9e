//! `environment.json`: what a run was made with.

use std::path::Path;
use std::process::Command;

use core_model::files::write_atomically;
use core_model::folder::ModelFolder;
use serde_json::json;

use crate::config::RunConfig;
use crate::error::{Error, Result};

/// Writes the file.
///
/// # Errors
/// [`Error::File`] when a model file cannot be read or the file not written.
pub(crate) fn write(path: &Path, config: &RunConfig, model: &ModelFolder) -> Result<()> {
    let environment = json!({
        "core_train": env!("CARGO_PKG_VERSION"),
        "burn": locked_version("burn"),
        "device": config.device,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "threads": rayon::current_num_threads(),
        "git_revision": git_revision(),
        "model_files": model.digests()?,
    });
    let text = serde_json::to_string_pretty(&environment)
        .map_err(|error| Error::run_folder(path, error.to_string()))?;
    Ok(write_atomically(path, format!("{text}\n").as_bytes())?)
}

/// The version of a dependency that this program was built with.
pub fn locked_version(package: &str) -> Option<&'static str> {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let (_, after) = LOCK.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split_once('"').map(|(version, _)| version)
}

/// The revision of the sources, where they lie in a git checkout and git is there.
fn git_revision() -> Option<String> {
    let output = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(locked_version("burn").is_some_and(|version| version.starts_with("0.22")));
        assert_eq!(locked_version("no such package"), None);
    }
}
