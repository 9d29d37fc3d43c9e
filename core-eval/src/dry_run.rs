//! `--dry-run`: what an experiment would do, and how long that would take.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use core_model::folder::ModelFolder;
use core_model::source::EncoderSource;
use core_train::estimate::{self, duration};

use crate::commands::say;
use crate::experiment::Experiment;
use crate::images::{is_trained, time_image, wanted};
use crate::plan::{Cell, describe, plan};
use crate::training::runs_to_do;
use crate::workers::Workers;

/// What is absent, in words; nothing when everything is there.
pub fn missing(experiment: &Experiment) -> Vec<String> {
    let mut missing = Vec::new();
    if !experiment.model.source().is_present() {
        let model = experiment.model.path.display();
        missing.push(format!("model not present: {model}"));
    }
    for concept in &experiment.concepts {
        if concept.config.is_none() {
            let folder = concept.folder.display();
            missing.push(format!("concept folder not present: {folder}"));
        }
    }
    for folder in experiment.evaluation.encoders.paths() {
        if !EncoderSource::from(folder).is_present() {
            let folder = folder.display();
            missing.push(format!("evaluation model not present: {folder}"));
        }
    }
    missing
}

/// Whether all that is absent are repositories of the hub.
pub fn can_be_had(experiment: &Experiment) -> bool {
    let mut encoders = experiment.evaluation.encoders.paths();
    let mut concepts = experiment.concepts.iter();
    experiment.model.source().is_obtainable()
        && encoders.all(|folder| EncoderSource::from(folder).is_obtainable())
        && concepts.all(|concept| concept.config.is_some())
}

/// Prints the runs and, where model and photos are there, time and memory as measured on a few
/// real steps.
///
/// # Errors
/// What a real run would refuse, apart from what is absent.
pub fn run(experiment: &Experiment, results: &Path) -> Result<()> {
    say(&format!(
        "{}: {} variants x {} concepts x {} seeds, results in {}",
        experiment.name,
        experiment.variants.len(),
        experiment.concepts.len(),
        experiment.seeds.len(),
        results.display()
    ));
    let missing = missing(experiment);
    if !missing.is_empty() {
        for variant in &experiment.variants {
            for concept in &experiment.concepts {
                for seed in &experiment.seeds {
                    say(&format!("  {}", describe(variant, concept, *seed)));
                }
            }
        }
        for line in missing {
            let estimate = if line.starts_with("model") {
                "no estimate: "
            } else {
                ""
            };
            say(&format!("{estimate}{line}"));
        }
        return Ok(());
    }
    let (experiment, model) = experiment.clone().located()?;
    let cells = plan(&experiment, &model)?;
    list(&experiment, &cells, results);
    measure(&experiment, &model, &cells, results)
}

fn list(experiment: &Experiment, cells: &[Cell], results: &Path) {
    let mut listed: Vec<&str> = Vec::new();
    for cell in cells {
        let state = match &cell.run {
            None => "nothing to train".to_string(),
            Some(run) if is_trained(run, results) => format!("run {}, done", run.address),
            Some(run) if listed.contains(&run.address.as_str()) => {
                format!("run {}, as above", run.address)
            }
            Some(run) => format!("run {}, to train", run.address),
        };
        if let Some(run) = &cell.run {
            listed.push(&run.address);
        }
        let variant = &experiment.variants[cell.variant];
        let concept = &experiment.concepts[cell.concept];
        let name = describe(variant, concept, cell.seed);
        say(&format!("  {name}: {state}"));
    }
}

fn measure(
    experiment: &Experiment,
    model: &ModelFolder,
    cells: &[Cell],
    results: &Path,
) -> Result<()> {
    let workers = Workers::for_model(model.path(), &experiment.device);
    let runs = runs_to_do(cells, results);
    // All concepts cost the same; variants with equal stages too.
    let mut measured: BTreeMap<String, f64> = BTreeMap::new();
    let mut seconds = 0.0;
    let mut memory = None;
    for run in &runs {
        let stages = format!("{:?}", run.config.stages);
        seconds += match measured.get(&stages) {
            Some(known) => *known,
            None => {
                let estimate = workers.alone(|| Ok(estimate::measure(&run.config, None)?))?;
                memory = memory.max(estimate.peak_memory);
                measured.insert(stages, estimate.seconds);
                estimate.seconds
            }
        };
    }
    let images = cells
        .iter()
        .flat_map(|cell| wanted(experiment, cell))
        .filter(|image| !results.join(&image.file).exists())
        .count();
    let drawing = match experiment.concepts.iter().find_map(|c| c.config.as_ref()) {
        Some(concept) if images > 0 => {
            workers.alone(|| time_image(experiment, model, concept))? * images as f64
        }
        _ => 0.0,
    };
    let at_once = workers.count as f64;
    say(&format!(
        "{} runs to train, about {}; {images} images to draw, about {}; {} at a time, {} thread(s) each",
        runs.len(),
        duration(seconds / at_once),
        duration(drawing / at_once),
        workers.count,
        workers.threads,
    ));
    if let Some(memory) = memory {
        let all = memory * workers.count as u64;
        let mib = all.div_ceil(1 << 20);
        say(&format!("peak memory: at most about {mib} MiB"));
    }
    Ok(())
}
