//! The work of an experiment, shared between threads, processes and machines: runs are trained and images
//! generated, each by whoever claims it first, until nothing is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Error, Result, bail};

use crate::base::Base;
use crate::claims::{Claim, Claims};
use crate::experiment::{Experiment, Keep};
use crate::images::{GenerationJob, claim_name, jobs};
use crate::plan::{Cell, PlannedRun};
use crate::removal::Removal;
use crate::trained::{Trained, wanted_again};
use crate::training::{self, Failure, Task};
use crate::work_progress::WorkProgress;
use crate::workers::Workers;

/// The longest time between two looks at what other processes have done.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What an experiment needs before it can be scored.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) experiment: &'a Experiment,
    /// The cells that this process works on.
    pub(crate) cells: &'a [Cell],
    /// Those of the whole experiment.
    pub(crate) all_cells: &'a [Cell],
    pub(crate) results: &'a Path,
    pub(crate) base: &'a Base,
    pub(crate) claims: &'a Claims,
    pub(crate) workers: Workers,
    /// Becomes true when work is to stop.
    pub(crate) stop: &'a AtomicBool,
}

/// What this process has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// The number of runs, those included from which others go on.
    pub runs: usize,
    /// The number of optimiser steps.
    pub steps: usize,
    /// The number of images.
    pub images: usize,
}

/// What the threads of this process know together.
#[derive(Default)]
struct State {
    done: Done,
    /// Whether the images of each cell were seen to be complete.
    drawn: Vec<bool>,
    /// Runs that this process has failed to train, by address.
    failed: BTreeMap<String, Error>,
}

impl State {
    /// Whether a run, or one that it goes on from, has failed.
    fn has_failed(&self, run: &PlannedRun) -> bool {
        std::iter::successors(Some(run), |run| run.earlier.as_deref())
            .any(|run| self.failed.contains_key(&run.address))
    }
}

/// What a thread does next.
enum Next<'a> {
    Train(Task<'a>, Claim),
    Draw(usize, Claim),
    /// Others work on all that is left.
    Wait(String),
    Nothing,
}

