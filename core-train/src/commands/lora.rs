//! `core-train lora`: what a LoRA file is; the same in the spelling of another tool.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::{Args, Subcommand};
use core_model::Precision;
use core_model::lora::{LayerNames, Lora, LoraForm};
use core_model::pipeline::StableDiffusionPipeline;
use core_model::source::ModelSource;

use super::{one_of, say};

/// Arguments of `core-train lora`.
#[derive(Debug, Args)]
pub(crate) struct LoraArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which tool's form a LoRA has, its rank and alpha, and which layers it changes.
    Inspect {
        /// LoRA of any tool (safetensors, pt or bin)
        file: PathBuf,
        /// The base model that it must fit [default: the layers of Stable Diffusion 1.x and 2.x]
        #[arg(long, value_name = "MODEL")]
        model: Option<PathBuf>,
    },
    /// Write a LoRA in the form of another tool.
    Convert {
        /// LoRA of any tool (safetensors, pt or bin)
        file: PathBuf,
        /// The file to write (safetensors)
        out: PathBuf,
        /// The form: kohya is read by AUTOMATIC1111, ComfyUI and diffusers
        #[arg(long, value_parser = one_of(LoraForm::WRITTEN, LoraForm::name))]
        to: LoraForm,
        /// Number format of the tensors
        #[arg(long, default_value = "float16", value_parser = one_of(Precision::ALL, Precision::name))]
        dtype: Precision,
        /// The base model, where it is not Stable Diffusion 1.x or 2.x
        #[arg(long, value_name = "MODEL")]
        model: Option<PathBuf>,
    },
}

/// Inspects or converts a LoRA.
///
/// # Errors
/// A file that is no LoRA of this family of models, an existing or unwritable file.
pub(crate) fn run(args: &LoraArgs) -> Result<()> {
    match &args.command {
        Command::Inspect { file, model } => {
            let (names, pipeline) = layers(model.as_deref())?;
            let lora = Lora::load(file, &names)?;
            inspect(file, &lora);
            if let Some(pipeline) = pipeline {
                lora.merge(pipeline.model, 1.0)?;
                say("fits the model");
            }
            Ok(())
        }
        Command::Convert {
            file,
            out,
            to,
            dtype,
            model,
        } => {
            if out.exists() {
                bail!("{}: is there already; name another file", out.display());
            }
            let (names, _) = layers(model.as_deref())?;
            let lora = Lora::load(file, &names)?;
            lora.save(out, *to, *dtype)?;
            say(&format!(
                "{}: {} layers, {to}",
                out.display(),
                lora.layers.len()
            ));
            Ok(())
        }
    }
}

fn layers(model: Option<&Path>) -> Result<(LayerNames, Option<StableDiffusionPipeline>)> {
    let Some(path) = model else {
        return Ok((LayerNames::of_stable_diffusion()?, None));
    };
    let folder = ModelSource::from(path.to_path_buf()).locate()?;
    let pipeline = StableDiffusionPipeline::load(&folder, &Device::flex())?;
    Ok((LayerNames::of_model(&pipeline.model), Some(pipeline)))
}

fn inspect(file: &Path, lora: &Lora) {
    let [smallest, largest] = lora.ranks();
    let alphas = || lora.layers.values().map(|layer| layer.alpha);
    let [least, most] = [
        alphas().fold(f64::MAX, f64::min),
        alphas().fold(f64::MIN, f64::max),
    ];
    let of = |network: &str| {
        let start = format!("{network}.");
        lora.layers
            .keys()
            .filter(|layer| layer.starts_with(&start))
            .count()
    };
    let range = |least: String, most: String| match least == most {
        true => least,
        false => format!("{least} to {most}"),
    };
    let width = lora
        .layers
        .iter()
        .find(|(name, _)| name.ends_with("attn2.to_k"));
    let base = match width.and_then(|(_, layer)| layer.down.shape.get(1)) {
        Some(768) => "Stable Diffusion 1.x (prompts of width 768)".to_string(),
        Some(1024) => "Stable Diffusion 2.x (prompts of width 1024)".to_string(),
        Some(width) => format!("a model with prompts of width {width}"),
        None => "not told by the layers that are changed".to_string(),
    };
    say(&format!("file: {}", file.display()));
    say(&format!("form: {}", lora.form));
    say(&format!("base: {base}"));
    say(&format!(
        "rank: {}",
        range(smallest.to_string(), largest.to_string())
    ));
    say(&format!(
        "alpha: {}",
        range(least.to_string(), most.to_string())
    ));
    say(&format!(
        "layers: {} of the U-Net, {} of the text encoder, all matched",
        of("unet"),
        of("text_encoder")
    ));
    for (key, value) in &lora.metadata {
        let short: String = value.chars().take(80).collect();
        say(&format!(
            "{key}: {short}{}",
            if short.len() < value.len() { ".." } else { "" }
        ));
    }
}
