//! The runs of an experiment: each is trained once and resumed after an interruption;
//! stages that several begin with are trained once too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, anyhow};
use core_train::RunOptions;
use core_train::config::StageConfig;
use core_train::run::first_stages::{begin_from, has_state};
use core_train::run::folder::{METRICS, Unfinished};
use core_train::run::scratch;

use crate::base::Base;
use crate::claims::Claim;
use crate::plan::{Cell, PlannedRun};
use crate::trained::Trained;

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

    /// Whether it can begin: the run that it goes on from is there.
    pub(crate) fn is_ready(&self, results: &Path) -> bool {
        self.earlier
            .is_none_or(|earlier| earlier.folder(results).exists())
    }

    /// Whether it is complete.
    pub(crate) fn is_trained(&self, results: &Path) -> bool {
        self.run.folder(results).exists()
    }

    /// Whether it keeps the state of its last step, from which others go on.
    pub fn keeps_state(&self) -> bool {
        self.keep_state
    }

    /// The steps that it takes itself.
    pub fn own_steps(&self) -> usize {
        steps(self.run) - self.first_step()
    }
}

/// The runs that are missing, each once, in rounds: a run goes on only from those of earlier rounds, or
/// from finished ones. Stages that several of them begin with are runs of their own.
pub fn rounds<'a>(cells: &'a [Cell], trained: &Trained<'_>) -> Vec<Vec<Task<'a>>> {
    let results = trained.results();
    let is_missing = |run: &&PlannedRun| !trained.has(run);
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
    let is_useful = |run: &PlannedRun| match trained.has(run) {
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
        let was_begun = scratch::all(&run.folder(results)).is_ok_and(|all| !all.is_empty());
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
    // Long runs first, so that no worker has to finish one alone at the end.
    for round in &mut rounds {
        round.sort_by_key(|task| std::cmp::Reverse(cost(task)));
    }
    rounds
}

/// The steps of all runs that are missing, if each trained all of its stages itself.
pub(crate) fn steps_without_sharing(cells: &[Cell], trained: &Trained<'_>) -> usize {
    let runs = cells.iter().filter_map(|cell| cell.run.as_ref());
    let missing = distinct(runs.filter(|run| !trained.has(run)));
    missing.into_iter().map(steps).sum()
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

/// Why a run was not trained.
pub(crate) enum Failure {
    /// What fails for other runs too, or a request to stop.
    OfAll(anyhow::Error),
    /// What lies in the run.
    OfRun(anyhow::Error),
}

/// Trains a run that this process has claimed, from the furthest state that any process has left; the
/// number of steps that it took, or nothing when another process took the run over, which took this one
/// for dead.
pub(crate) fn train(
    task: Task<'_>,
    claim: &Claim,
    base: &Base,
    results: &Path,
    stop: &AtomicBool,
) -> Result<Option<usize>, Failure> {
    let run = task.run;
    let output = run.folder(results);
    let scratch = scratch::own(&output, claim.token());
    let of_concept = |error: core_train::Error| {
        anyhow::Error::new(error).context(format!("concept `{}`", run.config.concept.name))
    };
    let begin = || -> core_train::Result<Option<usize>> {
        scratch::adopt(&output, &scratch)?;
        if let Some(earlier) = task.earlier.filter(|_| !scratch.exists()) {
            let earlier = earlier.folder(results);
            if !has_state(&earlier) {
                return Ok(None);
            }
            begin_from(&earlier, &run.config, &scratch)?;
        }
        Ok(Some(rows(&scratch).saturating_sub(task.first_step())))
    };
    // Another process has removed the state of the earlier run; the next look finds what can be done without it.
    let Some(before) = begin().map_err(|error| Failure::OfAll(of_concept(error)))? else {
        return Ok(None);
    };
    let options = RunOptions {
        output: &output,
        scratch: Some(&scratch),
        unfinished: Unfinished::Resume,
        replay: None,
        stop,
        keep_state: task.keep_state,
        show_progress: false,
    };
    let base = base.get().map_err(Failure::OfAll)?;
    match core_train::run_on(base.clone(), &run.config, &options) {
        Ok(_) => Ok(Some(task.own_steps().saturating_sub(before))),
        Err(core_train::Error::Interrupted { .. }) => Err(Failure::OfAll(anyhow!(
            "stopped; the same command continues from here"
        ))),
        Err(_) if output.exists() || !claim.is_held() => Ok(None),
        Err(error @ core_train::Error::File(_)) => Err(Failure::OfAll(of_concept(error))),
        Err(error) => Err(Failure::OfRun(of_concept(error))),
    }
}

/// The number of own steps that are finished.
pub(crate) fn steps_done(tasks: &[Task<'_>], results: &Path) -> u64 {
    let of_task = |task: &Task<'_>| {
        let folder = task.run.folder(results);
        if folder.exists() {
            return task.own_steps();
        }
        let own = saved_steps(task.run, results).saturating_sub(task.first_step());
        own.min(task.own_steps())
    };
    tasks.iter().map(|task| of_task(task) as u64).sum()
}

/// The number of steps of a run that some scratch folder has logged.
pub(crate) fn saved_steps(run: &PlannedRun, results: &Path) -> usize {
    let scratches = scratch::all(&run.folder(results)).unwrap_or_default();
    let furthest = scratches.iter().map(|folder| rows(folder)).max();
    furthest.unwrap_or(0)
}

/// The number of steps that a scratch folder has logged.
fn rows(scratch: &Path) -> usize {
    let lines = std::fs::read(scratch.join(METRICS))
        .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
    lines.saturating_sub(1)
}

/// The number of all steps of a run.
pub(crate) fn steps(run: &PlannedRun) -> usize {
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
