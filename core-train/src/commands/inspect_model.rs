//! `core-train model inspect`: prints what a folder, file or repository holds and how much memory it
//! needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use core_model::Network;
use core_model::checkpoint::{Checkpoint, canonical};
use core_model::files::read_to_string;
use core_model::network::{DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::original_layout;
use core_model::source::{EncoderSource, ModelSource, is_repository};
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::{SampleSize, UNet2DConditionConfig};
use core_model::vae::VaeConfig;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::say;
use core_train::adapters::AdapterConfig;
use core_train::cost::memory::{ModelSizes, StepSizes};

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

    fn describe(&self) -> String {
        let parts: Vec<&str> = self.by_dtype.keys().map(String::as_str).collect();
        format!(
            "{:.1} M parameters, {}",
            self.parameters() as f64 / 1e6,
            parts.join(" and ")
        )
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
        return one_file(args);
    }
    let folder = folder(path, variant)?;
    if folder.join("model_index.json").is_file() {
        return model(args, &folder);
    }
    ensure!(
        folder.join("config.json").is_file(),
        "{}: has neither model_index.json nor config.json, so it is not the folder of a model or of \
         one of its networks",
        folder.display()
    );
    network(&folder, variant)
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
fn model(args: &InspectArgs, folder: &Path) -> Result<()> {
    let variant = args.variant.as_deref();
    let index: Value = read(&folder.join("model_index.json"))?;
    let class = index["_class_name"].as_str().unwrap_or("no class");
    say(&format!(
        "{}: text-to-image model in the layout of diffusers, {class}",
        folder.display()
    ));
    let weights = [
        ("text_encoder", TRANSFORMERS_WEIGHTS),
        ("unet", DIFFUSERS_WEIGHTS),
        ("vae", DIFFUSERS_WEIGHTS),
    ]
    .map(|(part, name)| Weights::open(folder, part, name, variant));
    let [text_weights, unet_weights, vae_weights] = weights;
    let (text_weights, unet_weights, vae_weights) = (text_weights?, unet_weights?, vae_weights?);
    let sizes = ModelSizes {
        unet: UNet2DConditionConfig::from_file(&folder.join("unet/config.json"))?,
        vae: VaeConfig::from_file(&folder.join("vae/config.json"))?,
        text_encoder: TextEncoder::read_config(&folder.join("text_encoder/config.json"))?,
        parameters: text_weights.parameters()
            + unet_weights.parameters()
            + vae_weights.parameters(),
    };
    networks(&sizes, [&text_weights, &unet_weights, &vae_weights]);
    let tokenizer = Tokenizer::from_dir(&folder.join("tokenizer"))?.fit(&sizes.text_encoder)?;
    say(&format!(
        "tokenizer: {} tokens, prompts of {}",
        tokenizer.vocab_size(),
        tokenizer.context_length()
    ));
    let scheduler = SchedulerConfig::of_model(folder)?;
    let own = match SchedulerKind::of(&scheduler) {
        Ok(kind) => format!("sampled with {}", kind.name()),
        Err(_) => "which is not implemented; name another with --scheduler".into(),
    };
    let config: Value = read(&folder.join("scheduler/scheduler_config.json"))?;
    let prediction = config["prediction_type"].as_str().unwrap_or("epsilon");
    say(&format!(
        "scheduler: {}, {own}; the U-Net predicts {prediction}",
        scheduler.class_name()
    ));
    memory(args, &sizes, &[text_weights, unet_weights, vae_weights]);
    Ok(())
}

/// A one-file checkpoint.
fn one_file(args: &InspectArgs) -> Result<()> {
    let path = &args.path;
    let contents = original_layout::contents(path)?;
    say(&format!(
        "{}: one-file checkpoint in the original layout, {}",
        path.display(),
        contents.family
    ));
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
    networks(&sizes, weights.each_ref());
    say(&match contents.prediction {
        Some(prediction) => format!("the U-Net predicts {}", prediction.name()),
        None => "the file does not say what its U-Net predicts; set --prediction-type or \
                 model.prediction_type"
            .into(),
    });
    memory(args, &sizes, &weights);
    Ok(())
}

/// One network's folder.
fn network(folder: &Path, variant: Option<&str>) -> Result<()> {
    let config: Value = read(&folder.join("config.json"))?;
    let text = |key: &str| config[key].as_str();
    let class = text("_class_name")
        .or(text("model_type"))
        .or(config["architectures"][0].as_str());
    let class = class.unwrap_or("a network without a name in its config.json");
    let name = match config.get("_class_name") {
        Some(_) => DIFFUSERS_WEIGHTS,
        None => TRANSFORMERS_WEIGHTS,
    };
    let weights = Weights::open(folder, "", name, variant)?;
    say(&format!(
        "{}: {class}, {}",
        folder.display(),
        weights.describe()
    ));
    let facts = config.as_object().into_iter().flatten();
    for (key, value) in facts.filter(|(key, value)| !key.starts_with('_') && !value.is_object()) {
        say(&format!("  {key}: {value}"));
    }
    Ok(())
}

fn networks(sizes: &ModelSizes, [text, unet, vae]: [&Weights; 3]) {
    let config = &sizes.text_encoder;
    say(&format!(
        "text encoder: {}; {} layers of {}, {} heads, {}",
        text.describe(),
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.hidden_act.name(),
    ));
    let config = &sizes.unet;
    let side = config.sample_size.map_or(String::new(), |side| {
        format!(
            ", trained on latents of {} x {}",
            side.width(),
            side.height()
        )
    });
    let heads = (0..config.block_out_channels.len()).filter_map(|level| config.heads(level));
    say(&format!(
        "U-Net: {}; channels {:?}, heads {:?}, prompts of width {}{side}",
        unet.describe(),
        config.block_out_channels,
        heads.collect::<Vec<_>>(),
        config.cross_attention_dim.at(0).unwrap_or(0),
    ));
    let config = &sizes.vae;
    say(&format!(
        "autoencoder: {}; channels {:?}, latents of {} channels, scaling factor {}",
        vae.describe(),
        config.block_out_channels,
        config.latent_channels,
        config.scaling_factor,
    ));
}

fn memory(args: &InspectArgs, sizes: &ModelSizes, weights: &[Weights; 3]) {
    let factor = 1 << sizes.vae.block_out_channels.len().saturating_sub(1);
    let own = sizes.unet.sample_size.unwrap_or(SampleSize::Square(64));
    let own = [own.width(), own.height()].map(|side| side as u64 * factor);
    let size = args.resolution.map_or(own, |side| [side; 2]);
    let ([width, height], batch) = (size, args.batch_size);
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    say(&format!(
        "memory in float32 for batches of {batch}, {width} x {height} pixels (estimated; --dry-run measures):"
    ));
    say(&format!(
        "  generate: {}",
        gib(sizes.generation(batch, size))
    ));
    let line = |what: &str, step: StepSizes| {
        let needed = |checkpointing| {
            gib(sizes.training(
                StepSizes {
                    checkpointing,
                    ..step
                },
                size,
            ))
        };
        say(&format!(
            "  train {what}: {}; {} with gradient_checkpointing",
            needed(false),
            needed(true)
        ));
    };
    let step = StepSizes {
        batch,
        attention: false,
        embedding: true,
        trained: 0,
        checkpointing: false,
    };
    line("embedding", step);
    let with_terms = StepSizes {
        attention: true,
        ..step
    };
    line("embedding with context_attention", with_terms);
    for kind in AdapterConfig::KINDS
        .iter()
        .filter(|kind| **kind != "embedding")
    {
        let trained = weights.iter().filter_map(|part| part.by_set.get(kind));
        let step = StepSizes {
            embedding: weights[0].by_set.contains_key(kind),
            trained: trained.sum(),
            ..step
        };
        line(kind, step);
    }
}
