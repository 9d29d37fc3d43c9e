//! `--dry-run`: what an experiment would do, and how long that would take.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use anyhow::Result;
use core_train::cost::{self, duration};
use core_train::phrase::SLOT;

use crate::base::Base;
use crate::experiment::{Experiment, Variant};
use crate::images::{is_trained, time_image, wanted};
use crate::plan::{Cell, plan};
use crate::training::{Task, rounds};
use crate::workers::Workers;

/// Reports line by line which runs there are and, where model and photos are present, how much time and
/// memory they need, as measured on a few real steps.
///
/// # Errors
/// What a real run would refuse, apart from what is absent.
pub fn describe(experiment: &Experiment, results: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let concepts = experiment.concept_names();
    say(&format!(
        "{}: {} variants x {} concepts x {} seeds, results in {}",
        experiment.name,
        experiment.variants.len(),
        concepts.len(),
        experiment.seeds.len(),
        results.display()
    ));
    let missing = experiment.missing();
    if !missing.is_empty() {
        for variant in &experiment.variants {
            for concept in &concepts {
                for seed in &experiment.seeds {
                    say(&format!("  {}", name(variant, concept, *seed)));
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
    list(&experiment, &cells, results, say);
    let base = Base::new(model, &experiment.device);
    measure(&experiment, &base, &cells, results, say)
}

/// How a run is called in the list.
fn name(variant: &Variant, concept: &str, seed: u64) -> String {
    format!("{} / {concept} / seed {seed}", variant.name)
}

fn list(experiment: &Experiment, cells: &[Cell], results: &Path, say: &dyn Fn(&str)) {
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
        let concept = &experiment.concepts[cell.concept].name;
        let name = name(variant, concept, cell.seed);
        say(&format!("  {name}: {state}"));
    }
}

fn measure(
    experiment: &Experiment,
    base: &Base,
    cells: &[Cell],
    results: &Path,
    say: &dyn Fn(&str),
) -> Result<()> {
    let workers = Workers::for_model(base.folder().path(), &experiment.device);
    let runs: Vec<Task<'_>> = rounds(cells, results).concat();
    // All concepts cost the same; variants with equal stages too.
    let mut measured: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut seconds = 0.0;
    let mut memory = None;
    for task in &runs {
        let config = &task.run.config;
        let of_step = match measured.entry(format!("{:?}", config.stages)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let cost = workers.alone(|| Ok(cost::measure(base.get()?, config, None)?))?;
                memory = memory.max(cost.peak_memory);
                place.insert(cost.step_seconds)
            }
        };
        let stages = config.stages.iter().zip(of_step).skip(task.first_stage());
        seconds += stages
            .map(|(stage, of_step)| stage.steps as f64 * *of_step)
            .sum::<f64>();
    }
    let images = cells
        .iter()
        .flat_map(|cell| wanted(experiment, cell))
        .filter(|image| !results.join(&image.file).exists())
        .count();
    let drawing = match experiment.concepts.first() {
        Some(concept) if images > 0 => {
            workers.alone(|| time_image(experiment, base.get()?, concept))? * images as f64
        }
        _ => 0.0,
    };
    let optimizing = time_optimisations(experiment, base, cells, results, workers)?;
    let at_once = workers.count as f64;
    say(&format!(
        "{} runs to train, about {}; {images} images to draw, about {}; {} at a time, {} thread(s) each",
        runs.len(),
        duration(seconds / at_once),
        duration(drawing / at_once),
        workers.count,
        workers.threads,
    ));
    if let Some((prompts, seconds)) = optimizing {
        say(&format!(
            "{prompts} optimisations of an embedding for a prompt, about {}",
            duration(seconds / at_once)
        ));
    }
    if let Some(memory) = memory {
        let all = memory * workers.count as u64;
        let mib = all.div_ceil(1 << 20);
        say(&format!("peak memory: at most about {mib} MiB"));
    }
    Ok(())
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
