//! Scratch folders of a run that several processes may train, on one machine or many.
//!
//! Each process has one of its own beside the run, `NAME.partial-TOKEN`. What a dead process has left is
//! adopted: it gets the name of the adopting process's folder, with the saved state in it. Nothing here
//! depends on the other process being dead. If it lives after all, its writes fail or go to files that no
//! longer have a name, and it notices when it is complete.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::run::folder::{CONFIG, RunDir};
use crate::run::state::StateFolder;

/// The folder of one process; the token is the process's own.
pub fn own(output: &Path, token: &str) -> PathBuf {
    let mut name = RunDir::scratch_of(output).into_os_string();
    name.push("-");
    name.push(token);
    name.into()
}

/// The folders of all processes, and that of `core-train train`, ordered by name.
///
/// # Errors
/// [`Error::File`] when the folder of the run cannot be listed.
pub fn all(output: &Path) -> Result<Vec<PathBuf>> {
    let folder = output.parent().unwrap_or(Path::new(""));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    let plain = RunDir::scratch_of(output);
    let plain = plain.file_name().unwrap_or_default().to_string_lossy();
    let mut folders = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let rest = name.to_string_lossy();
        let rest = rest.strip_prefix(plain.as_ref());
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
            folders.push(folder.join(name));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Makes the folder with the furthest state the process's own, and removes the others. Does nothing when
/// there is none.
///
/// # Errors
/// [`Error::File`] when a folder can neither be renamed nor removed.
pub fn adopt(output: &Path, own: &Path) -> Result<()> {
    let steps = |folder: &PathBuf| {
        let position = StateFolder::of(folder).position();
        position.ok().flatten().map_or(0, |position| position.total)
    };
    // A folder that was being made of an earlier run, or that a late write has made again, is not whole.
    let is_whole = |folder: &PathBuf| {
        let is_half = *folder != RunDir::scratch_of(output)
            && folder.extension().is_some_and(|ending| ending == "partial");
        !is_half && folder.join(CONFIG).exists()
    };
    let (mut whole, others): (Vec<_>, Vec<_>) = all(output)?.into_iter().partition(is_whole);
    whole.sort_by_key(steps);
    let furthest = whole.pop();
    for folder in whole.into_iter().chain(others) {
        remove(&folder)?;
    }
    match furthest {
        Some(folder) => take(&folder, own),
        None => Ok(()),
    }
}

/// Removes a folder; another process may do the same.
fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if folder.exists() => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

fn take(folder: &Path, own: &Path) -> Result<()> {
    match std::fs::rename(folder, own) {
        Ok(()) => replace_files(own),
        // Its process was not dead and is complete now, or another one was faster.
        Err(_) if !folder.exists() => Ok(()),
        Err(error) => Err(Error::io(folder)(error)),
    }
}

/// Replaces every file outside of the state by a copy of itself: a process that has it open, as it has the
/// metrics, then writes to a file without a name.
fn replace_files(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            if path != StateFolder::of(folder).path() {
                replace_files(&path)?;
            }
            continue;
        }
        let copy = tempfile::Builder::new()
            .prefix(".scratch-")
            .tempfile_in(folder)
            .map_err(Error::io(&path))?
            .into_temp_path();
        std::fs::copy(&path, &copy).map_err(Error::io(&path))?;
        let kept = copy.persist(&path);
        kept.map_err(|error| Error::io(&path)(error.error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// A scratch folder with a state after so many steps.
    fn scratch(folder: &Path, name: &str, steps: usize) -> PathBuf {
        let scratch = folder.join(name);
        let state = scratch.join("state").join(format!("{steps:08}"));
        fs::create_dir_all(&state).unwrap();
        let position =
            format!("{{\"format\": 2, \"stage\": 0, \"step\": {steps}, \"total\": {steps}}}");
        fs::write(state.join("position.json"), position).unwrap();
        fs::write(scratch.join("metrics.csv"), "step\n1\n").unwrap();
        fs::write(scratch.join(CONFIG), "").unwrap();
        scratch
    }

    #[test]
    fn the_furthest_state_is_adopted_and_the_others_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("run");
        scratch(folder.path(), "run.partial", 8);
        scratch(folder.path(), "run.partial-a", 100);
        scratch(folder.path(), "run.partial-b", 50);
        scratch(folder.path(), "run.partial-c.partial", 200);
        let made_again = scratch(folder.path(), "run.partial-d", 200);
        fs::remove_file(made_again.join(CONFIG)).unwrap();
        scratch(folder.path(), "run2.partial-a", 100);
        let mine = own(&output, "c");
        adopt(&output, &mine).unwrap();
        assert_eq!(all(&output).unwrap(), std::slice::from_ref(&mine));
        assert!(mine.join("state/00000100").exists());
        assert!(folder.path().join("run2.partial-a").exists());
    }

    #[test]
    fn a_process_that_lives_after_all_does_not_write_into_what_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("run");
        let theirs = scratch(folder.path(), "run.partial-a", 1);
        let metrics = theirs.join("metrics.csv");
        let mut open = fs::OpenOptions::new().append(true).open(metrics).unwrap();
        let mine = own(&output, "b");
        adopt(&output, &mine).unwrap();
        open.write_all(b"2\n").unwrap();
        let kept = fs::read_to_string(mine.join("metrics.csv")).unwrap();
        assert_eq!(kept, "step\n1\n");
    }
}
