//! Runs that have their first stages in common train them once: the earlier run ends after these stages
//! and keeps its state, and the others go on from there with the same bits as if they had trained them.

use std::path::Path;

use core_model::files::{copy_all, write_atomically};

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::logging::copy_log;
use crate::run::folder::{CHECKPOINTS, CONFIG, RunDir, VALIDATION};
use crate::run::state::{STATE, StateFolder};

/// The run that ends after the first `stages` of another.
#[must_use]
pub fn first_stages(config: &RunConfig, stages: usize) -> RunConfig {
    let mut config = config.clone();
    config.stages.truncate(stages);
    config
}

/// Whether a finished run still has the state from which another can go on.
pub fn has_state(earlier: &Path) -> bool {
    StateFolder::of(earlier)
        .position()
        .is_ok_and(|position| position.is_some())
}

/// Makes `scratch` the folder of a run that has just finished the stages of `earlier`, a finished run
/// that kept its state: whoever trains there resumes it. A folder that is there already stays as it is.
///
/// # Errors
/// [`Error::RunFolder`] when `earlier` kept no state; unreadable and unwritable files. `scratch` is there
/// whole or not at all.
pub fn begin_from(earlier: &Path, config: &RunConfig, scratch: &Path) -> Result<()> {
    if scratch.exists() {
        return Ok(());
    }
    if !has_state(earlier) {
        let reason = "has no state of its last step, so no run can go on from it; remove the folder, \
                      and it is trained again";
        return Err(Error::run_folder(earlier, reason));
    }
    let half = RunDir::scratch_of(scratch);
    if half.exists() {
        std::fs::remove_dir_all(&half).map_err(Error::io(&half))?;
    }
    std::fs::create_dir_all(&half).map_err(Error::io(&half))?;
    for name in COPIED {
        copy_all(&earlier.join(name), &half.join(name))?;
    }
    copy_log(earlier, &half, &config.log())?;
    // Its paths are relative to where it will lie, as deep as `half`.
    let text = config.to_toml(scratch)?;
    write_atomically(&half.join(CONFIG), text.as_bytes())?;
    std::fs::rename(&half, scratch).map_err(Error::io(scratch))
}

/// What a run goes on with beside its log: not its results, which it writes itself at the end.
const COPIED: [&str; 3] = [STATE, VALIDATION, CHECKPOINTS];
