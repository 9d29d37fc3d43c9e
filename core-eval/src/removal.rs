//! `keep = "images"`: the weights of a run are removed when nothing needs them any more, and set aside to be trained
//! again when more images are wanted.
//!
//! Whoever removes or sets aside holds the claim on the run, so that it is done by one process at a time. A process that
//! still draws has images that are not there, which keeps their run. Should another one remove weights all the same,
//! because it knows only a part of the experiment, the run is trained again: that takes time and changes no result.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use core_model::files::remove_scratch;
use core_train::Run;
use core_train::run::OF_UNET;
use core_train::run::folder::RunDir;
use core_train::run::removed::{Removed, remove, remove_without_note};
use core_train::run::scratch;
use core_train::run::state::STATE;

use crate::claims::Claims;
use crate::images::GenerationJob;
use crate::plan::PlannedRun;
use crate::trained::wanted_again;

/// Why weights are not there, for `removed.json`.
const REASON: &str = "all images of the run were drawn and the experiment says `keep = \"images\"`";

/// What may be removed of the runs of an experiment.
#[derive(Debug)]
pub(crate) struct Removal<'a> {
    /// The images of all cells, whatever part of them this process works on.
    pub(crate) jobs: Vec<GenerationJob<'a>>,
    pub(crate) results: &'a Path,
    pub(crate) claims: &'a Claims,
}

impl<'a> Removal<'a> {
    /// Removes what nothing needs any more of a run and of those from which it went on.
    ///
    /// # Errors
    /// What cannot be read, written or removed.
    pub(crate) fn after(&self, run: &PlannedRun) -> Result<()> {
        if !self.claims.know_images_of_others()? {
            return Ok(());
        }
        for run in chain(run) {
            self.of_run(run)?;
        }
        Ok(())
    }

    /// The same for all runs.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub(crate) fn after_all(&self) -> Result<()> {
        for run in self.runs() {
            self.after(run)?;
        }
        Ok(())
    }

    /// Removes also what prompts need, when that is known of all of them.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub(crate) fn after_prompts(&self) -> Result<()> {
        if !self.claims.know_images_of_others()? {
            return Ok(());
        }
        for run in self.runs() {
            let folder = run.folder(self.results);
            if folder.exists() && self.is_drawn(run)? {
                let claim = self.claims.claim(&run.address)?;
                if claim.is_some() {
                    remove_scratch(&folder, Duration::ZERO)?;
                }
                remove(&folder, &Run::open(&folder)?.weights(), REASON)?;
            }
        }
        Ok(())
    }

    /// Sets aside the runs that have to draw images and lost their weights, so that they are trained again.
    ///
    /// # Errors
    /// A folder that cannot be read or removed.
    pub(crate) fn set_aside(&self) -> Result<()> {
        for job in &self.jobs {
            let Some(run) = wanted_again(job)? else {
                continue;
            };
            // Whoever has the claim does the same, or trains it already.
            let Some(claim) = self.claims.claim(&run.address)? else {
                continue;
            };
            let folder = run.folder(self.results);
            if Removed::read(&folder)?.is_none() {
                continue;
            }
            tracing::warn!(
                "run {}: images of {} are missing, and its weights were removed when all images that were wanted \
                 then were drawn (`keep = \"images\"`); it is trained again",
                run.address,
                run.config.concept.name
            );
            // A folder of this name is one that whoever trains the run removes.
            let aside = RunDir::scratch_of(&scratch::own(&folder, claim.token()));
            let failed = || folder.display().to_string();
            std::fs::rename(&folder, &aside).with_context(failed)?;
            std::fs::remove_dir_all(&aside).with_context(failed)?;
        }
        Ok(())
    }

    fn of_run(&self, run: &PlannedRun) -> Result<()> {
        let folder = run.folder(self.results);
        if !folder.exists() {
            return Ok(());
        }
        let Some(_claim) = self.claims.claim(&run.address)? else {
            return Ok(());
        };
        // Only the holder of the claim writes into a finished run.
        remove_scratch(&folder, Duration::ZERO)?;
        if !self.is_gone_on_from(run) {
            remove_without_note(&folder, STATE)?;
        }
        if !self.is_drawn(run)? {
            return Ok(());
        }
        let mut weights = Run::open(&folder)?.weights();
        weights.retain(|name| OF_UNET.contains(name));
        if remove(&folder, &weights, REASON)? > 0 {
            tracing::info!(
                "run {}: all its images are drawn, its weights are removed",
                run.address
            );
        }
        Ok(())
    }

    /// Whether all images of a run are there.
    fn is_drawn(&self, run: &PlannedRun) -> Result<bool> {
        for job in &self.jobs {
            let own = job.cell.run.as_ref();
            if own.is_some_and(|own| own.address == run.address) && !job.is_done()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a run that goes on from this one is missing.
    fn is_gone_on_from(&self, run: &PlannedRun) -> bool {
        let runs = self.jobs.iter().filter_map(|job| job.cell.run.as_ref());
        let mut missing = runs
            .flat_map(chain)
            .filter(|other| !other.folder(self.results).exists());
        missing.any(|other| {
            chain(other)
                .skip(1)
                .any(|earlier| earlier.address == run.address)
        })
    }

    /// Every run of the experiment once.
    fn runs(&self) -> Vec<&'a PlannedRun> {
        let mut known = BTreeSet::new();
        let runs = self.jobs.iter().filter_map(|job| job.cell.run.as_ref());
        runs.filter(|run| known.insert(&run.address)).collect()
    }
}

/// A run, and those from which it can go on.
fn chain(run: &PlannedRun) -> impl Iterator<Item = &PlannedRun> {
    std::iter::successors(Some(run), |run| run.earlier.as_deref())
}
