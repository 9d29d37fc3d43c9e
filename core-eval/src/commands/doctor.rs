//! `core-eval doctor`: checks the devices and checkpoints of this machine.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::Args;
use core_model::device::{Present, difference_from_cpu, parse_device, present_devices};
use core_model::folder::ModelFolder;
use core_model::pipeline::StableDiffusionPipeline;
use core_train::run::environment::locked_version;

use super::say;
use core_eval::masks::Segmenter;
use core_eval::metrics::EncoderKind;
use core_eval::workers::cores;

/// Arguments of `core-eval doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Folder of the shipped checkpoints [default: models, here or in the checkout]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

/// Prints versions, devices and checkpoints.
///
/// # Errors
/// A device or shipped checkpoint that does not work; everything is printed first.
pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    say(&format!(
        "core-eval {}, burn {}, {} {}, {} threads",
        env!("CARGO_PKG_VERSION"),
        locked_version("burn").unwrap_or("unknown"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        cores(),
    ));
    let mut broken = devices();
    let models = args.models.clone().unwrap_or_else(models_folder);
    let mut unusable = Vec::new();
    let mut report = |name: String, what: Result<String>| {
        let folder = models.join(&name);
        match what {
            Ok(what) => say(&format!("{}: {what}", folder.display())),
            Err(error) => {
                say(&format!("{}: cannot be used: {error:#}", folder.display()));
                unusable.push(name);
            }
        }
    };
    report("mini".into(), generator(&models.join("mini")));
    for kind in EncoderKind::all() {
        let name = format!("mini-{}", kind.key);
        let folder = models.join(&name);
        if kind.required || folder.exists() {
            report(name, encoder(kind, &folder));
        }
    }
    report(
        "mini-clipseg".into(),
        segmenter(&models.join("mini-clipseg")),
    );
    if !unusable.is_empty() {
        broken.push(format!(
            "{} cannot be used; restore {} from the repository or train again with `core-train \
             pretrain`",
            unusable.join(", "),
            models.display()
        ));
    }
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("{}", broken.join("; ")),
    }
}

/// Differences below this share of the largest value are rounding.
const ROUNDING: f32 = 1e-3;

/// Prints every device after comparing its results with those of the CPU; returns what is wrong.
fn devices() -> Vec<String> {
    let mut broken = Vec::new();
    let present = present_devices();
    for Present {
        name,
        adapter,
        device,
    } in &present
    {
        match difference_from_cpu(name, device) {
            Ok(_) if name == "cpu" => say(&format!("device {name}: present ({adapter})")),
            Ok(off) if off < ROUNDING => say(&format!(
                "device {name}: present ({adapter}), results equal the cpu's within {off:.0e}"
            )),
            Ok(off) => broken.push(format!(
                "device {name} ({adapter}): its results differ from the cpu's by {off:.0e} of the largest \
                 value; update its driver or use another device"
            )),
            Err(error) => broken.push(error.to_string()),
        }
    }
    for kind in ["wgpu", "cuda"] {
        if !present.iter().any(|device| device.name.starts_with(kind))
            && let Err(error) = parse_device(kind)
        {
            say(&error.to_string());
        }
    }
    for line in &broken {
        say(line);
    }
    broken
}

/// `models` in the working folder, or else in the checkout from which this program was built.
fn models_folder() -> PathBuf {
    let here = PathBuf::from("models");
    if here.is_dir() {
        return here;
    }
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or(here.clone(), |checkout| checkout.join("models"))
}

fn generator(folder: &Path) -> Result<String> {
    let pipeline = StableDiffusionPipeline::load(&ModelFolder::new(folder), &Device::flex())?;
    let [_, height, width] = pipeline.latent_shape()?;
    Ok(format!(
        "generator, {} tokens, latents of {height} x {width}",
        pipeline.tokenizer.vocab_size()
    ))
}

fn encoder(kind: &EncoderKind, folder: &Path) -> Result<String> {
    let [height, width] = (kind.load)(folder, &Device::flex())?.input_size();
    Ok(format!("{}, images of {height} x {width}", kind.title))
}

fn segmenter(folder: &Path) -> Result<String> {
    let [height, width] = Segmenter::load(folder, &Device::flex())?.input_size()?;
    Ok(format!("CLIPSeg, images of {height} x {width}"))
}
