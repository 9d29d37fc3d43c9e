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
mod owner;

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use core_train::cost::duration;

use heart::{BEAT, Heart, Touched};
pub use owner::Owner;

/// A claim that was not touched for so long is dead.
const DEAD: Duration = Duration::from_secs(600);

/// The folder of claims in a results folder.
const FOLDER: &str = "claims";

/// How the entry of a process begins.
const PROCESS: &str = "process-";

/// What ends the name of the file that decides who takes a claim over.
const TAKEOVER: &str = ".takeover-";

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

/// A claim of another process or thread.
struct Found {
    path: PathBuf,
    /// `None` when it was killed before it could write who it is.
    owner: Option<Owner>,
    touched: SystemTime,
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

    /// `None` when the file is gone.
    fn read(&self, path: &Path) -> Result<Option<Found>> {
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

    fn is_dead(&self, found: &Found) -> bool {
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
    fn take_over(&self, dead: &Found, owner: Owner) -> Result<Option<Claim>> {
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

    /// Refuses to work beside a process that would give other results.
    fn check_others(&self) -> Result<()> {
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(PROCESS) || path == self.entry_path() {
                continue;
            }
            let Some(found) = self.read(&path)? else {
                continue;
            };
            if self.is_dead(&found) {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            if let Some(other) = &found.owner {
                self.check_version(other)?;
                self.check_images(other)?;
            }
        }
        Ok(())
    }

    fn check_version(&self, other: &Owner) -> Result<()> {
        if other.program == self.entry.program {
            return Ok(());
        }
        bail!(
            "{}: {} works here with {}, and this is {}; use one version, or name another folder \
             with --results",
            self.folder.parent().unwrap_or(&self.folder).display(),
            other.describe(),
            other.program,
            self.entry.program
        )
    }

    fn check_images(&self, other: &Owner) -> Result<()> {
        for (folder, how) in &self.entry.images {
            if other.images.get(folder).is_some_and(|theirs| theirs != how) {
                bail!(
                    "{folder}: {} generates other images here, from another version of the \
                     experiment's file; wait for it, or name another folder with --results",
                    other.describe()
                );
            }
        }
        Ok(())
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
mod tests {
    use std::fs::File;
    use std::sync::Barrier;

    use super::*;

    fn enter(results: &Path) -> Claims {
        Claims::enter(results, BTreeMap::new()).unwrap()
    }

    /// A claim of a process on another machine, last touched so long ago.
    fn foreign(results: &Path, name: &str, age: Duration, edit: impl Fn(&mut Owner)) -> PathBuf {
        let mut owner = Owner::this();
        owner.host = "elsewhere".to_string();
        owner.token = format!("elsewhere-1-{name}");
        edit(&mut owner);
        let mut value = serde_json::to_value(&owner).unwrap();
        value["process"] = serde_json::Value::Null;
        let path = results.join(FOLDER).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, value.to_string()).unwrap();
        touch(&path, SystemTime::now() - age);
        path
    }

    fn touch(path: &Path, time: SystemTime) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    #[test]
    fn something_is_claimed_once_until_it_is_released() {
        let results = tempfile::tempdir().unwrap();
        let [one, other] = [enter(results.path()), enter(results.path())];
        let claim = one.claim("a").unwrap().unwrap();
        assert!(claim.is_held());
        assert!(other.claim("a").unwrap().is_none() && one.claim("a").unwrap().is_none());
        assert_eq!(other.holder("a").unwrap().unwrap().pid, std::process::id());
        drop(claim);
        assert!(other.claim("a").unwrap().is_some());
        drop((one, other));
        assert!(!results.path().join(FOLDER).exists());
    }

    #[test]
    fn a_claim_with_an_old_beat_is_taken_over_exactly_once() {
        let results = tempfile::tempdir().unwrap();
        let old = DEAD + Duration::from_secs(5);
        for round in 0..20 {
            let name = format!("run{round}");
            foreign(results.path(), &name, old, |_| {});
            let start = Barrier::new(8);
            let taken: Vec<Option<Claim>> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            let claims = enter(results.path());
                            start.wait();
                            let claim = claims.claim(&name).unwrap();
                            start.wait();
                            claim
                        })
                    })
                    .collect();
                racers
                    .into_iter()
                    .map(|racer| racer.join().unwrap())
                    .collect()
            });
            let taken: Vec<Claim> = taken.into_iter().flatten().collect();
            assert_eq!(taken.len(), 1, "round {round}");
            assert!(taken[0].is_held());
        }
    }

    #[test]
    fn a_claim_that_beats_elsewhere_is_left_alone() {
        let results = tempfile::tempdir().unwrap();
        foreign(results.path(), "a", DEAD / 2, |_| {});
        let claims = enter(results.path());
        assert!(claims.claim("a").unwrap().is_none());
        claims.sweep().unwrap();
        assert_eq!(claims.holder("a").unwrap().unwrap().host, "elsewhere");
    }

    #[test]
    fn a_claim_from_the_future_is_watched_and_neither_lost_nor_taken() {
        let results = tempfile::tempdir().unwrap();
        let path = foreign(results.path(), "a", Duration::ZERO, |_| {});
        touch(&path, SystemTime::now() + DEAD * 6);
        let claims = enter(results.path());
        assert!(claims.claim("a").unwrap().is_none());
        // As if it had been watched for longer than ten minutes.
        let long_ago = Instant::now().checked_sub(DEAD * 2).unwrap();
        for seen in claims.watched.lock().unwrap().values_mut() {
            seen.1 = long_ago;
        }
        assert!(claims.claim("a").unwrap().is_some());
    }

    #[test]
    fn a_claim_of_a_process_killed_as_it_began_is_taken_over_when_it_is_old() {
        let results = tempfile::tempdir().unwrap();
        let claims = enter(results.path());
        let path = results.path().join(FOLDER).join("a");
        std::fs::write(&path, "").unwrap();
        assert!(claims.claim("a").unwrap().is_none());
        touch(&path, SystemTime::now() - DEAD * 2);
        assert!(claims.claim("a").unwrap().is_some());
    }

    #[test]
    fn who_was_taken_for_dead_does_not_remove_the_claim_of_the_other() {
        let results = tempfile::tempdir().unwrap();
        let [one, other] = [enter(results.path()), enter(results.path())];
        let lost = one.claim("a").unwrap().unwrap();
        touch(
            &results.path().join(FOLDER).join("a"),
            SystemTime::now() - DEAD * 2,
        );
        let taken = other.claim("a").unwrap().unwrap();
        assert!(!lost.is_held() && taken.is_held());
        drop(lost);
        assert!(taken.is_held());
    }

    #[test]
    fn another_version_and_other_images_are_refused_while_they_live() {
        let results = tempfile::tempdir().unwrap();
        let images = |how: &str| BTreeMap::from([("images/a".to_string(), how.to_string())]);
        let age = Duration::ZERO;
        let path = foreign(results.path(), "process-x", age, |owner| {
            owner.program = "core-eval 0.0.9".to_string();
        });
        let error = Claims::enter(results.path(), images("1")).unwrap_err();
        assert!(error.to_string().contains("core-eval 0.0.9"), "{error}");
        touch(&path, SystemTime::now() - DEAD * 2);
        Claims::enter(results.path(), images("1")).unwrap();

        foreign(results.path(), "process-y", age, |owner| {
            owner.images = images("2")
        });
        let error = Claims::enter(results.path(), images("1")).unwrap_err();
        assert!(
            error.to_string().contains("generates other images"),
            "{error}"
        );
        Claims::enter(results.path(), images("2")).unwrap();
    }
}
