//! `--dry-run`: what an experiment would do, and how long that would take.

use std::path::Path;

use anyhow::Result;
use core_train::cost::duration;

use crate::experiment::Experiment;
use crate::own_encoder::say_own_encoders;
use crate::plan::plan;
use crate::planned::{PlannedCell, planned_cells};
use crate::trained::Trained;
use crate::work_plan::WorkPlan;

/// Reports line by line which runs there are and, where model and photos are present, how much time, memory
/// and disk they need, as measured on a few real steps.
///
/// # Errors
/// What a real run would refuse, apart from what is absent: at the end a disk that is too small.
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
        // Otherwise the plan says it.
        say_own_encoders(experiment)?;
        for variant in &experiment.variants {
            for concept in &concepts {
                for seed in &experiment.seeds {
                    say(&format!("  {}", name(&variant.name, concept, *seed)));
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
    let trained = Trained::for_images(&experiment, &model, &cells, results)?;
    let planned = planned_cells(&experiment, &cells, &trained);
    list(&planned, say);
    let plan = WorkPlan::measure(&experiment, model, &cells, planned, &trained)?;
    costs(&plan, say);
    plan.disk.check()
}

/// How a run is called in the list.
fn name(variant: &str, concept: &str, seed: u64) -> String {
    format!("{variant} / {concept} / seed {seed}")
}

fn list(cells: &[PlannedCell], say: &dyn Fn(&str)) {
    for cell in cells {
        let name = name(&cell.variant, &cell.concept, cell.seed);
        say(&format!("  {name}: {}", cell.describe()));
    }
}

fn costs(plan: &WorkPlan, say: &dyn Fn(&str)) {
    let at_once = plan.at_once as f64;
    say(&format!(
        "{} runs to train, about {}; {} images to draw, about {}; {} at a time, {} thread(s) each",
        plan.runs_to_train,
        duration(plan.training_seconds / at_once),
        plan.images_to_generate,
        duration(plan.image_seconds / at_once),
        plan.at_once,
        plan.threads,
    ));
    say(&match plan.steps_without_sharing {
        alone if alone > plan.steps_to_train => format!(
            "{} optimiser steps to take; {alone} if stages that several runs begin with were not shared",
            plan.steps_to_train
        ),
        _ => format!("{} optimiser steps to take", plan.steps_to_train),
    });
    if let Some((prompts, seconds)) = plan.optimisations {
        say(&format!(
            "{prompts} optimisations of an embedding for a prompt, about {}",
            duration(seconds / at_once)
        ));
    }
    if let Some(memory) = plan.memory_bytes {
        let all = (memory * plan.at_once as u64).div_ceil(1 << 20);
        say(&format!("peak memory: at most about {all} MiB"));
    }
    plan.disk.lines().iter().for_each(|line| say(line));
}
