//! Experiments, scores, tables and figures from the command line.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use core_model::allocator;
use core_train::manual::{CompletionsArgs, EXIT_CODES, ManArgs};

mod commands;

use commands::{doctor, experiment, figures, merge, plan, precision, report, score, study, submit};

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// Train, sample, score and compare.
#[derive(Parser)]
#[command(
    name = "core-eval",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    experiment: Option<experiment::ExperimentArgs>,
}

#[derive(Subcommand)]
enum Command {
    /// Score images of any origin: CLIP-T, CLIP-I, DINO.
    Score(Box<score::ScoreArgs>),
    /// Check which devices and checkpoints are present and work.
    Doctor(doctor::DoctorArgs),
    /// Draw the figures of a results folder and write its tables again.
    Figures(figures::FiguresArgs),
    /// Write the report page of a results folder, or of several, again from the tables.
    Report(report::ReportArgs),
    /// Make one table of the variants of several experiments.
    Merge(merge::MergeArgs),
    /// Estimate how many concepts, prompts and images an interval of a wanted width needs.
    Precision(precision::PrecisionArgs),
    /// Ask people which images they prefer, without telling them which method made which.
    Study(Box<study::StudyArgs>),
    /// List the runs of an experiment with their state and what they need.
    Plan(plan::PlanArgs),
    /// Give an experiment to a Slurm cluster.
    Submit(submit::SubmitArgs),
    /// Print the script with which a shell completes arguments.
    Completions(CompletionsArgs),
    /// Write manual pages.
    Man(ManArgs),
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let cli = Cli::parse();
    let result = match (&cli.command, &cli.experiment) {
        (Some(Command::Score(args)), _) => score::run(args),
        (Some(Command::Doctor(args)), _) => doctor::run(args),
        (Some(Command::Figures(args)), _) => figures::run(args),
        (Some(Command::Report(args)), _) => report::run(args),
        (Some(Command::Merge(args)), _) => merge::run(args),
        (Some(Command::Precision(args)), _) => precision::run(args),
        (Some(Command::Study(args)), _) => study::run(args),
        (Some(Command::Plan(args)), _) => plan::run(args),
        (Some(Command::Submit(args)), _) => submit::run(args),
        (Some(Command::Completions(args)), _) => {
            args.run(Cli::command());
            Ok(())
        }
        (Some(Command::Man(args)), _) => args.run(Cli::command()).map_err(anyhow::Error::from),
        (None, Some(args)) => experiment::run(args),
        (None, None) => Err(anyhow::anyhow!(
            "name an experiment, as in experiments/ablation.toml"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            core_train::interrupt::failure()
        }
    }
}
