//! `core-train export`: a run as a model folder for every program that reads diffusers' layout.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use core_model::Precision;
use core_model::export::export;

use super::one_of;
use super::say;
use core_train::adapters::learned_embedding;
use core_train::run::Run;

/// Arguments of `core-train export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run folder of `core-train train`
    run: PathBuf,
    /// The folder to write
    out: PathBuf,
    /// Number format of the weights
    #[arg(long, default_value = "float32", value_parser = one_of(Precision::ALL, Precision::name))]
    dtype: Precision,
}

/// Writes the folder.
///
/// # Errors
/// No run folder, an unreadable model, an existing or unwritable folder.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let run = Run::open(&args.run)?;
    ensure!(
        run.config.neti().is_none(),
        "{}: trains `neti`, whose mapper gives the concept another embedding at every timestep and for \
         every layer; a folder of diffusers cannot hold that, so draw with `core-train generate --run`",
        args.run.display()
    );
    let base = run.base_model(&run.config.device)?;
    let pipeline = run.pipeline(&base)?;
    let embedding = learned_embedding(&run.phrase(), &run.config.model.path, &pipeline.model)?;
    let concept = embedding.as_ref().map(|e| (e, e.token.as_str()));
    export(&base.folder, &pipeline, concept, args.dtype, &args.out)?;
    say(&format!(
        "{}: a model folder; StableDiffusionPipeline.from_pretrained opens it{}",
        args.out.display(),
        concept.map_or(String::new(), |(_, token)| format!(
            ", and `{token}` is a word of its prompts"
        ))
    ));
    Ok(())
}
