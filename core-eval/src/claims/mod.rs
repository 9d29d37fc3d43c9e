//! Claims: who works on what, where several processes share a results folder.
//!
//! A claim is a file in `claims/` that is created only when it is not there, which every file system does
//! for one process only. It names its owner ([`Owner`]) and is touched every 30 s. A claim whose process
//! is gone, or that was not touched for ten minutes, is dead and is taken over by one of the others. Ages
//! are differences between times of files on that file system; a claim that a process has watched for ten
//! minutes without a beat is dead too, whatever the clocks say.
//!
//! Claims only save time. Work that two processes do at once gives the same bits twice, and one rename
//! decides which of them stay.

mod heart;
mod neighbours;
mod owner;
mod takeover;

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use heart::{Heart, Touched};
pub use owner::Owner;

/// The folder of claims in a results folder.
const FOLDER: &str = "claims";

/// How the entry of a process begins.
const PROCESS: &str = "process-";

/// Who works on something, as far as the claim says; for those who only look.
pub fn claimed_by(results: &Path, name: &str) -> Option<Owner> {
    let content = std::fs::read(results.join(FOLDER).join(name)).ok()?;
    let owner: Owner = serde_json::from_slice(&content).ok()?;
    (!owner.is_gone()).then_some(owner)
}

/// The claims of a results folder, as one process sees them.
#[derive(Debug)]
pub struct Claims {
    folder: PathBuf,
    heart: Arc<Heart>,
    /// The entry of this process.
    entry: Owner,
    /// When a claim of others was first seen as it is.
    watched: Mutex<HashMap<PathBuf, (SystemTime, Instant)>>,
}

/// Something that this process alone works on, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    token: String,
    heart: Arc<Heart>,
}

impl Claims {
    /// Enters this process, which generates images into these folders, each with a digest of how.
    ///
    /// # Errors
    /// An unwritable folder; a process of another version, or one that generates other images into one of
    /// the folders.
    pub fn enter(results: &Path, images: BTreeMap<String, String>) -> Result<Self> {
        let folder = results.join(FOLDER);
        let mut entry = Owner::this();
        entry.images = images;
        let claims = Self {
            heart: Arc::new(Heart::start().context("starting the heart beat")?),
            watched: Mutex::default(),
            folder,
            entry,
        };
        let path = claims.entry_path();
        let touched = claims.create(&path, &claims.entry)?;
        let touched = touched.with_context(|| path.display().to_string())?;
        claims.heart.hold(&claims.entry.token, touched);
        // Each looks after it has entered, so of two processes at least one sees the other.
        claims.check_others()?;
        Ok(claims)
    }

    /// Claims something for this process; `None` when another process or thread works on it, or has just
    /// done so.
    ///
    /// # Errors
    /// An unwritable folder; a living process of another version.
    pub fn claim(&self, name: &str) -> Result<Option<Claim>> {
        let path = self.folder.join(name);
        let owner = Owner::this();
        if let Some(touched) = self.create(&path, &owner)? {
            return Ok(Some(self.hold(path, owner.token, touched)));
        }
        let Some(found) = self.read(&path)? else {
            return Ok(None);
        };
        if self.is_dead(&found) {
            return self.take_over(&found, owner);
        }
        if let Some(other) = &found.owner {
            self.check_version(other)?;
        }
        Ok(None)
    }

    /// The living process that works on something.
    ///
    /// # Errors
    /// An unreadable folder.
    pub fn holder(&self, name: &str) -> Result<Option<Owner>> {
        let found = self.read(&self.folder.join(name))?;
        let found = found.filter(|found| !self.is_dead(found));
        Ok(found.and_then(|found| found.owner))
    }

    /// Removes the claims of dead processes, when there is nothing left to do.
    ///
    /// # Errors
    /// An unreadable folder.
    pub fn sweep(&self) -> Result<()> {
        for path in self.files()? {
            if let Some(found) = self.read(&path)?
                && self.is_dead(&found)
            {
                // Another process may do the same.
                let _ = std::fs::remove_file(&found.path);
            }
        }
        Ok(())
    }

    fn hold(&self, path: PathBuf, token: String, touched: Touched) -> Claim {
        self.heart.hold(&token, touched);
        Claim {
            path,
            token,
            heart: Arc::clone(&self.heart),
        }
    }

    /// `None` when the file is there.
    fn create(&self, path: &Path, owner: &Owner) -> Result<Option<Touched>> {
        let unwritable = || {
            let folder = self.folder.parent().unwrap_or(&self.folder);
            let folder = folder.display();
            format!("{folder}: results cannot be written here; name another folder with --results")
        };
        let content = serde_json::to_vec(owner)?;
        for is_last in [false, true] {
            match Touched::create(path, content.clone()) {
                Ok(touched) => return Ok(Some(touched)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
                // The last process to leave removes the folder.
                Err(error) if error.kind() == ErrorKind::NotFound && !is_last => {
                    std::fs::create_dir_all(&self.folder).with_context(unwritable)?;
                }
                Err(error) => return Err(error).with_context(unwritable),
            }
        }
        Ok(None)
    }

    fn entry_path(&self) -> PathBuf {
        self.folder.join(format!("{PROCESS}{}", self.entry.token))
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let context = || self.folder.display().to_string();
        for entry in std::fs::read_dir(&self.folder).with_context(context)? {
            files.push(entry.with_context(context)?.path());
        }
        files.sort();
        Ok(files)
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.heart.release(&self.entry.token);
        let _ = std::fs::remove_file(self.entry_path());
        // Succeeds for the last process, when nothing else lies there.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl Claim {
    /// Unlike that of every other claim.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is still this process's, and not taken over by one that took it for dead.
    pub fn is_held(&self) -> bool {
        let content = std::fs::read(&self.path).unwrap_or_default();
        let owner: Option<Owner> = serde_json::from_slice(&content).ok();
        owner.is_some_and(|owner| owner.token == self.token)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.heart.release(&self.token);
        if self.is_held() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
