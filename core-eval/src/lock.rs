//! The lock of a results folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// Creates the folder and locks it, as long as the file is open, against other processes.
///
/// # Errors
/// An unwritable folder; another process holds the lock.
pub(crate) fn lock(results: &Path) -> Result<File> {
    let runs = results.join("runs");
    let unwritable = || {
        format!(
            "{}: results cannot be written here; name another folder with --results",
            results.display()
        )
    };
    std::fs::create_dir_all(&runs).with_context(unwritable)?;
    let file = File::create(runs.join(".lock")).with_context(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(anyhow!(
            "{}: another core-eval runs here; wait for it, or name another folder with \
             --results",
            results.display()
        )),
        Err(TryLockError::Error(error)) => Err(error).with_context(unwritable),
    }
}
