//! The runs of an experiment: each is trained once, several at a time, and resumed after an interruption.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use core_train::RunOptions;
use core_train::config::StageConfig;
use core_train::progress::Progress;
use core_train::run::folder::{METRICS, RunDir, Unfinished};

use crate::base::Base;
use crate::images::is_trained;
use crate::plan::{Cell, PlannedRun};
use crate::workers::Workers;

/// How often finished steps are counted.
const WATCH: Duration = Duration::from_millis(500);

/// The runs that are missing, each once, in the order of the cells.
pub fn runs_to_do<'a>(cells: &'a [Cell], results: &Path) -> Vec<&'a PlannedRun> {
    let mut runs: Vec<&PlannedRun> = Vec::new();
    for run in cells.iter().filter_map(|cell| cell.run.as_ref()) {
        let is_new = runs.iter().all(|other| other.address != run.address);
        if is_new && !is_trained(run, results) {
            runs.push(run);
        }
    }
    runs
}

/// Trains the runs that are missing, and returns how many.
///
/// # Errors
/// Errors of a run, prefixed with its concept. Finished work is kept; the next call resumes.
pub fn train(
    cells: &[Cell],
    base: &Base,
    results: &Path,
    workers: Workers,
    stop: &AtomicBool,
) -> Result<usize> {
    let mut runs = runs_to_do(cells, results);
    if runs.is_empty() {
        return Ok(0);
    }
    let folder = results.join("runs");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // Long runs first, so that no worker has to finish one alone at the end.
    runs.sort_by_key(|run| std::cmp::Reverse(cost(run)));
    let total: usize = runs.iter().map(|run| steps(run)).sum();
    let done = done(&runs, results);
    let progress = Mutex::new((Progress::new("training steps", done, total as u64), done));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH);
                show(&progress, &runs, results);
            }
        });
        let outcome = workers.for_each(&runs, |run| {
            if stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            let options = RunOptions {
                output: &run.folder(results),
                unfinished: Unfinished::Resume,
                replay: None,
                stop,
                keep_state: false,
                show_progress: false,
            };
            match core_train::run_on(base.get()?, &run.config, &options) {
                Ok(_) => Ok(()),
                Err(core_train::Error::Interrupted { .. }) => {
                    bail!("stopped; the same command continues from here")
                }
                Err(error) => {
                    Err(error).with_context(|| format!("concept `{}`", run.config.concept.name))
                }
            }
        });
        finished.store(true, Ordering::Relaxed);
        show(&progress, &runs, results);
        if let Ok(progress) = progress.lock() {
            progress.0.finish();
        }
        outcome.map(|()| runs.len())
    })
}

/// Advances the progress bar to the number of rows that the runs have written.
fn show(progress: &Mutex<(Progress, u64)>, runs: &[&PlannedRun], results: &Path) {
    let now = done(runs, results);
    if let Ok(mut progress) = progress.lock() {
        while progress.1 < now {
            progress.1 += 1;
            progress.0.advance("");
        }
    }
}

/// The number of finished optimiser steps.
fn done(runs: &[&PlannedRun], results: &Path) -> u64 {
    let rows = |run: &&PlannedRun| {
        let folder = run.folder(results);
        if folder.exists() {
            return steps(run);
        }
        let metrics = RunDir::scratch_of(&folder).join(METRICS);
        let lines = std::fs::read(metrics)
            .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
        lines.saturating_sub(1).min(steps(run))
    };
    runs.iter().map(|run| rows(run) as u64).sum()
}

fn steps(run: &PlannedRun) -> usize {
    run.config.stages.iter().map(|stage| stage.steps).sum()
}

/// A rough estimate of the duration of a run, to start long ones first: regularised steps cost three times
/// as much.
fn cost(run: &PlannedRun) -> usize {
    let of = |stage: &StageConfig| {
        stage.steps * stage.batch_size * if stage.regularizers.is_empty() { 1 } else { 3 }
    };
    run.config.stages.iter().map(of).sum()
}
