//! An experiment from its file to its tables: train, generate, score, report. Finished work is reused, so
//! the command can be repeated at any time.

mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use core_model::device::parse_device;
use core_model::files::hex;
use core_model::folder::ModelFolder;
use sha2::{Digest, Sha256};

use crate::base::Base;
use crate::claims::Claims;
use crate::disk::DiskPlan;
use crate::effects::EffectRow;
use crate::experiment::Experiment;
use crate::gallery::{Gallery, Needs};
use crate::images::{GenerationJob, jobs};
use crate::missing;
use crate::part::Part;
use crate::photo_files::{learned_files, photo_files};
use crate::plan::{Cell, plan};
use crate::protocol::Protocol;
use crate::reference::Deviation;
use crate::removal::Removal;
use crate::tokens::TokenProbe;
use crate::trained::Trained;
use crate::usage::Usage;
use crate::work::{Done, Work};
use crate::workers::Workers;

/// The folder in which features, masks and token cosines are kept for the next start.
const KEPT: &str = "features";

/// The results of an experiment.
#[derive(Debug)]
pub struct Outcome {
    /// The table of every protocol by the protocol's name, in Markdown.
    pub tables: Vec<(&'static str, String)>,
    /// The claims with their intervals; none where the experiment makes none, or has only one concept
    /// and seed.
    pub effects: Vec<EffectRow>,
    /// The files that were written, relative to the folder of the results.
    pub files: Vec<String>,
    /// Which networks ran, and how often.
    pub usage: Usage,
    /// How far the scores are from the committed reference, where there is one.
    pub deviation: Option<Deviation>,
}

/// Runs an experiment in the folder `results`. Results that are there and still valid are reused. Work
/// stops soon after `stop` becomes true.
///
/// ```no_run
/// use std::path::Path;
/// use core_eval::experiment::Experiment;
///
/// let experiment = Experiment::load(Path::new("experiments/ablation.toml"))?;
/// let results = Path::new("results").join(&experiment.name);
/// let outcome = core_eval::harness::run(experiment, &results, &Default::default())?;
/// println!("{}", outcome.tables[0].1);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// Everything that is wrong with the experiment and what it refers to is reported before any work. Later
/// failures keep finished work, and the next call continues from there.
pub fn run(experiment: Experiment, results: &Path, stop: &AtomicBool) -> Result<Outcome> {
    let (experiment, model) = located(experiment)?;
    let cells = cells_that_fit(&experiment, &model, results)?;
    Harness::new(&experiment, model, cells, results, stop)?.run()
}

/// Trains and generates a part, beside any number of other processes, until nothing of it is left, and
/// leaves scores and tables to [`run`].
///
/// # Errors
/// As [`run`]; a part that the experiment does not have.
pub fn work(
    experiment: Experiment,
    results: &Path,
    part: &Part,
    stop: &AtomicBool,
) -> Result<Done> {
    let (experiment, model) = located(experiment)?;
    let cells = cells_that_fit(&experiment, &model, results)?;
    let mut harness = Harness::new(&experiment, model, cells, results, stop)?;
    harness.part = Some(part.of(harness.cells.clone())?);
    harness.work()
}

/// Scores what is there and writes the tables, without training and generating.
///
/// # Errors
/// As [`run`]; what is missing and does not appear within 90 s, which is how long a network file system
/// may hide what another machine has written.
pub fn score(experiment: Experiment, results: &Path, stop: &AtomicBool) -> Result<Outcome> {
    let (experiment, model) = located(experiment)?;
    let cells = plan(&experiment, &model)?;
    let harness = Harness::new(&experiment, model, cells, results, stop)?;
    missing::wait(&harness.jobs(), stop)?;
    harness.tables(Done::default())
}

fn located(experiment: Experiment) -> Result<(Experiment, ModelFolder)> {
    // Nothing is downloaded for an experiment that lacks something else.
    ensure!(
        experiment.is_obtainable(),
        "{}; put the folders there (experiments/README.md says what they hold) or name others in \
         the file",
        experiment.missing().join("; ")
    );
    experiment.located()
}

/// An experiment whose inputs are checked.
struct Harness<'a> {
    experiment: &'a Experiment,
    base: Base,
    results: &'a Path,
    protocols: Vec<&'static Protocol>,
    gallery: Gallery,
    probe: TokenProbe<'a>,
    cells: Vec<Cell>,
    /// The part of the cells that this process works on; `None` for all.
    part: Option<Vec<Cell>>,
    workers: Workers,
    stop: &'a AtomicBool,
    claims: Claims,
}

