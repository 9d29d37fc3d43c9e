//! Experiments, scores, tables and plots from the command line.

use std::process::ExitCode;

use clap::Parser;
use core_eval::commands::experiment::ExperimentArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, draw, score and compare.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    experiment: ExperimentArgs,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    match core_eval::harness::run(&Cli::parse().experiment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
