//! `core-train model inspect`: prints what a folder, file or repository holds and how much memory it
//! needs.

mod memory;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use core_model::Network;
use core_model::checkpoint::{Checkpoint, canonical};
use core_model::files::read_to_string;
use core_model::id_adapter::{ADAPTER, IdAdapterFolder};
use core_model::network::{DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::original_layout;
use core_model::source::{EncoderSource, ModelSource, is_repository};
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::UNet2DConditionConfig;
use core_model::vae::VaeConfig;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::print_report;
use core_train::adapters::AdapterConfig;
use core_train::cost::memory::ModelSizes;
use report::{
    AdapterReport, Layout, ModelReport, Networks, Scheduler, SingleNetwork, TokenizerReport,
};

/// Arguments of `core-train model inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model folder, folder of one network, one-file checkpoint, or repository of the hub
    path: PathBuf,
    /// Variant of the weights, as fp16 for model.fp16.safetensors
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Images per batch, for the memory estimates
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    batch_size: u64,
    /// Side of the images in pixels, for the memory estimates [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(8..=8192))]
    resolution: Option<u64>,
    /// Print one JSON object; memory is in bytes
    #[arg(long)]
    json: bool,
}

/// The number of parameters of one network, by number format.
#[derive(Debug, Default)]
struct Weights {
    by_dtype: BTreeMap<String, u64>,
    /// The number of parameters in each set of weights.
    by_set: BTreeMap<&'static str, u64>,
}

impl Weights {
    /// The weights below `prefix`, which are those of the network `part`.
    fn of(checkpoint: &Checkpoint, prefix: &str, part: &str) -> Self {
        let mut weights = Self::default();
        for key in checkpoint.keys().filter(|key| key.starts_with(prefix)) {
            let Some(info) = checkpoint.info(key) else {
                continue;
            };
            let count: u64 = info.shape.iter().map(|n| *n as u64).product();
            let dtype = format!("{:?}", info.dtype);
            *weights.by_dtype.entry(dtype).or_default() += count;
            let name = format!("{part}.{key}");
            for set in sets().filter(|set| set.adapter().moves(&name)) {
                *weights.by_set.entry(set.kind()).or_default() += count;
            }
        }
        weights
    }

    fn open(folder: &Path, part: &str, name: &str, variant: Option<&str>) -> Result<Self> {
        let folder = folder.join(part);
        let checkpoint = Checkpoint::open_weights(&folder, name, variant, canonical)?;
        Ok(Self::of(&checkpoint, "", part))
    }

    fn parameters(&self) -> u64 {
        self.by_dtype.values().sum()
    }

    fn dtypes(&self) -> Vec<String> {
        self.by_dtype.keys().cloned().collect()
    }
}

/// The sets of weights with the defaults of their keys.
fn sets() -> impl Iterator<Item = AdapterConfig> {
    let kinds = AdapterConfig::KINDS.iter();
    kinds.filter_map(|kind| AdapterConfig::named(kind))
}

/// Prints what the path holds.
///
/// # Errors
/// A path that does not exist, damaged files, or an unknown architecture.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let (path, variant) = (&args.path, args.variant.as_deref());
    if path.is_file() {
        return print_report(args.json, &one_file(args)?, ModelReport::lines);
    }
    let folder = folder(path, variant)?;
    if folder.join("model_index.json").is_file() {
        return print_report(args.json, &model(args, &folder)?, ModelReport::lines);
    }
    if folder.join(ADAPTER).is_file() {
        return print_report(args.json, &adapter(&folder)?, AdapterReport::lines);
    }
    ensure!(
        folder.join("config.json").is_file(),
        "{}: has neither model_index.json nor config.json nor adapter.json, so it is not the folder of a \
         model, of one of its networks or of a tuning-free encoder",
        folder.display()
    );
    print_report(args.json, &network(&folder, variant)?, SingleNetwork::lines)
}

