//! `environment.json`: what a run was made with.

use std::path::Path;

use core_model::device::{Gpu, parse_device};
use core_model::files::write_atomically;
use core_model::folder::ModelFolder;
use core_model::id_adapter::IdAdapterFolder;
use core_model::ops::instruction_set;
use serde_json::json;

use crate::config::RunConfig;
use crate::error::{Error, Result};

/// Writes the file.
///
/// # Errors
/// [`Error::File`] when a model file cannot be read or the file not written.
pub(crate) fn write(path: &Path, config: &RunConfig, model: &ModelFolder) -> Result<()> {
    let mut environment = json!({
        "core_train": env!("CARGO_PKG_VERSION"),
        "burn": burn_version(),
        "device": config.device,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "threads": rayon::current_num_threads(),
        "instruction_set": instruction_set(),
        "gpu": Gpu::of(&parse_device(&config.device)?),
        "git_revision": built_revision(),
        "model_files": model.digests()?,
    });
    if let Some(adapter) = &config.adapter {
        environment["adapter_files"] = json!(IdAdapterFolder::open(&adapter.path)?.digests()?);
    }
    let text = serde_json::to_string_pretty(&environment)
        .map_err(|error| Error::run_folder(path, error.to_string()))?;
    Ok(write_atomically(path, format!("{text}\n").as_bytes())?)
}

/// The version of Burn that this program was built with.
pub fn burn_version() -> Option<&'static str> {
    locked_version("burn-core")
}

/// The version of a dependency that this program was built with.
fn locked_version(package: &str) -> Option<&'static str> {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let (_, after) = LOCK.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split_once('"').map(|(version, _)| version)
}

/// The revision of the sources that this program was built from, with `+changes` behind it where files were
/// changed after it; none where neither git nor `CORE_REVISION` named it then.
pub fn built_revision() -> Option<&'static str> {
    option_env!("CORE_REVISION")
}

#[cfg(test)]
mod tests {
    use super::{built_revision, burn_version, locked_version};

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(burn_version().is_some_and(|version| version.starts_with("0.22")));
        assert_eq!(locked_version("no such package"), None);
    }

    #[test]
    fn the_revision_is_a_commit_of_the_sources() {
        let Some(revision) = built_revision() else {
            return;
        };
        let commit = revision.trim_end_matches("+changes");
        assert_eq!(commit.len(), 40, "{revision}");
        assert!(commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
