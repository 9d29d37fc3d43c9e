//! The runs of an experiment: each is trained once, several at a time, and resumed after an interruption;
//! stages that several begin with are trained once too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use core_train::RunOptions;
use core_train::config::StageConfig;
use core_train::progress::Progress;
use core_train::run::first_stages::{begin_from, has_state};
use core_train::run::folder::{METRICS, RunDir, Unfinished};

use crate::base::Base;
use crate::images::is_trained;
use crate::plan::{Cell, PlannedRun};
use crate::workers::Workers;

/// How often finished steps are counted.
const WATCH: Duration = Duration::from_millis(500);

/// A run to be trained.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// What is trained.
    pub run: &'a PlannedRun,
    /// The run whose last step it goes on from.
    pub earlier: Option<&'a PlannedRun>,
    /// Whether others go on from its own.
    keep_state: bool,
}

impl Task<'_> {
    /// The index of the first stage that it trains itself.
    pub fn first_stage(&self) -> usize {
        self.earlier
            .map_or(0, |earlier| earlier.config.stages.len())
    }

    /// The number of its steps before its first own.
    fn first_step(&self) -> usize {
        self.earlier.map_or(0, steps)
    }

    /// The steps that it takes itself.
    pub fn own_steps(&self) -> usize {
        steps(self.run) - self.first_step()
    }
}

/// The runs that are missing, each once, in rounds: a run goes on only from those of earlier rounds, or
/// from finished ones. Stages that several of them begin with are runs of their own.
pub fn rounds<'a>(cells: &'a [Cell], results: &Path) -> Vec<Vec<Task<'a>>> {
    let is_missing = |run: &&PlannedRun| !is_trained(run, results);
    let wanted = distinct(
        cells
            .iter()
            .filter_map(|cell| cell.run.as_ref())
            .filter(is_missing),
    );
    // A beginning is trained for its own sake or for two; one that is there is used in any case.
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &wanted {
        for run in std::iter::successors(Some(*run), |run| run.earlier.as_deref()) {
            *users.entry(&run.address).or_default() += 1;
        }
    }
    let is_useful = |run: &PlannedRun| match is_trained(run, results) {
        true => has_state(&run.folder(results)),
        false => {
            users
                .get(run.address.as_str())
                .is_some_and(|users| *users > 1)
                || wanted.iter().any(|other| other.address == run.address)
        }
    };
    let earlier = |run: &'a PlannedRun| {
        let mut chain = std::iter::successors(run.earlier.as_deref(), |run| run.earlier.as_deref());
        let was_begun = RunDir::scratch_of(&run.folder(results)).exists();
        chain.find(|run| !was_begun && is_useful(run))
    };
    let chain = |run: &'a PlannedRun| std::iter::successors(Some(run), |run| earlier(run));
    let runs = distinct(wanted.iter().flat_map(|run| chain(run)).filter(is_missing));
    let mut rounds: Vec<Vec<Task<'a>>> = Vec::new();
    for run in &runs {
        let goes_on = |other: &&PlannedRun| {
            let of_other = other.earlier.as_deref();
            let mut chain = std::iter::successors(of_other, |run| run.earlier.as_deref());
            chain.any(|earlier| earlier.address == run.address)
        };
        let planned = cells.iter().filter_map(|cell| cell.run.as_ref());
        let round = chain(run).skip(1).filter(|run| is_missing(run)).count();
        rounds.resize_with(rounds.len().max(round + 1), Vec::new);
        rounds[round].push(Task {
            run,
            earlier: earlier(run),
            keep_state: planned.into_iter().any(|other| goes_on(&other)),
        });
    }
    rounds
}

/// Every run once, by its address.
fn distinct<'a>(runs: impl Iterator<Item = &'a PlannedRun>) -> Vec<&'a PlannedRun> {
    let mut found: Vec<&PlannedRun> = Vec::new();
    for run in runs {
        if found.iter().all(|other| other.address != run.address) {
            found.push(run);
        }
    }
    found
}

/// What was trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trained {
    /// The number of runs, those included from which others go on.
    pub runs: usize,
    /// The number of optimiser steps.
    pub steps: usize,
}

/// Trains the runs that are missing.
///
/// # Errors
/// Errors of a run, prefixed with its concept. Finished work is kept; the next call resumes.
pub fn train(
    cells: &[Cell],
    base: &Base,
    results: &Path,
    workers: Workers,
    stop: &AtomicBool,
) -> Result<Trained> {
    let mut rounds = rounds(cells, results);
    let tasks: Vec<Task<'_>> = rounds.concat();
    if tasks.is_empty() {
        return Ok(Trained::default());
    }
    let folder = results.join("runs");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // Long runs first, so that no worker has to finish one alone at the end.
    for round in &mut rounds {
        round.sort_by_key(|task| std::cmp::Reverse(cost(task)));
    }
    let total: usize = tasks.iter().map(Task::own_steps).sum();
    let done = done(&tasks, results);
    let progress = Mutex::new((Progress::new("training steps", done, total as u64), done));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH);
                show(&progress, &tasks, results);
            }
        });
        let train = |task: &Task<'_>| {
            let run = task.run;
            if stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            let output = run.folder(results);
            if let Some(earlier) = task.earlier {
                let scratch = RunDir::scratch_of(&output);
                begin_from(&earlier.folder(results), &run.config, &scratch)?;
            }
            let options = RunOptions {
                output: &output,
                scratch: None,
                unfinished: Unfinished::Resume,
                replay: None,
                stop,
                keep_state: task.keep_state,
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
        };
        let outcome = rounds
            .iter()
            .try_for_each(|round| workers.for_each(round, train));
        finished.store(true, Ordering::Relaxed);
        show(&progress, &tasks, results);
        if let Ok(progress) = progress.lock() {
            progress.0.finish();
        }
        outcome.map(|()| Trained {
            runs: tasks.len(),
            steps: total - done as usize,
        })
    })
}

/// Advances the progress bar to the number of rows that the runs have written.
fn show(progress: &Mutex<(Progress, u64)>, tasks: &[Task<'_>], results: &Path) {
    let now = done(tasks, results);
    if let Ok(mut progress) = progress.lock() {
        while progress.1 < now {
            progress.1 += 1;
            progress.0.advance("");
        }
    }
}

/// The number of own steps that are finished.
fn done(tasks: &[Task<'_>], results: &Path) -> u64 {
    let rows = |task: &Task<'_>| {
        let folder = task.run.folder(results);
        if folder.exists() {
            return task.own_steps();
        }
        let metrics = RunDir::scratch_of(&folder).join(METRICS);
        let lines = std::fs::read(metrics)
            .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
        let rows = lines.saturating_sub(1 + task.first_step());
        rows.min(task.own_steps())
    };
    tasks.iter().map(|task| rows(task) as u64).sum()
}

fn steps(run: &PlannedRun) -> usize {
    run.config.stages.iter().map(|stage| stage.steps).sum()
}

/// A rough estimate of the duration of a run, to start long ones first: regularised steps cost three times
/// as much.
fn cost(task: &Task<'_>) -> usize {
    let of = |stage: &StageConfig| {
        stage.steps * stage.batch_size * if stage.regularizers.is_empty() { 1 } else { 3 }
    };
    task.run.config.stages[task.first_stage()..]
        .iter()
        .map(of)
        .sum()
}