/// The folder of a model or of an encoder.
fn folder(path: &Path, variant: Option<&str>) -> core_model::Result<PathBuf> {
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let model = ModelSource {
        variant: variant.map(str::to_string),
        ..ModelSource::from(path.to_path_buf())
    };
    match model.locate() {
        Ok(model) => Ok(model.path().to_path_buf()),
        // A repository holds a whole model or one encoder.
        Err(_) if is_repository(Path::new(""), path) => {
            let encoder = EncoderSource::from(path).locate()?;
            Ok(encoder.path().to_path_buf())
        }
        Err(error) => Err(error),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_to_string(path)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// A model folder.
fn model(args: &InspectArgs, folder: &Path) -> Result<ModelReport> {
    let variant = args.variant.as_deref();
    let index: Value = read(&folder.join("model_index.json"))?;
    let class = index["_class_name"].as_str().unwrap_or("no class");
    let weights = [
        ("text_encoder", TRANSFORMERS_WEIGHTS),
        ("unet", DIFFUSERS_WEIGHTS),
        ("vae", DIFFUSERS_WEIGHTS),
    ]
    .map(|(part, name)| Weights::open(folder, part, name, variant));
    let [text_encoder, unet, vae] = weights;
    let weights = [text_encoder?, unet?, vae?];
    let sizes = ModelSizes {
        unet: UNet2DConditionConfig::from_file(&folder.join("unet/config.json"))?,
        vae: VaeConfig::from_file(&folder.join("vae/config.json"))?,
        text_encoder: TextEncoder::read_config(&folder.join("text_encoder/config.json"))?,
        parameters: weights.iter().map(Weights::parameters).sum(),
    };
    let tokenizer = Tokenizer::from_dir(&folder.join("tokenizer"))?.fit(&sizes.text_encoder)?;
    let scheduler = SchedulerConfig::of_model(folder)?;
    let config: Value = read(&folder.join("scheduler/scheduler_config.json"))?;
    let prediction = config["prediction_type"].as_str().unwrap_or("epsilon");
    Ok(ModelReport {
        path: folder.to_path_buf(),
        layout: Layout::Diffusers,
        kind: class.to_string(),
        networks: Networks::new(&sizes, &weights),
        tokenizer: Some(TokenizerReport {
            tokens: tokenizer.vocab_size(),
            context_length: tokenizer.context_length(),
        }),
        scheduler: Some(Scheduler {
            class: scheduler.class_name().to_string(),
            sampler: SchedulerKind::of(&scheduler).ok(),
        }),
        prediction_type: Some(prediction.to_string()),
        memory: memory::estimate(args, &sizes, &weights),
    })
}

/// A one-file checkpoint.
fn one_file(args: &InspectArgs) -> Result<ModelReport> {
    let path = &args.path;
    let contents = original_layout::contents(path)?;
    let whole = Checkpoint::open(path, |key| Some(key.to_string()))?;
    let weights = [
        ("cond_stage_model.", "text_encoder"),
        ("model.diffusion_model.", "unet"),
        ("first_stage_model.", "vae"),
    ]
    .map(|(prefix, part)| Weights::of(&whole, prefix, part));
    let sizes = ModelSizes {
        unet: contents.unet,
        vae: contents.vae,
        text_encoder: contents.text_encoder,
        parameters: weights.iter().map(Weights::parameters).sum(),
    };
    Ok(ModelReport {
        path: path.clone(),
        layout: Layout::Original,
        kind: contents.family.to_string(),
        networks: Networks::new(&sizes, &weights),
        tokenizer: None,
        scheduler: None,
        prediction_type: contents.prediction.map(|kind| kind.name().to_string()),
        memory: memory::estimate(args, &sizes, &weights),
    })
}

/// The folder of a tuning-free encoder.
fn adapter(folder: &Path) -> Result<AdapterReport> {
    let adapter = IdAdapterFolder::open(folder)?;
    let mut weights = Vec::new();
    for file in adapter.weights()? {
        let checkpoint = Checkpoint::open(&file, |key| Some(key.to_string()))?;
        let name = file.strip_prefix(folder).unwrap_or(&file);
        let of_file = Weights::of(&checkpoint, "", "");
        weights.push((name.to_path_buf(), (&of_file).into()));
    }
    Ok(AdapterReport {
        path: folder.to_path_buf(),
        method: adapter.config().name(),
        what: adapter.config().to_string(),
        width: adapter.config().width(),
        image_size: adapter.config().image_size(),
        weights,
    })
}

/// One network's folder.
fn network(folder: &Path, variant: Option<&str>) -> Result<SingleNetwork> {
    let config: Map<String, Value> = read(&folder.join("config.json"))?;
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let architecture = config
        .get("architectures")
        .and_then(|names| names[0].as_str());
    let class = text("_class_name").or(text("model_type")).or(architecture);
    let class = class.unwrap_or("a network without a name in its config.json");
    let name = match config.get("_class_name") {
        Some(_) => DIFFUSERS_WEIGHTS,
        None => TRANSFORMERS_WEIGHTS,
    };
    let weights = Weights::open(folder, "", name, variant)?;
    Ok(SingleNetwork {
        path: folder.to_path_buf(),
        class: class.to_string(),
        weights: (&weights).into(),
        config,
    })
}