impl Work<'_> {
    /// Works until nothing is left, of others' work neither.
    ///
    /// # Errors
    /// A full disk, an unreadable model, a request to stop. A run that fails by itself is reported when all
    /// others are done.
    pub(crate) fn run(&self) -> Result<Done> {
        std::fs::create_dir_all(self.results.join("runs"))?;
        self.removal().set_aside()?;
        let state = Mutex::new(State {
            drawn: vec![false; self.cells.len()],
            ..State::default()
        });
        let progress = WorkProgress::new(self.experiment, self.cells, self.results);
        progress.watch_while(|| self.workers.repeat(|| self.next_piece(&state, &progress)))?;
        if self.experiment.keep == Keep::Images {
            self.removal().after_all()?;
        }
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failed.into_values().next() {
            Some(error) => Err(error),
            None => Ok(state.done),
        }
    }

    /// Does the next piece of work, or waits a moment; whether there may be more.
    fn next_piece(&self, state: &Mutex<State>, progress: &WorkProgress<'_>) -> Result<bool> {
        let mut pause = LONGEST_WAIT / 32;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            let next = self.next(&mut lock(state), progress)?;
            match next {
                Next::Nothing => return Ok(false),
                Next::Train(task, claim) => return self.train(task, claim, state).map(|()| true),
                Next::Draw(cell, claim) => {
                    return self.draw(cell, claim, state, progress).map(|()| true);
                }
                Next::Wait(what) => {
                    progress.waits(&what);
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    fn draw(
        &self,
        cell: usize,
        claim: Claim,
        state: &Mutex<State>,
        progress: &WorkProgress<'_>,
    ) -> Result<()> {
        let job = self.job(cell);
        let drawn = job.run(&|| progress.on_image());
        drop(claim);
        let images = match drawn {
            Ok(images) => images,
            // A process that knows only a part of the experiment has removed the weights meanwhile.
            Err(_) if wanted_again(&job)?.is_some() => {
                std::thread::sleep(LONGEST_WAIT / 32);
                return self.removal().set_aside();
            }
            Err(error) => return Err(error),
        };
        {
            let mut state = lock(state);
            state.done.images += images;
            state.drawn[cell] = true;
        }
        match &self.cells[cell].run {
            Some(run) => self.has_used(run),
            None => Ok(()),
        }
    }

    /// Removes what nothing needs any more of a run and of those from which it went on, if only images are kept.
    fn has_used(&self, run: &PlannedRun) -> Result<()> {
        match self.experiment.keep {
            Keep::Images => self.removal().after(run),
            Keep::Everything => Ok(()),
        }
    }

    fn removal(&self) -> Removal<'_> {
        let Self {
            experiment,
            all_cells,
            results,
            base,
            ..
        } = *self;
        Removal {
            jobs: jobs(experiment, all_cells, results, base, self.stop),
            results,
            claims: self.claims,
        }
    }

    fn train(&self, task: Task<'_>, claim: Claim, state: &Mutex<State>) -> Result<()> {
        match training::train(task, &claim, self.base, self.results, self.stop) {
            Ok(Some(steps)) => {
                {
                    let mut state = lock(state);
                    state.done.runs += 1;
                    state.done.steps += steps;
                }
                drop(claim);
                self.has_used(task.run)
            }
            Ok(None) => Ok(()),
            Err(Failure::OfAll(error)) => Err(error),
            Err(Failure::OfRun(error)) => {
                tracing::error!("{error:#}; the other runs go on");
                let failed = &mut lock(state).failed;
                failed.insert(task.run.address.clone(), error);
                Ok(())
            }
        }
    }

    /// Chooses under the lock, so that threads of one process do not compete for claims.
    fn next(&self, state: &mut State, progress: &WorkProgress<'_>) -> Result<Next<'_>> {
        let mut waits_for = None;
        // Where weights are removed, images come first, so that few weights lie there at once.
        let runs_come_first = self.experiment.keep == Keep::Everything;
        for is_of_runs in [runs_come_first, !runs_come_first] {
            let next = match is_of_runs {
                true => self.next_run(state, &mut waits_for)?,
                false => self.next_images(state, progress, &mut waits_for)?,
            };
            if let Some(next) = next {
                return Ok(next);
            }
        }
        let Some(name) = waits_for else {
            return Ok(Next::Nothing);
        };
        let holder = self.claims.holder(name.trim_start_matches("run "))?;
        Ok(Next::Wait(match holder {
            Some(holder) => format!("{name}, which {} works on", holder.describe()),
            None => name,
        }))
    }

    fn next_run(&self, state: &State, waits_for: &mut Option<String>) -> Result<Option<Next<'_>>> {
        let rounds = training::rounds(self.cells, &Trained::all(self.results));
        for task in rounds.iter().flatten() {
            let address = &task.run.address;
            if state.has_failed(task.run) || !task.is_ready(self.results) {
                continue;
            }
            match self.claims.claim(address)? {
                Some(claim) if task.is_trained(self.results) => drop(claim),
                Some(claim) => return Ok(Some(Next::Train(*task, claim))),
                None => *waits_for = Some(format!("run {address}")),
            }
        }
        Ok(None)
    }

    fn next_images(
        &self,
        state: &mut State,
        progress: &WorkProgress<'_>,
        waits_for: &mut Option<String>,
    ) -> Result<Option<Next<'_>>> {
        for (index, cell) in self.cells.iter().enumerate() {
            if state.drawn[index] {
                continue;
            }
            if let Some(run) = &cell.run
                && !run.folder(self.results).exists()
            {
                // It is trained by another process, or was, since the runs were looked at.
                if !state.has_failed(run) {
                    waits_for.get_or_insert_with(|| format!("run {}", run.address));
                }
                continue;
            }
            let job = self.job(index);
            if job.is_done()? {
                state.drawn[index] = true;
                progress.on_images_of_others(index);
                continue;
            }
            let name = claim_name(self.experiment, cell);
            match self.claims.claim(&name)? {
                Some(claim) => return Ok(Some(Next::Draw(index, claim))),
                None => *waits_for = Some(name),
            }
        }
        Ok(None)
    }

    fn job(&self, cell: usize) -> GenerationJob<'_> {
        GenerationJob {
            experiment: self.experiment,
            cell: &self.cells[cell],
            results: self.results,
            base: self.base,
            stop: self.stop,
        }
    }
}

/// What is known is whole after every change, so that a panic elsewhere does not matter.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
