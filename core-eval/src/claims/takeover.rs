//! Claims of others: whether their process is dead, and who takes a dead one over.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use core_train::cost::duration;

use super::heart::{BEAT, Touched};
use super::{Claim, Claims, Owner};

/// A claim that was not touched for so long is dead.
pub(super) const DEAD: Duration = Duration::from_secs(600);

/// What ends the name of the file that decides who takes a claim over.
const TAKEOVER: &str = ".takeover-";

/// A claim of another process or thread.
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// `None` when it was killed before it could write who it is.
    pub(super) owner: Option<Owner>,
    pub(super) touched: SystemTime,
}

impl Found {
    /// What tells this claim from a later one of the same name.
    fn token(&self) -> String {
        match &self.owner {
            Some(owner) => owner.token.clone(),
            None => {
                let since = self.touched.duration_since(SystemTime::UNIX_EPOCH);
                format!("{}", since.unwrap_or_default().as_nanos())
            }
        }
    }
}

impl Claims {
    /// `None` when the file is gone.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Found>> {
        let content = std::fs::read(path);
        let touched = std::fs::metadata(path).and_then(|file| file.modified());
        match (content, touched) {
            (Ok(content), Ok(touched)) => Ok(Some(Found {
                path: path.to_path_buf(),
                owner: serde_json::from_slice(&content).ok(),
                touched,
            })),
            (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            (Err(error), _) | (_, Err(error)) => {
                Err(error).with_context(|| path.display().to_string())
            }
        }
    }

    pub(super) fn is_dead(&self, found: &Found) -> bool {
        if found.owner.as_ref().is_some_and(Owner::is_gone) {
            return true;
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = watched.insert(found.path.clone(), (found.touched, Instant::now()));
        let is_new = seen.is_none_or(|(touched, _)| touched != found.touched);
        if let Some((_, since)) = seen.filter(|_| !is_new) {
            watched.insert(found.path.clone(), (found.touched, since));
            if since.elapsed() > DEAD {
                return true;
            }
        }
        let Some(now) = self.heart.now(&self.entry.token) else {
            return false;
        };
        match now.duration_since(found.touched) {
            Ok(age) => age > DEAD,
            Err(ahead) => {
                if is_new && ahead.duration() > BEAT {
                    tracing::warn!(
                        "{}: was touched {} in the future, so a clock has jumped; its process is \
                         watched for ten minutes before it is taken for dead",
                        found.path.display(),
                        duration(ahead.duration().as_secs_f64())
                    );
                }
                false
            }
        }
    }

    /// Puts a claim of this process in the place of a dead one. A file named after the dead claim decides
    /// who may, so that nobody who still holds it for dead takes over from the one who was faster.
    pub(super) fn take_over(&self, dead: &Found, owner: Owner) -> Result<Option<Claim>> {
        let name = dead.path.file_name().unwrap_or_default().to_string_lossy();
        let decides = self
            .folder
            .join(format!("{name}{TAKEOVER}{}", dead.token()));
        if self.create(&decides, &owner)?.is_none() {
            if let Some(other) = self.read(&decides)?
                && self.is_dead(&other)
            {
                let _ = std::fs::remove_file(&decides);
            }
            return Ok(None);
        }
        let taken = self.replace(dead, &owner);
        let _ = std::fs::remove_file(&decides);
        let Some(touched) = taken? else {
            return Ok(None);
        };
        let of = dead.owner.as_ref().map(Owner::describe);
        let of = of.unwrap_or_else(|| "a process that was killed as it began".to_string());
        tracing::warn!("{name}: taken over from {of}, which is dead");
        Ok(Some(self.hold(dead.path.clone(), owner.token, touched)))
    }

    /// `None` when the claim is no longer the dead one.
    fn replace(&self, dead: &Found, owner: &Owner) -> Result<Option<Touched>> {
        let now = self.read(&dead.path)?;
        if now.is_none_or(|now| now.token() != dead.token()) {
            return Ok(None);
        }
        let scratch = self.folder.join(format!(".scratch-{}", owner.token));
        let Some(touched) = self.create(&scratch, owner)? else {
            return Ok(None);
        };
        std::fs::rename(&scratch, &dead.path).with_context(|| dead.path.display().to_string())?;
        Ok(Some(touched))
    }
}
