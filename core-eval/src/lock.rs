//! The lock that a process holds while it scores and writes tables.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How often a lock of another process is tried.
const RETRY: Duration = Duration::from_millis(300);

/// Waits until no other process scores here, and keeps others out as long as the file is open. On a file
/// system without locks a warning is all: processes that score at once write the same tables.
///
/// # Errors
/// An unwritable folder, a request to stop.
pub(crate) fn lock(results: &Path, stop: &AtomicBool) -> Result<File> {
    let unwritable = || {
        format!(
            "{}: results cannot be written here; name another folder with --results",
            results.display()
        )
    };
    let runs = results.join("runs");
    std::fs::create_dir_all(&runs).with_context(unwritable)?;
    let file = File::create(runs.join(".lock")).with_context(unwritable)?;
    let mut has_said_so = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut has_said_so, true) {
                    tracing::info!("another core-eval scores in {}", results.display());
                }
                std::thread::sleep(RETRY);
            }
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                tracing::warn!(
                    "{}: this file system has no locks ({error}); start only one core-eval that \
                     scores here",
                    results.display()
                );
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(unwritable),
        }
        if stop.load(Ordering::Relaxed) {
            bail!("stopped; the same command continues from here");
        }
    }
}

/// What file systems answer that have no locks: `ENOSYS` and `EOPNOTSUPP`, or on NFS without its lock
/// service `ENOLCK`.
fn has_no_locks(error: &std::io::Error) -> bool {
    const ENOLCK: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };
    error.kind() == ErrorKind::Unsupported || cfg!(unix) && error.raw_os_error() == Some(ENOLCK)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Error;

    use super::has_no_locks;

    #[test]
    fn a_file_system_without_locks_is_told_from_one_that_cannot_be_written() {
        for [code, expected] in [[38, 1], [95, 1], [37, 1], [28, 0], [13, 0]] {
            let error = Error::from_raw_os_error(code);
            assert_eq!(has_no_locks(&error), expected == 1, "{error}");
        }
    }
}
