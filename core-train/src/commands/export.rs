//! `core-train export`: a run as a model folder for every program that reads diffusers' layout.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use core_model::export::export;
use core_model::learned_embedding::LearnedEmbedding;

use super::generate::model_of_run;
use super::model::Dtype;
use super::say;

/// Arguments of `core-train export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Run folder of `core-train train`
    run: PathBuf,
    /// The folder to write
    out: PathBuf,
    /// Number format of the weights
    #[arg(long, default_value = "float32")]
    dtype: Dtype,
}

/// Writes the folder.
///
/// # Errors
/// No run folder, an unreadable model, an existing or unwritable folder.
pub fn run(args: &ExportArgs) -> Result<()> {
    let model = model_of_run(&args.run)?.locate()?;
    let unet = args.run.join("unet");
    let file = args.run.join("learned_embeds.safetensors");
    let embedding = match file.is_file() {
        true => Some(LearnedEmbedding::load(&file)?),
        false => None,
    };
    let concept = embedding.as_ref().map(|e| (e, e.token.as_str()));
    let unet = unet.is_dir().then_some(unet.as_path());
    export(&model, unet, concept, args.dtype.into(), &args.out)?;
    say(&format!(
        "{}: a model folder; StableDiffusionPipeline.from_pretrained opens it{}",
        args.out.display(),
        concept.map_or(String::new(), |(_, token)| format!(
            ", and `{token}` is a word of its prompts"
        ))
    ));
    Ok(())
}
