//! `core-eval EXPERIMENT.toml`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of an experiment.
#[derive(Debug, Args)]
pub struct ExperimentArgs {
    /// The experiment's TOML file, as in experiments/.
    pub experiment: PathBuf,
    /// Where to compute instead of the file's `device`: cpu, wgpu, wgpu:1, cuda ....
    #[arg(long)]
    pub device: Option<String>,
    /// Only list the runs, with estimated time and memory.
    #[arg(long)]
    pub dry_run: bool,
    /// The folder of all results; `results` when absent.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Only this variant and the first; may be given several times.
    #[arg(long = "variant", value_name = "NAME")]
    pub variants: Vec<String>,
    /// The whole path with very few steps, concepts, prompts and images.
    #[arg(long)]
    pub quick: bool,
}
