//! Results of a network, kept in one file so that they are not computed again at the next start.
//!
//! A file names the digest of its network and ends with its own digest. A file that is damaged, of another
//! version or of another network is not used, and its results are computed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::files::{hex, read, write_atomically};
use sha2::{Digest, Sha256};

/// The first line of a file. Its number is increased when the same network would give other results for the
/// same image, so that older files are not used.
const HEADER: &[u8] = b"core-eval kept 1\n";

/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// The SHA-256 of everything that determines a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key([u8; DIGEST]);

impl Key {
    /// The key of a result that these parts determine.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// In hexadecimal.
    pub(crate) fn hex(self) -> String {
        hex(&self.0)
    }
}

/// The results of one network by key.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// The file; `None` for results that are kept in memory only.
    path: Option<PathBuf>,
    /// The digest of the network.
    network: String,
    entries: BTreeMap<Key, Vec<u8>>,
    is_saved: bool,
}

impl Store {
    /// Reads the results of the network with this digest; none where there is no valid file.
    pub(crate) fn open(path: Option<PathBuf>, network: &str) -> Self {
        let bytes = path.as_deref().and_then(|path| read(path).ok());
        let entries = bytes.and_then(|bytes| parse(&bytes, network));
        Self {
            path,
            network: network.to_string(),
            is_saved: entries.is_some(),
            entries: entries.unwrap_or_default(),
        }
    }

    /// The digest of the network.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    pub(crate) fn get(&self, key: Key) -> Option<&[u8]> {
        self.entries.get(&key).map(Vec::as_slice)
    }

    pub(crate) fn insert(&mut self, key: Key, bytes: Vec<u8>) {
        self.entries.insert(key, bytes);
        self.is_saved = false;
    }

    /// Writes the file, and creates its folder, when there are new results.
    ///
    /// # Errors
    /// An unwritable folder.
    pub(crate) fn save(&mut self) -> Result<()> {
        let Some(path) = self.path.as_deref().filter(|_| !self.is_saved) else {
            return Ok(());
        };
        if self.entries.is_empty() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        write_atomically(path, &self.to_bytes())?;
        self.is_saved = true;
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend(self.network.as_bytes());
        bytes.push(b'\n');
        for (key, value) in &self.entries {
            bytes.extend(key.0);
            bytes.extend((value.len() as u64).to_le_bytes());
            bytes.extend(value);
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }
}

/// The entries of a file; `None` for one that is damaged or of another version or network.
fn parse(bytes: &[u8], network: &str) -> Option<BTreeMap<Key, Vec<u8>>> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST>()?;
    if Sha256::digest(content)[..] != digest[..] {
        return None;
    }
    let rest = content.strip_prefix(HEADER)?;
    let rest = rest.strip_prefix(network.as_bytes())?;
    let mut rest = rest.strip_prefix(b"\n")?;
    let mut entries = BTreeMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<DIGEST>()?;
        let (length, after) = after.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (value, after) = after.split_at_checked(length)?;
        entries.insert(Key(*key), value.to_vec());
        rest = after;
    }
    Some(entries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A file with two results of the network `ab`.
    fn kept() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features/clip");
        let mut store = Store::open(Some(path.clone()), "ab");
        store.insert(Key::of(&["one"]), vec![1, 2, 3]);
        store.insert(Key::of(&["two"]), Vec::new());
        store.save().unwrap();
        (folder, path)
    }

    #[test]
    fn what_was_kept_is_there_at_the_next_start_of_the_same_network() {
        let (_folder, path) = kept();
        let store = Store::open(Some(path.clone()), "ab");
        assert_eq!(store.get(Key::of(&["one"])), Some(&[1, 2, 3][..]));
        assert_eq!(store.get(Key::of(&["two"])), Some(&[][..]));
        assert_eq!(store.get(Key::of(&["three"])), None);
        let other = Store::open(Some(path), "cd");
        assert_eq!(other.get(Key::of(&["one"])), None);
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_not_used() {
        let (_folder, path) = kept();
        let bytes = std::fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(parse(&damaged, "ab"), None, "byte {place} changed");
            assert_eq!(parse(&bytes[..place], "ab"), None, "cut at {place}");
        }
        assert_eq!(parse(&bytes, "ab").unwrap().len(), 2);
    }

    #[test]
    fn nothing_is_written_when_nothing_is_new() {
        let (_folder, path) = kept();
        let mut store = Store::open(Some(path.clone()), "ab");
        std::fs::remove_file(&path).unwrap();
        store.save().unwrap();
        assert!(!path.exists());
        store.insert(Key::of(&["three"]), vec![4]);
        store.save().unwrap();
        assert_eq!(
            parse(&std::fs::read(&path).unwrap(), "ab").unwrap().len(),
            3
        );
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
    }
}
