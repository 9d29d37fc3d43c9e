//! Scratch folders of readers, and what is asked of their errors. Shared as `readers.rs` is.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The value, or nothing after an error, which has to say something.
pub(crate) fn said<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!format!("{error:#}").is_empty());
            None
        }
    }
}

/// A folder of this thread that is made once, by `fill`.
pub(crate) fn scratch(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    thread_local! {
        static ROOT: tempfile::TempDir = tempfile::tempdir().expect("a scratch folder");
    }
    let folder = ROOT.with(|root| root.path().join(name));
    if !folder.exists() {
        std::fs::create_dir(&folder).expect("a scratch folder");
        fill(&folder);
    }
    folder
}
