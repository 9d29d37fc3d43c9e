//! How far the work of an experiment is, for people who watch it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_train::progress::Progress;

use crate::experiment::{Experiment, Keep};
use crate::images::wanted;
use crate::plan::Cell;
use crate::trained::Trained;
use crate::training::{Task, rounds, steps_done};

/// How often finished steps are counted, which others may do too.
const WATCH: Duration = Duration::from_millis(500);

/// A bar for training steps, then one for images.
#[derive(Debug)]
pub(crate) struct WorkProgress<'a> {
    results: &'a Path,
    tasks: Vec<Task<'a>>,
    steps: Mutex<Option<(Progress, u64)>>,
    total_steps: u64,
    /// Images that were there before all steps were done, where images are drawn between runs.
    early_images: Option<AtomicU64>,
    /// The number of images of each cell.
    images: Vec<usize>,
    drawn: Mutex<Option<Progress>>,
    has_said_what_it_waits_for: AtomicBool,
}

impl<'a> WorkProgress<'a> {
    pub(crate) fn new(experiment: &Experiment, cells: &'a [Cell], results: &'a Path) -> Self {
        let tasks: Vec<Task<'a>> = rounds(cells, &Trained::all(results)).concat();
        let total = tasks.iter().map(|task| task.own_steps() as u64).sum();
        let done = steps_done(&tasks, results);
        let bar = (total > 0).then(|| (Progress::new("training steps", done, total), done));
        let are_interleaved = experiment.keep == Keep::Images;
        let images = cells.iter().map(|cell| wanted(experiment, cell).len());
        Self {
            results,
            tasks,
            steps: Mutex::new(bar),
            total_steps: total,
            early_images: are_interleaved.then(AtomicU64::default),
            images: images.collect(),
            drawn: Mutex::new(None),
            has_said_what_it_waits_for: AtomicBool::new(false),
        }
    }

    /// Counts steps while something is done.
    pub(crate) fn watch_while<T>(&self, work: impl FnOnce() -> T) -> T {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && lock(&self.steps).is_some() {
                    std::thread::park_timeout(WATCH);
                    self.show_steps();
                }
            });
            let outcome = work();
            is_over.store(true, Ordering::Relaxed);
            watch.thread().unpark();
            self.finish_steps();
            if let Some(progress) = &*lock(&self.drawn) {
                progress.finish();
            }
            outcome
        })
    }

    /// One image more is there.
    pub(crate) fn on_image(&self) {
        if let Some(early) = self.early_images.as_ref().filter(|_| self.is_training()) {
            early.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.finish_steps();
        let total: usize = self.images.iter().sum();
        let mut drawn = lock(&self.drawn);
        let progress = drawn.get_or_insert_with(|| {
            let early = self.early_images.as_ref();
            let early = early.map_or(0, |early| early.load(Ordering::Relaxed));
            Progress::new("images", early, total as u64)
        });
        progress.advance("");
    }

    /// Whether steps are left, as far as is known.
    fn is_training(&self) -> bool {
        let steps = lock(&self.steps);
        steps
            .as_ref()
            .is_some_and(|(_, shown)| *shown < self.total_steps)
    }

    /// All images of a cell are there, by another process or from before.
    pub(crate) fn on_images_of_others(&self, cell: usize) {
        (0..self.images[cell]).for_each(|_| self.on_image());
    }

    /// Says once that there is nothing to do but to wait.
    pub(crate) fn waits(&self, what: &str) {
        if !self
            .has_said_what_it_waits_for
            .swap(true, Ordering::Relaxed)
        {
            tracing::info!("waiting for {what}");
        }
    }

    fn show_steps(&self) {
        let now = steps_done(&self.tasks, self.results);
        if let Some((progress, shown)) = &mut *lock(&self.steps) {
            while *shown < now {
                *shown += 1;
                progress.advance("");
            }
        }
    }

    fn finish_steps(&self) {
        if lock(&self.steps).is_none() {
            return;
        }
        self.show_steps();
        if let Some((progress, _)) = lock(&self.steps).take() {
            progress.finish();
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
