//! Paths in TOML files are relative to the file.

use std::path::{Component, Path, PathBuf};

use core_model::files::seen_from;
use core_model::source::is_repository;

/// The absolute folder of a file.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    absolute(folder)
}

/// `path` seen from `base`, without `.` and `..` where the file system allows to tell.
pub(super) fn resolve(base: &Path, path: &Path) -> PathBuf {
    let joined = seen_from(base, path);
    joined.canonicalize().unwrap_or_else(|_| tidy(&joined))
}

/// [`resolve`] for a model; the name of a repository is kept.
pub(super) fn resolve_model(base: &Path, path: &Path) -> PathBuf {
    match is_repository(base, path) {
        true => path.to_path_buf(),
        false => resolve(base, path),
    }
}

/// [`relative`] for a model, the other way round.
pub(super) fn relative_model(folder: &Path, path: &Path) -> PathBuf {
    match path.is_relative() {
        true => path.to_path_buf(),
        false => relative(folder, path),
    }
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize()
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_path_buf())
}

/// Removes `.` and `name/..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidy.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

/// The way from `folder` to `path`, both absolute; `path` itself when they share nothing.
pub fn relative(folder: &Path, path: &Path) -> PathBuf {
    let folder = absolute(folder);
    let common = folder
        .components()
        .zip(path.components())
        .take_while(|(a, b)| a == b)
        .count();
    // Only the root in common: the run may well move without the rest.
    if common < 2 {
        return path.to_path_buf();
    }
    let up = folder
        .components()
        .skip(common)
        .map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(common)).collect();
    if relative.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        relative
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_relative_path_leads_back() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for (from, to) in [("a/b", "models/mini"), ("a", "a/x"), ("a", "a"), (".", "m")] {
            std::fs::create_dir_all(base.join(from)).unwrap();
            std::fs::create_dir_all(base.join(to)).unwrap();
            let to = base.join(to);
            let way = relative(&base.join(from), &to);
            assert!(way.is_relative());
            assert_eq!(resolve(&base.join(from), &way), to);
        }
    }

    #[test]
    fn absent_paths_are_tidied() {
        assert_eq!(tidy(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(tidy(Path::new("/a/b/../../c")), Path::new("/c"));
    }
}
