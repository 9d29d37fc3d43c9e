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
use crate::experiment::Experiment;
use crate::images::{time_image, wanted};
use crate::plan::Cell;
use crate::planned::{PlannedCell, planned_cells};
use crate::training::rounds;
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
    /// The bytes that finished runs and images will take beside what is there, about.
    pub disk_bytes: u64,
    /// Every variant, concept and seed.
    pub cells: Vec<PlannedCell>,
}

impl WorkPlan {
    /// Measures a few real steps and one image.
    ///
    /// # Errors
    /// What a real run would refuse.
    pub fn measure(
        experiment: &Experiment,
        model: ModelFolder,
        cells: &[Cell],
        results: &Path,
    ) -> Result<Self> {
        let mut planned = planned_cells(experiment, cells, results);
        let base = Base::new(model, &experiment.device);
        let workers = Workers::for_model(base.folder().path(), &experiment.device);
        let training = TrainingCost::measure(&base, cells, results, workers)?;
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
        let runs = rounds(cells, results).concat();
        let of_runs = runs
            .iter()
            .map(|task| run_bytes(&task.run.config, base.folder()));
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
            disk_bytes: of_runs.sum::<u64>(),
            cells: planned,
        })
    }
}

/// How many pieces of work are left: runs to train, or folders of images to fill, whichever are more.
pub fn pieces_of_work(experiment: &Experiment, cells: &[Cell], results: &Path) -> usize {
    let planned = planned_cells(experiment, cells, results);
    let incomplete = planned.iter().filter(|cell| cell.images_done < cell.images);
    let runs: usize = rounds(cells, results).iter().map(Vec::len).sum();
    runs.max(incomplete.count())
}

/// About what a finished run takes on the disk: the weights of every network that it trains as a whole.
/// What is learned beside, as an embedding or a LoRA, is small.
fn run_bytes(config: &core_train::RunConfig, model: &ModelFolder) -> u64 {
    let entries = config.stages.iter().flat_map(|stage| &stage.train);
    let mut files: Vec<&str> = entries
        .map(|entry| entry.adapter.adapter().file())
        .collect();
    files.sort_unstable();
    files.dedup();
    files
        .iter()
        .map(|file| folder_bytes(&model.path().join(file)))
        .sum()
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    sizes
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
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
    fn measure(base: &Base, cells: &[Cell], results: &Path, workers: Workers) -> Result<Self> {
        let mut all = Self::default();
        // All concepts cost the same; variants with equal stages too.
        let mut measured: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for task in rounds(cells, results).concat() {
            let config = &task.run.config;
            let of_step = match measured.entry(format!("{:?}", config.stages)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let cost = workers.alone(|| Ok(cost::measure(base.get()?, config, None)?))?;
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
                let cost = workers.alone(|| Ok(cost::measure(base.get()?, &config, None)?))?;
                measured.insert(stages, cost.seconds);
                cost.seconds
            }
        };
        all = Some((count + prompts.len(), seconds + each * prompts.len() as f64));
    }
    Ok(all)
}
