//! Which runs are there, and which have to be trained again since their weights were removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use core_model::folder::ModelFolder;
use core_train::run::removed::Removed;

use crate::base::Base;
use crate::experiment::Experiment;
use crate::images::{GenerationJob, jobs};
use crate::plan::{Cell, PlannedRun};

/// The runs of a results folder that can be used as they are.
#[derive(Debug, Clone)]
pub struct Trained<'a> {
    results: &'a Path,
    /// The addresses of those whose weights were removed although images of them are missing.
    again: BTreeSet<String>,
}

impl<'a> Trained<'a> {
    /// Every finished run.
    pub fn all(results: &'a Path) -> Self {
        Self {
            results,
            again: BTreeSet::new(),
        }
    }

    /// Every finished run that can draw the images of some cells which are missing.
    ///
    /// # Errors
    /// An unreadable model or folder.
    pub fn for_images(
        experiment: &Experiment,
        model: &ModelFolder,
        cells: &[Cell],
        results: &'a Path,
    ) -> Result<Self> {
        let base = Base::new(model.clone(), &experiment.device);
        let stop = AtomicBool::new(false);
        let mut again = BTreeSet::new();
        for job in jobs(experiment, cells, results, &base, &stop) {
            if let Some(run) = wanted_again(&job)? {
                again.insert(run.address.clone());
            }
        }
        Ok(Self { results, again })
    }

    /// The results folder.
    pub fn results(&self) -> &'a Path {
        self.results
    }

    /// Whether a run is there.
    pub fn has(&self, run: &PlannedRun) -> bool {
        run.folder(self.results).exists() && !self.is_wanted_again(run)
    }

    /// Whether a run was there, and has to be trained again.
    pub fn is_wanted_again(&self, run: &PlannedRun) -> bool {
        self.again.contains(&run.address)
    }
}

/// The run of a cell, if its weights were removed and images of it are missing.
///
/// # Errors
/// An unreadable model or folder.
pub(crate) fn wanted_again<'a>(job: &GenerationJob<'a>) -> Result<Option<&'a PlannedRun>> {
    let Some(run) = &job.cell.run else {
        return Ok(None);
    };
    let was_removed = Removed::read(&run.folder(job.results))?.is_some();
    Ok((was_removed && !job.is_done()?).then_some(run))
}