impl<'a> Harness<'a> {
    fn new(
        experiment: &'a Experiment,
        model: ModelFolder,
        cells: Vec<Cell>,
        results: &'a Path,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let device = parse_device(&experiment.device)?;
        model.weights().precision.check(&experiment.device)?;
        let protocols = experiment.evaluation.protocols()?;
        let evaluation = &experiment.evaluation;
        let kept = results.join(KEPT);
        let mut gallery = Gallery::new(&evaluation.encoders, &device, Some(kept))?;
        evaluation.check_masks(gallery.face_input())?;
        let needs = Needs::of_photos(&experiment.metrics(), &protocols);
        let needs = needs.with_faces(gallery.face_input());
        check_counts(experiment, &protocols, &needs)?;
        for concept in &experiment.concepts {
            gallery.check_photos(&photo_files(concept, &needs)?)?;
            if let Some(photos) = learned_files(concept, &needs)?
                && let Err(error) = gallery.check_photos(&photos)
            {
                // Images are not compared with these, and a side view may show no face.
                tracing::warn!("{error:#}");
            }
        }
        gallery.release();
        let probe = TokenProbe::load(experiment, &model)?;
        probe.check_prompts(&cells)?;
        let base = Base::new(model, &experiment.device);
        let claims = enter(experiment, &cells, results, &base, stop)?;
        let workers = Workers::for_model(base.folder().path(), &experiment.device);
        Ok(Self {
            experiment,
            base,
            results,
            protocols,
            gallery,
            probe,
            cells,
            part: None,
            workers,
            stop,
            claims,
        })
    }

    fn run(self) -> Result<Outcome> {
        let done = self.work()?;
        self.tables(done)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.results.join(name)
    }

    fn jobs(&self) -> Vec<GenerationJob<'_>> {
        jobs(
            self.experiment,
            &self.cells,
            self.results,
            &self.base,
            self.stop,
        )
    }

    fn removal(&self) -> Removal<'_> {
        Removal {
            jobs: self.jobs(),
            results: self.results,
            claims: &self.claims,
        }
    }

    /// Trains and generates what is missing.
    fn work(&self) -> Result<Done> {
        let work = Work {
            experiment: self.experiment,
            cells: self.part.as_ref().unwrap_or(&self.cells),
            all_cells: &self.cells,
            results: self.results,
            base: &self.base,
            claims: &self.claims,
            workers: self.workers,
            stop: self.stop,
        };
        work.run()
    }
}

/// The cells of an experiment, for which the disk has room.
fn cells_that_fit(
    experiment: &Experiment,
    model: &ModelFolder,
    results: &Path,
) -> Result<Vec<Cell>> {
    let cells = plan(experiment, model)?;
    let trained = Trained::for_images(experiment, model, &cells, results)?;
    DiskPlan::new(experiment, model, &cells, &trained)?.check()?;
    Ok(cells)
}

/// Enters this process among those that work in the folder.
fn enter(
    experiment: &Experiment,
    cells: &[Cell],
    results: &Path,
    base: &Base,
    stop: &AtomicBool,
) -> Result<Claims> {
    let mut images = BTreeMap::new();
    for job in jobs(experiment, cells, results, base, stop) {
        let (folder, source) = job.origin()?;
        let digest = hex(&Sha256::digest(source.as_bytes()));
        images.insert(folder.display().to_string(), digest[..16].to_string());
    }
    Claims::enter(results, images)
}

/// Refuses protocols whose pairing does not fit the numbers of images and photos.
fn check_counts(experiment: &Experiment, protocols: &[&Protocol], needs: &Needs) -> Result<()> {
    for concept in &experiment.concepts {
        let prompts = experiment.prompts_for(concept).len();
        let images = prompts * experiment.sampling.images_per_prompt;
        let photos = photo_files(concept, needs)?.len();
        for protocol in protocols {
            protocol.check_counts(&format!("concept `{}`", concept.name), images, photos)?;
        }
    }
    Ok(())
}
