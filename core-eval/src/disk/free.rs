//! How much a file system has free.

use std::path::Path;

/// The bytes that may still be written into a folder, or into where it would be made; `None` where the system does
/// not tell.
#[cfg(unix)]
pub(super) fn bytes(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|folder| folder.exists())?;
    let system = rustix::fs::statvfs(there).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
pub(super) fn bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::bytes;

    #[test]
    fn a_folder_that_is_not_there_yet_has_what_its_file_system_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = bytes(folder.path()).expect("a number");
        let absent = bytes(&folder.path().join("a/b")).expect("a number");
        // Others may write in between.
        assert!(there > 0 && there.abs_diff(absent) < there / 10 + (1 << 30));
    }
}
