//! `core-eval plan`: the runs of an experiment with their state and what they need.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use core_eval::dry_run;
use core_eval::plan::plan;
use core_eval::planned::planned_cells;
use core_eval::trained::Trained;
use core_eval::work_plan::WorkPlan;

use super::{load_experiment, say};

/// Arguments of `core-eval plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The experiment's TOML file, as in experiments/.
    experiment: PathBuf,
    /// The device, instead of the file's `device`.
    #[arg(long)]
    device: Option<String>,
    /// The folder of all results; each experiment has a folder in it.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Plan only this variant and the first; may be repeated.
    #[arg(long = "variant", value_name = "NAME")]
    variants: Vec<String>,
    /// Plan with very few steps, concepts, prompts and images.
    #[arg(long)]
    quick: bool,
    /// Print JSON, with every number.
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
///
/// # Errors
/// What a real run would refuse, apart from what is absent, which only the text tells; a disk that is too small, after
/// the plan.
pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let device = args.device.as_ref();
    let experiment = load_experiment(&args.experiment, device, args.quick, &args.variants)?;
    let results = args.results.join(&experiment.name);
    if args.json {
        let (experiment, model) = experiment.located()?;
        let cells = plan(&experiment, &model)?;
        let trained = Trained::for_images(&experiment, &model, &cells, &results)?;
        let planned = planned_cells(&experiment, &cells, &trained);
        let plan = WorkPlan::measure(&experiment, model, &cells, planned, &trained)?;
        say(&serde_json::to_string_pretty(&plan)?);
        return plan.disk.check();
    }
    dry_run::describe(&experiment, &results, &say)
}
