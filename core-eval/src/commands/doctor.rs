//! `core-eval doctor`: checks the devices and checkpoints of this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::Device;
use clap::Args;
use core_model::device::{Gpu, Present, difference_from_cpu, parse_device, present_devices};
use core_model::folder::ModelFolder;
use core_model::id_adapter::{ADAPTER, IdAdapterConfig, IdAdapterFolder};
use core_model::lora::LayerNames;
use core_model::ops::instruction_set;
use core_model::pipeline::StableDiffusionPipeline;
use core_train::run::environment::{built_revision, burn_version};
use serde::Serialize;

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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the program, the machine and the shipped checkpoints are.
#[derive(Debug, Serialize)]
struct Report {
    core_eval: &'static str,
    burn: Option<&'static str>,
    /// The revision of the sources that the program was built from.
    revision: Option<&'static str>,
    os: &'static str,
    architecture: &'static str,
    instruction_set: &'static str,
    threads: usize,
    devices: Vec<DeviceReport>,
    checkpoints: Vec<CheckpointReport>,
}

/// A device that is there or could be.
#[derive(Debug, Serialize)]
struct DeviceReport {
    name: String,
    /// None for a kind of device that is not there.
    adapter: Option<String>,
    gpu: Option<Gpu>,
    /// The largest difference from the cpu's results, relative to the largest value.
    difference_from_cpu: Option<f32>,
    usable: bool,
    /// What text output says.
    #[serde(skip)]
    line: String,
    /// Why it is not usable.
    problem: Option<String>,
}

/// A shipped checkpoint.
#[derive(Debug, Serialize)]
struct CheckpointReport {
    path: PathBuf,
    usable: bool,
    /// What it is, or why it is not usable.
    description: String,
}

/// Prints versions, devices and checkpoints.
///
/// # Errors
/// A variable that names no instruction set; a device or shipped checkpoint that does not work, after
/// everything was printed.
pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    parse_device("cpu")?;
    let models = args.models.clone().unwrap_or_else(models_folder);
    let report = Report {
        core_eval: env!("CARGO_PKG_VERSION"),
        burn: burn_version(),
        revision: built_revision(),
        os: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        instruction_set: instruction_set(),
        threads: cores(),
        devices: devices(),
        checkpoints: checkpoints(&models),
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?),
        false => report.print(),
    }
    let broken = report.broken(&models);
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("{}", broken.join("; ")),
    }
}

impl Report {
    fn print(&self) {
        say(&format!(
            "core-eval {}, burn {}, {} {}, {}, {} threads",
            self.core_eval,
            self.burn.unwrap_or("unknown"),
            self.os,
            self.architecture,
            self.instruction_set,
            self.threads,
        ));
        if let Some(revision) = self.revision {
            say(&format!("built from revision {revision}"));
        }
        self.devices.iter().for_each(|device| say(&device.line));
        for checkpoint in &self.checkpoints {
            let refused = if checkpoint.usable {
                ""
            } else {
                "cannot be used: "
            };
            let path = checkpoint.path.display();
            say(&format!("{path}: {refused}{}", checkpoint.description));
        }
    }

    /// Devices and checkpoints that are there and do not work.
    fn broken(&self, models: &Path) -> Vec<String> {
        let present = self
            .devices
            .iter()
            .filter(|device| device.adapter.is_some());
        let mut broken: Vec<String> = present
            .filter_map(|device| device.problem.clone())
            .collect();
        let unusable = self
            .checkpoints
            .iter()
            .filter(|checkpoint| !checkpoint.usable);
        let unusable: Vec<String> = unusable
            .map(|checkpoint| {
                let name = checkpoint.path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            })
            .collect();
        if !unusable.is_empty() {
            broken.push(format!(
                "{} cannot be used; restore {} from the repository or train again with `core-train \
                 pretrain`",
                unusable.join(", "),
                models.display()
            ));
        }
        broken
    }
}

