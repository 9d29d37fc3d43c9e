//! What an experiment still needs, in numbers: for `core-eval plan --json` and for job scripts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use anyhow::Result;
use core_model::folder::ModelFolder;
use core_train::cost;
use core_train::phrase::SLOT;
use serde::Serialize;

use crate::base::Base;
use crate::disk::DiskPlan;
use crate::experiment::Experiment;
use crate::images::{time_image, wanted};
use crate::plan::Cell;
use crate::planned::PlannedCell;
use crate::trained::Trained;
use crate::training::{Task, rounds, steps_without_sharing};
use crate::workers::Workers;

/// What is left of an experiment, and its cost as measured on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct WorkPlan {
    /// The experiment.
    pub experiment: String,
    /// The number of runs to train, beginnings that several share included.
    pub runs_to_train: usize,
    /// The number of images to generate.
    pub images_to_generate: usize,
    /// The seconds that the longest of the runs takes.
    pub longest_run_seconds: f64,
    /// The seconds of all runs, one after another.
    pub training_seconds: f64,
    /// The seconds of all images.
    pub image_seconds: f64,
    /// The number of prompts for which an embedding is optimised before their images, and the seconds that
    /// takes; none where no variant does so.
    pub optimisations: Option<(usize, f64)>,
    /// The number of runs or batches that a process works on at once.
    pub at_once: usize,
    /// The number of threads of each.
    pub threads: usize,
    /// The peak memory of one of them in bytes, where the system tells.
    pub memory_bytes: Option<u64>,
    /// The number of optimiser steps to take.
    pub steps_to_train: usize,
    /// The same if each of these runs trained all of its stages itself.
    pub steps_without_sharing: usize,
    /// The bytes that are still to be written, at the most at one moment, about.
    pub disk_bytes: u64,
    /// What takes them.
    pub disk: DiskPlan,
    /// Every variant, concept and seed.
    pub cells: Vec<PlannedCell>,
}

impl WorkPlan {
    /// Measures a few real steps and one image; `planned` are the [states](crate::planned::planned_cells) of the cells.
    ///
    /// # Errors
    /// What a real run would refuse, but for a disk that is too small.
    pub fn measure(
        experiment: &Experiment,
        model: ModelFolder,
        cells: &[Cell],
        mut planned: Vec<PlannedCell>,
        trained: &Trained<'_>,
    ) -> Result<Self> {
        let results = trained.results();
        let base = Base::new(model, &experiment.device);
        let workers = Workers::for_model(base.folder().path(), &experiment.device);
        let training = TrainingCost::measure(&base, cells, trained, workers)?;
        for cell in &mut planned {
            let of_run = cell
                .address
                .as_ref()
                .and_then(|address| training.seconds.get(address));
            cell.seconds = of_run.copied();
        }
        let images = planned
            .iter()
            .map(|cell| cell.images - cell.images_done)
            .sum();
        let of_image = match experiment.concepts.first() {
            Some(concept) if images > 0 => {
                workers.alone(|| time_image(experiment, base.get()?, concept))?
            }
            _ => 0.0,
        };
        let runs = rounds(cells, trained).concat();
        let own_steps = runs.iter().map(Task::own_steps);
        let disk = DiskPlan::new(experiment, base.folder(), cells, trained)?;
        Ok(Self {
            experiment: experiment.name.clone(),
            runs_to_train: runs.len(),
            images_to_generate: images,
            longest_run_seconds: training.seconds.values().copied().fold(0.0, f64::max),
            training_seconds: training.seconds.values().sum(),
            image_seconds: of_image * images as f64,
            optimisations: time_optimisations(experiment, &base, cells, results, workers)?,
            at_once: workers.count,
            threads: workers.threads,
            memory_bytes: training.memory,
            steps_to_train: own_steps.sum(),
            steps_without_sharing: steps_without_sharing(cells, trained),
            disk_bytes: disk.needed(),
            disk,
            cells: planned,
        })
    }
}

/// How many pieces of work are left: runs to train, or folders of images to fill, whichever are more.
pub fn pieces_of_work(planned: &[PlannedCell], cells: &[Cell], trained: &Trained<'_>) -> usize {
    let incomplete = planned.iter().filter(|cell| cell.images_done < cell.images);
    let runs: usize = rounds(cells, trained).iter().map(Vec::len).sum();
    runs.max(incomplete.count())
}

/// What the runs that are missing cost.
#[derive(Debug, Default)]
struct TrainingCost {
    /// The seconds of each, by address.
    seconds: BTreeMap<String, f64>,
    /// The peak memory of this process in bytes, where the system tells.
    memory: Option<u64>,
}

impl TrainingCost {
    /// Measures a few real steps.
    ///
    /// # Errors
    /// As a run before the first step.
    fn measure(
        base: &Base,
        cells: &[Cell],
        trained: &Trained<'_>,
        workers: Workers,
    ) -> Result<Self> {
        let mut all = Self::default();
        // All concepts cost the same; variants with equal stages too.
        let mut measured: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for task in rounds(cells, trained).concat() {
            let config = &task.run.config;
            let of_step = match measured.entry(format!("{:?}", config.stages)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let cost =
                        workers.alone(|| Ok(cost::measure(base.get()?.clone(), config, None)?))?;
                    all.memory = all.memory.max(cost.peak_memory);
                    place.insert(cost.step_seconds)
                }
            };
            let stages = config.stages.iter().zip(of_step).skip(task.first_stage());
            let seconds = stages.map(|(stage, of_step)| stage.steps as f64 * *of_step);
            all.seconds.insert(task.run.address.clone(), seconds.sum());
        }
        Ok(all)
    }
}

/// How many prompts lack images of a variant with test-time optimisation, and the seconds that their
/// optimisations take; `None` where no variant has any.
fn time_optimisations(
    experiment: &Experiment,
    base: &Base,
    cells: &[Cell],
    results: &Path,
    workers: Workers,
) -> Result<Option<(usize, f64)>> {
    let mut measured: BTreeMap<String, f64> = BTreeMap::new();
    let mut all = None;
    for cell in cells {
        let variant = &experiment.variants[cell.variant];
        let (Some(test_time), Some(run)) = (variant.test_time, &cell.run) else {
            continue;
        };
        let mut prompts: Vec<String> = Vec::new();
        for image in wanted(experiment, cell) {
            let names_concept = image.prompt.prompt.contains(SLOT);
            if names_concept && !results.join(&image.file).exists() {
                prompts.push(image.prompt.prompt);
            }
        }
        prompts.dedup();
        let (count, seconds) = all.unwrap_or((0, 0.0));
        let Some(prompt) = prompts.first() else {
            all = Some((count, seconds));
            continue;
        };
        let origin = Path::new("").join(format!("variant `{}`", variant.name));
        let config = test_time.config(&run.config, prompt, &origin)?;
        let stages = format!("{:?}", test_time.config(&run.config, SLOT, &origin)?.stages);
        let each = match measured.get(&stages) {
            Some(known) => *known,
            None => {
                let cost =
                    workers.alone(|| Ok(cost::measure(base.get()?.clone(), &config, None)?))?;
                measured.insert(stages, cost.seconds);
                cost.seconds
            }
        };
        all = Some((count + prompts.len(), seconds + each * prompts.len() as f64));
    }
    Ok(all)
}
