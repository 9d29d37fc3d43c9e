//! `core-eval submit`: gives an experiment to a Slurm cluster.

use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result, bail};
use clap::Args;
use core_eval::disk::DiskPlan;
use core_eval::plan::plan;
use core_eval::planned::planned_cells;
use core_eval::slurm::{Jobs, submit, time_limit};
use core_eval::trained::Trained;
use core_eval::work_plan::{WorkPlan, pieces_of_work};
use core_eval::workers::cores;
use core_model::files::write_atomically;

use super::{load_experiment, say};

/// Arguments of `core-eval submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The experiment's TOML file, as in experiments/.
    experiment: PathBuf,
    /// Submit to Slurm, as an array of workers and a job that scores after them.
    #[arg(long, required = true)]
    slurm: bool,
    /// The partition. Absent: that of the cluster.
    #[arg(long)]
    partition: Option<String>,
    /// What each worker needs beside cores, as gpu:1.
    #[arg(long)]
    gres: Option<String>,
    /// Features that the nodes must have, so that all have one instruction set.
    #[arg(long)]
    constraint: Option<String>,
    /// The time limit of a worker, in Slurm's form or `auto`, which measures a few steps on this machine.
    /// Absent: that of the partition.
    #[arg(long)]
    time: Option<String>,
    /// How many workers run at once.
    #[arg(long, default_value_t = 16)]
    max_parallel: usize,
    /// The number of cores of a worker. Absent: those of this machine.
    #[arg(long)]
    cpus: Option<usize>,
    /// The device, instead of the file's `device`.
    #[arg(long)]
    device: Option<String>,
    /// The folder of all results, which all nodes share.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Run every step with very few steps, concepts, prompts and images.
    #[arg(long)]
    quick: bool,
    /// Only write the scripts and print them.
    #[arg(long)]
    print: bool,
}

/// Writes the job scripts and submits them.
///
/// # Errors
/// What the experiment itself refuses; an unwritable folder; what Slurm refuses.
pub(crate) fn run(args: &SubmitArgs) -> Result<()> {
    let device = args.device.as_ref();
    let experiment = load_experiment(&args.experiment, device, args.quick, &[])?;
    let results = absolute(args.results.join(&experiment.name))?;
    let (experiment, model) = experiment.located()?;
    let cells = plan(&experiment, &model)?;
    let trained = Trained::for_images(&experiment, &model, &cells, &results)?;
    let planned = planned_cells(&experiment, &cells, &trained);
    let pieces = pieces_of_work(&planned, &cells, &trained);
    if pieces == 0 {
        bail!(
            "there is nothing left to train or to generate; `core-eval {}` scores",
            args.experiment.display()
        );
    }
    DiskPlan::new(&experiment, &model, &cells, &trained)?.check()?;
    let time = match args.time.as_deref() {
        Some("auto") => {
            let plan = WorkPlan::measure(&experiment, model, &cells, planned, &trained)?;
            let optimising = plan.optimisations.map_or(0.0, |(_, seconds)| seconds);
            let all = plan.training_seconds + plan.image_seconds + optimising;
            let share = all / (pieces * plan.at_once) as f64;
            Some(time_limit(plan.longest_run_seconds.max(share)))
        }
        other => other.map(String::from),
    };
    let folder = results.join("slurm");
    let jobs = Jobs {
        name: experiment.name.clone(),
        command: command(args)?,
        folder: std::env::current_dir()?,
        logs: folder.clone(),
        tasks: pieces,
        max_parallel: args.max_parallel,
        cpus: args.cpus.unwrap_or_else(cores),
        partition: args.partition.clone(),
        gres: args.gres.clone(),
        constraint: args.constraint.clone(),
        time,
    };
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let array = write(
        &folder.join(format!("{}.sbatch", experiment.name)),
        &jobs.array()?,
        args.print,
    )?;
    let report = write(
        &folder.join(format!("{}-report.sbatch", experiment.name)),
        &jobs.report()?,
        args.print,
    )?;
    if args.print {
        return Ok(());
    }
    let job = submit(&array, None)?;
    let after = submit(&report, Some(&job)).with_context(|| {
        format!("the workers are submitted as job {job} (`scancel {job}` takes them back), but not the report")
    })?;
    say(&format!(
        "job {job}: up to {pieces} workers, {} at once; job {after} scores after them; logs in {}",
        args.max_parallel,
        folder.display()
    ));
    Ok(())
}

fn write(path: &Path, script: &str, print: bool) -> Result<PathBuf> {
    write_atomically(path, script.as_bytes())?;
    if print {
        say(&format!("# {}\n{script}", path.display()));
    }
    Ok(path.to_path_buf())
}

/// This program on this experiment, without what makes it a worker.
fn command(args: &SubmitArgs) -> Result<Vec<String>> {
    let mut words = vec![
        std::env::current_exe()?.into_os_string(),
        args.experiment.clone().into_os_string(),
        "--results".into(),
        args.results.clone().into_os_string(),
    ];
    if let Some(device) = &args.device {
        words.extend(["--device".into(), device.into()]);
    }
    if args.quick {
        words.push("--quick".into());
    }
    let texts = words.into_iter().map(|word| match word.into_string() {
        Ok(text) => Ok(text),
        Err(word) => bail!("{}: is no UTF-8, which a job script needs", word.display()),
    });
    texts.collect()
}