/// Opens every shipped checkpoint.
fn checkpoints(models: &Path) -> Vec<CheckpointReport> {
    let mut all = Vec::new();
    let mut add = |name: &str, what: Result<String>| {
        let path = models.join(name);
        all.push(CheckpointReport {
            path,
            usable: what.is_ok(),
            description: what.unwrap_or_else(|error| format!("{error:#}")),
        });
    };
    let base = load_generator(&models.join("mini"));
    add(
        "mini",
        base.as_ref()
            .map_or_else(|error| Err(anyhow!("{error:#}")), generator),
    );
    for kind in EncoderKind::all() {
        let name = format!("mini-{}", kind.key);
        let folder = models.join(&name);
        if kind.required || folder.exists() {
            add(&name, encoder(kind, &folder));
        }
    }
    add("mini-clipseg", segmenter(&models.join("mini-clipseg")));
    for name in adapters(models) {
        add(&name, adapter(&models.join(&name), base.as_ref().ok()));
    }
    all
}

/// Differences below this share of the largest value are rounding.
const ROUNDING: f32 = 1e-3;

/// Every device, after comparing its results with those of the CPU, and every kind that is not there.
fn devices() -> Vec<DeviceReport> {
    let present = present_devices();
    let mut all: Vec<DeviceReport> = present.iter().map(device).collect();
    for kind in ["wgpu", "cuda"] {
        if !present.iter().any(|device| device.name.starts_with(kind))
            && let Err(error) = parse_device(kind)
        {
            all.push(DeviceReport {
                name: kind.into(),
                adapter: None,
                gpu: None,
                difference_from_cpu: None,
                usable: false,
                line: error.to_string(),
                problem: Some(error.to_string()),
            });
        }
    }
    all
}

fn device(present: &Present) -> DeviceReport {
    let Present {
        name,
        adapter,
        device,
    } = present;
    let difference = difference_from_cpu(name, device);
    let gpu = Gpu::of(device);
    let driver = gpu.as_ref().and_then(|gpu| gpu.driver.as_ref());
    let driver = driver.map_or(String::new(), |driver| format!(", driver {driver}"));
    let line = match &difference {
        Ok(_) if name == "cpu" => Ok(format!("device {name}: present ({adapter})")),
        Ok(off) if *off < ROUNDING => Ok(format!(
            "device {name}: present ({adapter}{driver}), results equal the cpu's within {off:.0e}"
        )),
        Ok(off) => Err(format!(
            "device {name} ({adapter}): its results differ from the cpu's by {off:.0e} of the largest \
             value; update its driver or use another device"
        )),
        Err(error) => Err(error.to_string()),
    };
    DeviceReport {
        name: name.clone(),
        adapter: Some(adapter.clone()),
        gpu,
        difference_from_cpu: difference.ok(),
        usable: line.is_ok(),
        problem: line.as_ref().err().cloned(),
        line: line.unwrap_or_else(|problem| problem),
    }
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

fn load_generator(folder: &Path) -> Result<StableDiffusionPipeline> {
    let folder = ModelFolder::new(folder);
    Ok(StableDiffusionPipeline::load(&folder, &Device::flex())?)
}

fn generator(pipeline: &StableDiffusionPipeline) -> Result<String> {
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

/// The names of the folders of tuning-free encoders.
fn adapters(models: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(models).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().join(ADAPTER).is_file());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Loads a tuning-free encoder; it has to fit the generator, where that can be used.
fn adapter(folder: &Path, base: Option<&StableDiffusionPipeline>) -> Result<String> {
    let folder = IdAdapterFolder::open(folder)?;
    let (kind, device) = (folder.config(), Device::flex());
    let load = || -> core_model::Result<()> {
        match kind {
            IdAdapterConfig::PhotoMaker(_) => folder.photomaker(&device).map(drop)?,
            IdAdapterConfig::Face2Diffusion(_) => folder.face2diffusion(&device).map(drop)?,
        }
        let Some(base) = base else { return Ok(()) };
        folder.check_base(&base.model)?;
        if let IdAdapterConfig::PhotoMaker(_) = kind {
            folder.lora(&LayerNames::of_model(&base.model))?;
        }
        Ok(())
    };
    load().with_context(|| kind.to_string())?;
    let fits = match base {
        Some(_) => "fits mini",
        None => "not compared with mini, which cannot be used",
    };
    Ok(format!("{kind}, {fits}"))
}
