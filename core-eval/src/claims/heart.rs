//! The heart beat: every claim that a process holds is touched again and again.
//!
//! A claim is touched by writing its own bytes over it, so that the time of the file comes from the clock
//! of the file system, on a network file system that of the server. The file is kept open: if another
//! process has put its own claim in its place, nothing of that is overwritten.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// The time between two beats.
pub(super) const BEAT: Duration = Duration::from_secs(30);

/// An open file and its content.
#[derive(Debug)]
pub(super) struct Touched {
    file: File,
    content: Vec<u8>,
}

impl Touched {
    /// Creates a file that is not there.
    ///
    /// # Errors
    /// One that is there, an unwritable folder; then there is no new file.
    pub(super) fn create(path: &Path, content: Vec<u8>) -> Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        match file.write_all(&content).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(Self { file, content }),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Touches the file; what the clock of the file system says.
    pub(super) fn touch(&mut self) -> Result<SystemTime> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.content)?;
        self.file.sync_all()?;
        self.file.metadata()?.modified()
    }
}

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// By token.
    files: BTreeMap<String, Touched>,
    is_over: bool,
    was_warned: bool,
}

impl Held {
    fn beat(&mut self) {
        for touched in self.files.values_mut() {
            match touched.touch() {
                Ok(_) => {}
                Err(_) if self.was_warned => {}
                Err(error) => {
                    tracing::warn!(
                        "the heart beat of this process cannot be written ({error}); after ten \
                         minutes others take it for dead and repeat its work"
                    );
                    self.was_warned = true;
                }
            }
        }
    }
}

/// The claims that this process holds, and the thread that touches them.
#[derive(Debug)]
pub(super) struct Heart {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Starts to beat.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let beating = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("heart beat".to_string());
        let thread = thread.spawn(move || {
            let mut held = lock(&beating.held);
            while !held.is_over {
                let waited = beating.ended.wait_timeout(held, BEAT);
                held = waited.unwrap_or_else(PoisonError::into_inner).0;
                if !held.is_over {
                    held.beat();
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Touches a file from now on.
    pub(super) fn hold(&self, token: &str, touched: Touched) {
        lock(&self.shared.held)
            .files
            .insert(token.to_string(), touched);
    }

    /// No longer touches it.
    pub(super) fn release(&self, token: &str) {
        lock(&self.shared.held).files.remove(token);
    }

    /// What the clock of the file system says, by touching one file.
    pub(super) fn now(&self, token: &str) -> Option<SystemTime> {
        let mut held = lock(&self.shared.held);
        held.files.get_mut(token)?.touch().ok()
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        lock(&self.shared.held).is_over = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            // It panics for no reason, and if it did the work is done all the same.
            let _ = thread.join();
        }
    }
}

/// What is held is whole after every call, so that a panic elsewhere does not matter.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
