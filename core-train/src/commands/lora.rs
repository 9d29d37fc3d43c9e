//! `core-train lora`: what a LoRA file is; the same in the spelling of another tool.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::{Args, Subcommand};
use core_model::Precision;
use core_model::lora::{LayerNames, Lora, LoraForm};
use core_model::pipeline::StableDiffusionPipeline;
use core_model::source::ModelSource;
use serde::Serialize;

use super::{one_of, print_report, say};

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
        /// Print one JSON object
        #[arg(long)]
        json: bool,
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
        Command::Inspect { file, model, json } => {
            let (names, pipeline) = layers(model.as_deref())?;
            let lora = Lora::load(file, &names)?;
            let mut report = Report::new(file, &lora);
            if let Some(pipeline) = pipeline {
                lora.merge(pipeline.model, 1.0)?;
                report.fits_model = Some(true);
            }
            print_report(*json, &report, Report::lines)
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

/// What a LoRA is.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    form: String,
    /// The width of the prompts of the base model, where the changed layers tell it.
    prompt_width: Option<usize>,
    /// The smallest and the largest.
    rank: [usize; 2],
    alpha: [f64; 2],
    unet_layers: usize,
    text_encoder_layers: usize,
    metadata: BTreeMap<String, String>,
    /// None where no model was named.
    fits_model: Option<bool>,
}

impl Report {
    fn new(file: &Path, lora: &Lora) -> Self {
        let alphas = || lora.layers.values().map(|layer| layer.alpha);
        let of = |network: &str| {
            let start = format!("{network}.");
            let layers = lora.layers.keys();
            layers.filter(|layer| layer.starts_with(&start)).count()
        };
        let mut layers = lora.layers.iter();
        let width = layers.find(|(name, _)| name.ends_with("attn2.to_k"));
        let metadata = lora.metadata.iter();
        Self {
            file: file.to_path_buf(),
            form: lora.form.to_string(),
            prompt_width: width.and_then(|(_, layer)| layer.down.shape.get(1).copied()),
            rank: lora.ranks(),
            alpha: [
                alphas().fold(f64::MAX, f64::min),
                alphas().fold(f64::MIN, f64::max),
            ],
            unet_layers: of("unet"),
            text_encoder_layers: of("text_encoder"),
            metadata: metadata
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            fits_model: None,
        }
    }

    fn lines(&self) -> Vec<String> {
        let base = match self.prompt_width {
            Some(768) => "Stable Diffusion 1.x (prompts of width 768)".to_string(),
            Some(1024) => "Stable Diffusion 2.x (prompts of width 1024)".to_string(),
            Some(width) => format!("a model with prompts of width {width}"),
            None => "not told by the layers that are changed".to_string(),
        };
        let mut lines = vec![
            format!("file: {}", self.file.display()),
            format!("form: {}", self.form),
            format!("base: {base}"),
            format!("rank: {}", range(self.rank)),
            format!("alpha: {}", range(self.alpha)),
            format!(
                "layers: {} of the U-Net, {} of the text encoder, all matched",
                self.unet_layers, self.text_encoder_layers
            ),
        ];
        for (key, value) in &self.metadata {
            let short: String = value.chars().take(80).collect();
            let more = if short.len() < value.len() { ".." } else { "" };
            lines.push(format!("{key}: {short}{more}"));
        }
        if self.fits_model == Some(true) {
            lines.push("fits the model".into());
        }
        lines
    }
}

/// One number, or the smallest and the largest.
fn range<T: Display + PartialEq>([least, most]: [T; 2]) -> String {
    match least == most {
        true => least.to_string(),
        false => format!("{least} to {most}"),
    }
}
