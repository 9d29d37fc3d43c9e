//! Personalisation, pretraining and the mini world from the command line.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use core_model::allocator;
use core_train::manual::{CompletionsArgs, EXIT_CODES, ManArgs};

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// Teach a diffusion model one thing from a few photos.
#[derive(Parser)]
#[command(name = "core-train", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a run file for a folder of photos, with everything that can be told from them.
    Init(commands::init::InitArgs),
    /// Learn a concept as a TOML file says.
    Train(commands::train::TrainArgs),
    /// Draw images with a model, a learned concept or a finished run.
    Generate(Box<commands::generate::GenerateArgs>),
    /// Look at a learned concept of any tool, or write it for all tools.
    Embedding(commands::embedding::EmbeddingArgs),
    /// Make a model folder of a run, for diffusers and all that reads its layout.
    Export(commands::export::ExportArgs),
    /// Look at a LoRA of any tool, or write it for another.
    Lora(commands::lora::LoraArgs),
    /// Say what a model is and needs; make model folders of checkpoints in other layouts.
    Model(commands::model::ModelArgs),
    /// Train one network of the mini world.
    Pretrain(commands::pretrain::PretrainArgs),
    /// Render scenes of the mini world, or the photos of its concepts.
    World(commands::world::WorldArgs),
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
    // The main thread joins the pool: handing each small operation over from outside would take
    // longer than the operation.
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    if let Err(error) = pool.build_global() {
        tracing::warn!("the main thread stays outside of the thread pool: {error}");
    }
    let result = match cli.command {
        Command::Init(args) => commands::init::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Embedding(args) => commands::embedding::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Lora(args) => commands::lora::run(&args),
        Command::Model(args) => commands::model::run(&args),
        Command::Pretrain(args) => commands::pretrain::run(&args),
        Command::World(args) => commands::world::run(&args),
        Command::Completions(args) => {
            args.run(Cli::command());
            Ok(())
        }
        Command::Man(args) => args.run(Cli::command()).map_err(anyhow::Error::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            core_train::interrupt::failure()
        }
    }
}
