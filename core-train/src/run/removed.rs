//! `removed.json`: what was removed of a finished run to make room, with the digest of every file.
//!
//! The note is written before anything is removed, and what is removed gets another name first: at every moment a
//! file is there whole, or is one that the note names.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use core_model::files::{read_to_string, sha256, write_atomically};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The note in a run folder.
pub const REMOVED: &str = "removed.json";

/// What begins the name of something that is being removed.
const GOING: &str = ".removed-";

/// The files that were removed of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Why.
    pub reason: String,
    /// The SHA-256 of each by its path in the run folder.
    pub files: BTreeMap<String, String>,
}

impl Removed {
    /// What was removed of a run; `None` when nothing was.
    ///
    /// # Errors
    /// [`Error::RunFolder`] for a damaged note.
    pub fn read(run: &Path) -> Result<Option<Self>> {
        let path = run.join(REMOVED);
        if !path.exists() {
            return Ok(None);
        }
        let note = serde_json::from_str(&read_to_string(&path)?);
        let note = note.map_err(|error| Error::run_folder(&path, error.to_string()))?;
        Ok(Some(note))
    }

    /// Whether a result, which is a file or a folder of the run, was removed.
    pub fn holds(&self, result: &str) -> bool {
        let mut files = self.files.keys();
        files.any(|file| Path::new(file).starts_with(result))
    }
}

/// Removes results of a finished run, those of them that are there, and leaves their digests; how many were there.
///
/// # Errors
/// [`Error::File`] naming what cannot be read, written or removed. The same call then goes on.
pub fn remove(run: &Path, results: &[&str], reason: &str) -> Result<usize> {
    sweep(run)?;
    let mut note = Removed::read(run)?.unwrap_or_default();
    note.reason = reason.to_string();
    let present = results.iter().filter(|result| run.join(result).exists());
    let present: Vec<&&str> = present.collect();
    if present.is_empty() {
        return Ok(0);
    }
    for result in &present {
        for path in files(&run.join(result))? {
            let name = path.strip_prefix(run).unwrap_or(&path).to_string_lossy();
            note.files.insert(name.replace('\\', "/"), sha256(&path)?);
        }
    }
    let text = serde_json::to_string_pretty(&note)
        .map_err(|error| Error::run_folder(run, error.to_string()))?;
    write_atomically(&run.join(REMOVED), format!("{text}\n").as_bytes())?;
    for result in &present {
        remove_one(run, result)?;
    }
    Ok(present.len())
}

/// Removes something of a run folder, of which no digest is kept; whether it was there.
///
/// # Errors
/// [`Error::File`] naming it.
pub fn remove_without_note(run: &Path, name: &str) -> Result<bool> {
    sweep(run)?;
    let is_there = run.join(name).exists();
    if is_there {
        remove_one(run, name)?;
    }
    Ok(is_there)
}

/// Gives it another name, by which nobody looks for it, and removes it.
fn remove_one(run: &Path, name: &str) -> Result<()> {
    let going = run.join(format!("{GOING}{name}"));
    let path = run.join(name);
    match std::fs::rename(&path, &going) {
        Ok(()) => gone(&going),
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

/// Removes what a process has renamed and was killed before it could remove it.
fn sweep(run: &Path) -> Result<()> {
    for entry in std::fs::read_dir(run).map_err(Error::io(run))? {
        let entry = entry.map_err(Error::io(run))?;
        if entry.file_name().to_string_lossy().starts_with(GOING) {
            gone(&entry.path())?;
        }
    }
    Ok(())
}

fn gone(path: &Path) -> Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if path.exists() => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// A file, or all files of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        found.extend(files(&entry.map_err(Error::io(path))?.path())?);
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn run() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(run.path().join("unet")).unwrap();
        for file in ["unet/a", "unet/b", "lora.safetensors", "metrics.csv"] {
            std::fs::write(run.path().join(file), "abc").unwrap();
        }
        run
    }

    #[test]
    fn the_digests_of_what_was_removed_stay() {
        let folder = run();
        let run = folder.path();
        assert_eq!(Removed::read(run).unwrap(), None);
        assert_eq!(remove(run, &["unet", "oft"], "why").unwrap(), 1);
        assert_eq!(
            remove(run, &["unet", "lora.safetensors"], "why").unwrap(),
            1
        );
        assert_eq!(remove(run, &["unet"], "why").unwrap(), 0);
        let note = Removed::read(run).unwrap().unwrap();
        let files = note
            .files
            .iter()
            .map(|(name, digest)| (name.as_str(), digest.as_str()));
        let expected = [("lora.safetensors", ABC), ("unet/a", ABC), ("unet/b", ABC)];
        assert!(files.eq(expected), "{note:?}");
        assert!(note.holds("unet") && !note.holds("un") && !note.holds("metrics.csv"));
        let left = std::fs::read_dir(run).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["metrics.csv", REMOVED]);
    }

    #[test]
    fn a_removal_that_was_killed_is_finished_by_the_next() {
        let folder = run();
        let run = folder.path();
        // Killed after the note.
        let whole = remove(run, &["lora.safetensors"], "why").unwrap();
        std::fs::write(run.join("lora.safetensors"), "abc").unwrap();
        assert_eq!(whole, remove(run, &["lora.safetensors"], "why").unwrap());
        // Killed after the other name.
        std::fs::rename(run.join("unet"), run.join(".removed-unet")).unwrap();
        assert_eq!(remove(run, &["oft"], "why").unwrap(), 0);
        assert!(!run.join(".removed-unet").exists());
        assert_eq!(
            Removed::read(run).unwrap().unwrap().files["lora.safetensors"],
            ABC
        );
    }

    #[test]
    fn a_damaged_note_is_named() {
        let folder = run();
        std::fs::write(folder.path().join(REMOVED), "{").unwrap();
        let message = Removed::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains(REMOVED), "{message}");
    }
}
