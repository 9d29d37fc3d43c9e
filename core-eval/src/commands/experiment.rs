//! `core-eval EXPERIMENT.toml`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use core_eval::harness::{self, Outcome};
use core_eval::part::{Part, Shard};
use core_eval::{dry_run, effects::EffectRow};
use core_train::cost::duration;
use core_train::interrupt::stop_on_signals;

use super::{load_experiment, say};

/// Arguments of an experiment.
#[derive(Debug, Args)]
pub(crate) struct ExperimentArgs {
    /// The experiment's TOML file, as in experiments/.
    experiment: PathBuf,
    /// The device, instead of the file's `device`: cpu, wgpu, wgpu:1, cuda, cuda:1.
    #[arg(long)]
    device: Option<String>,
    /// Only list the runs, with estimated time, memory and disk.
    #[arg(long)]
    dry_run: bool,
    /// The folder of all results; each experiment has a folder in it.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Run only this variant and the first; may be repeated.
    #[arg(long = "variant", value_name = "NAME")]
    variants: Vec<String>,
    /// Train and generate beside other processes until nothing is left, without scores and tables.
    #[arg(long, conflicts_with = "dry_run")]
    worker: bool,
    /// As a worker do only the runs with these addresses, which `core-eval plan` lists.
    #[arg(long, value_name = "ADDRESS", num_args = 1.., conflicts_with = "dry_run")]
    only: Vec<String>,
    /// As a worker do only this part of the work, from 0/N to (N-1)/N.
    #[arg(long, value_name = "I/N", conflicts_with = "dry_run")]
    shard: Option<Shard>,
    /// Only score what workers have made; what is missing is an error.
    #[arg(long, conflicts_with_all = ["dry_run", "worker", "only", "shard"])]
    score_only: bool,
    /// Run every step with very few steps, concepts, prompts and images.
    #[arg(long)]
    quick: bool,
}

/// Runs, or with `--dry-run` only describes, an experiment.
///
/// # Errors
/// As [`harness::run`] and [`dry_run::describe`].
pub(crate) fn run(args: &ExperimentArgs) -> Result<()> {
    let device = args.device.as_ref();
    let experiment = load_experiment(&args.experiment, device, args.quick, &args.variants)?;
    let results = args.results.join(&experiment.name);
    if args.dry_run {
        return dry_run::describe(&experiment, &results, &say);
    }
    let (name, claims) = (experiment.name.clone(), experiment.effects.len());
    let start = Instant::now();
    // Without the handler a signal ends the program at once, and the next call continues from there too.
    let stop = stop_on_signals().unwrap_or_default();
    let part = Part {
        only: args.only.clone(),
        shard: args.shard,
    };
    if args.worker || part != Part::default() {
        let done = harness::work(experiment, &results, &part, &stop)?;
        say(&format!(
            "{} runs trained ({} steps), {} images generated in {}; nothing is left to do for a \
             worker in {}",
            done.runs,
            done.steps,
            done.images,
            duration(start.elapsed().as_secs_f64()),
            results.display()
        ));
        return Ok(());
    }
    let outcome = match args.score_only {
        true => harness::score(experiment, &results, &stop)?,
        false => harness::run(experiment, &results, &stop)?,
    };
    report(&name, claims, &outcome);
    say(&format!("\nnetworks that ran: {}", outcome.usage));
    say(&format!(
        "{} in {}: {}",
        duration(start.elapsed().as_secs_f64()),
        results.display(),
        outcome.files.join(", ")
    ));
    if let Some(deviation) = &outcome.deviation {
        say(&deviation.to_string());
    }
    Ok(())
}

fn report(experiment: &str, claims: usize, outcome: &Outcome) {
    for (protocol, table) in &outcome.tables {
        say(&format!("\n{experiment}, protocol {protocol}\n"));
        say(table.trim_end());
    }
    if claims == 0 {
        return;
    }
    if outcome.effects.is_empty() {
        say("\neffects: not measured, since an interval needs two concepts or seeds");
        return;
    }
    say("\nEffects, 95 % intervals:");
    for EffectRow {
        name,
        mean,
        low,
        high,
        n,
        holds,
        ..
    } in &outcome.effects
    {
        let verdict = if *holds { "holds" } else { "does not hold" };
        say(&format!(
            "{verdict}: {name}: {mean:.4} [{low:.4}, {high:.4}], n = {n}"
        ));
    }
}
