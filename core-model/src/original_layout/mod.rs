//! One-file checkpoints of Stable Diffusion 1.x and 2.x in the layout of the original code
//! (`model.diffusion_model.…`, `first_stage_model.…`, `cond_stage_model.…`), and the model folder
//! that they become.
//!
//! The file holds tensors alone: the sizes of the networks are read off their shapes, everything
//! else is what CompVis and Stability AI trained with.

mod header;
mod keys;

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};

use crate::checkpoint::Checkpoint;
use crate::config::write_json;
use crate::error::{Error, Result};
use crate::files::{NewFolder, write_atomically};
use crate::folder::ModelFolder;
use crate::model_index::kind_by_channels;
use crate::network::Network;
use crate::noise_scheduler::PredictionType;
use crate::params::ParamBuilder;
use crate::pipeline::StableDiffusionPipeline;
use crate::precision::Precision;
use crate::text_encoder::{TextEncoder, TextEncoderConfig};
use crate::unet::{
    DownBlockType, PerLevel, SampleSize, UNet2DConditionConfig, UNet2DConditionModel, UpBlockType,
};
use crate::vae::{AutoencoderKl, VaeConfig};
use crate::vit::Activation;
use header::{Header, TextTower};
use keys::OpenClip;

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const CLIP: &str = "cond_stage_model.transformer.";
const OPEN_CLIP: &str = "cond_stage_model.model.";

/// CLIP's vocabulary, which the files do not hold.
const VOCABULARY: [(&str, &[u8]); 2] = [
    (
        "vocab.json",
        include_bytes!("../../assets/clip-tokenizer/vocab.json"),
    ),
    (
        "merges.txt",
        include_bytes!("../../assets/clip-tokenizer/merges.txt"),
    ),
];

/// Writes the model folder of a one-file checkpoint, in the layout of diffusers.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a file of another family, with tensors of no known name or
/// without those that a model needs; [`Error::Invalid`] when the file may be of either prediction
/// and none was given, or the folder exists.
pub fn import(
    file: &Path,
    out: &Path,
    prediction: Option<PredictionType>,
    precision: Precision,
    device: &Device,
) -> Result<()> {
    NewFolder::check(out)?;
    let header = Header::read(file)?;
    let kind = header.tower;
    let prediction = prediction.or(header.prediction).ok_or_else(|| {
        Error::Invalid(format!(
            "{}: is a Stable Diffusion 2.x model, whose file does not tell what it predicts; name \
             (--prediction-type, model.prediction_type) epsilon for 512 pixel models (2.0-base, \
             2.1-base), v_prediction for 768 pixel models (2.0, 2.1)",
            file.display()
        ))
    })?;
    let folder = NewFolder::begin(out)?;
    let made = folder.path();
    unet(file, &header, device)?.save(&made.join("unet"), precision)?;
    vae(file, &header, device)?.save(&made.join("vae"), precision)?;
    let text_encoder = text_encoder(file, kind, device)?;
    text_encoder.save(&made.join("text_encoder"), precision)?;
    write_tokenizer(&made.join("tokenizer"), kind)?;
    let scheduler = made.join("scheduler/scheduler_config.json");
    write_json(
        &scheduler,
        &scheduler_config(prediction, header.zero_terminal_snr),
    )?;
    write_json(&made.join("model_index.json"), &model_index())?;
    StableDiffusionPipeline::load(&ModelFolder::new(made), device)?;
    folder.finish()
}

fn missing(file: &Path, key: &str) -> Error {
    let reason = format!("tensor `{key}` is missing; the file is not a complete model");
    Error::format(file, reason)
}

/// The shape of a tensor that every file of the family has.
fn shape(part: &Checkpoint, key: &str) -> Result<Vec<usize>> {
    let info = part.info(key);
    let info = info.ok_or_else(|| missing(part.path(), key))?;
    Ok(info.shape.clone())
}

/// One number of a shape.
fn size(part: &Checkpoint, key: &str, dimension: usize) -> Result<usize> {
    let shape = shape(part, key)?;
    let size = shape.get(dimension).copied();
    size.ok_or_else(|| {
        let reason = format!("tensor `{key}` has shape {shape:?}");
        Error::format(part.path(), reason)
    })
}

/// The sizes of a file's networks, read off its header.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The noise predictor.
    pub unet: UNet2DConditionConfig,
    /// The autoencoder.
    pub vae: VaeConfig,
    /// The text encoder.
    pub text_encoder: TextEncoderConfig,
    /// `Stable Diffusion 1.x` or `2.x`.
    pub family: &'static str,
    /// What the U-Net predicts; absent where a file of 2.x does not tell.
    pub prediction: Option<PredictionType>,
}

/// What a file holds.
///
/// # Errors
/// As [`import`], for what the header tells.
pub fn contents(file: &Path) -> Result<Contents> {
    let header = Header::read(file)?;
    let kind = header.tower;
    Ok(Contents {
        unet: unet_config(&open_unet(file, &header)?, &header)?,
        vae: vae_config(&open_vae(file, &header)?)?,
        text_encoder: text_encoder_config(&open_text_encoder(file, kind)?, kind)?,
        family: match kind {
            TextTower::Clip => "Stable Diffusion 1.x",
            TextTower::OpenClip => "Stable Diffusion 2.x",
        },
        prediction: header.prediction,
    })
}

fn open_unet(file: &Path, header: &Header) -> Result<Checkpoint> {
    let blocks = header.counts.unet_blocks;
    Checkpoint::open(file, |key| keys::unet(key.strip_prefix(UNET)?, blocks))
}

fn unet(file: &Path, header: &Header, device: &Device) -> Result<UNet2DConditionModel> {
    let part = open_unet(file, header)?;
    let config = unet_config(&part, header)?;
    UNet2DConditionModel::new(&config, &ParamBuilder::from_checkpoint(part, device))
}

fn unet_config(part: &Checkpoint, header: &Header) -> Result<UNet2DConditionConfig> {
    let has = |key: &str| part.info(key).is_some();
    let mut channels = Vec::new();
    let (mut down, mut up) = (Vec::new(), Vec::new());
    while has(&format!(
        "down_blocks.{}.resnets.0.conv1.weight",
        channels.len()
    )) {
        let level = channels.len();
        let key = format!("down_blocks.{level}.resnets.0.conv1.weight");
        channels.push(size(part, &key, 0)?);
        let attends = has(&format!("down_blocks.{level}.attentions.0.norm.weight"));
        down.push(match attends {
            true => DownBlockType::CrossAttnDownBlock2D,
            false => DownBlockType::DownBlock2D,
        });
        up.push(match attends {
            true => UpBlockType::CrossAttnUpBlock2D,
            false => UpBlockType::UpBlock2D,
        });
    }
    up.reverse();
    let attention = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let context = size(part, attention, 1)?;
    let projection = shape(part, "mid_block.attentions.0.proj_in.weight")?;
    let depth = counted(part, |n| {
        format!("mid_block.attentions.0.transformer_blocks.{n}.norm1.weight")
    });
    let heads = match header.tower {
        TextTower::Clip => PerLevel::All(8),
        TextTower::OpenClip => PerLevel::Each(channels.iter().map(|c| c.div_ceil(64)).collect()),
    };
    let in_channels = size(part, "conv_in.weight", 1)?;
    if let Some(kind) = kind_by_channels(in_channels) {
        let reason = format!("is {kind}; expected a text-to-image model");
        return Err(Error::format(part.path(), reason));
    }
    let config = UNet2DConditionConfig {
        sample_size: Some(SampleSize::Square(64)),
        in_channels,
        out_channels: size(part, "conv_out.weight", 0)?,
        down_block_types: down,
        up_block_types: up,
        block_out_channels: channels,
        layers_per_block: PerLevel::All(header.counts.unet_blocks),
        cross_attention_dim: PerLevel::All(context),
        transformer_layers_per_block: PerLevel::All(depth),
        attention_head_dim: heads,
        use_linear_projection: projection.len() == 2,
        ..UNet2DConditionConfig::default()
    };
    config.check().map_err(|(key, value, expected)| {
        let reason = format!("its shapes say `{key}` {value}, expected {expected}");
        Error::format(part.path(), reason)
    })?;
    Ok(config)
}

fn open_vae(file: &Path, header: &Header) -> Result<Checkpoint> {
    let levels = header.counts.vae_levels;
    Checkpoint::open(file, |key| keys::vae(key.strip_prefix(VAE)?, levels))
}

fn vae(file: &Path, header: &Header, device: &Device) -> Result<AutoencoderKl> {
    let part = open_vae(file, header)?;
    let config = vae_config(&part)?;
    AutoencoderKl::new(&config, &ParamBuilder::from_checkpoint(part, device))
}

fn vae_config(part: &Checkpoint) -> Result<VaeConfig> {
    let mut channels = Vec::new();
    loop {
        let key = format!(
            "encoder.down_blocks.{}.resnets.0.conv1.weight",
            channels.len()
        );
        if part.info(&key).is_none() {
            break;
        }
        channels.push(size(part, &key, 0)?);
    }
    let block = |n: usize| format!("encoder.down_blocks.0.resnets.{n}.conv1.weight");
    Ok(VaeConfig {
        down_block_types: vec![crate::vae::DownBlockType::DownEncoderBlock2D; channels.len()],
        up_block_types: vec![crate::vae::UpBlockType::UpDecoderBlock2D; channels.len()],
        block_out_channels: channels,
        layers_per_block: counted(part, block),
        latent_channels: size(part, "post_quant_conv.weight", 0)?,
        sample_size: 512,
        ..VaeConfig::default()
    })
}

fn open_text_encoder(file: &Path, kind: TextTower) -> Result<Checkpoint> {
    match kind {
        TextTower::Clip => Checkpoint::open(file, |key| {
            let key = key.strip_prefix(CLIP)?;
            // Older tools write these keys without the `text_model.` prefix.
            crate::checkpoint::canonical(key.strip_prefix("text_model.").unwrap_or(key))
        }),
        TextTower::OpenClip => open_clip(file),
    }
}

fn text_encoder(file: &Path, kind: TextTower, device: &Device) -> Result<TextEncoder> {
    let part = open_text_encoder(file, kind)?;
    let config = text_encoder_config(&part, kind)?;
    TextEncoder::new(&config, &ParamBuilder::from_checkpoint(part, device))
}

fn text_encoder_config(part: &Checkpoint, kind: TextTower) -> Result<TextEncoderConfig> {
    let width = size(part, "embeddings.token_embedding.weight", 1)?;
    Ok(TextEncoderConfig {
        vocab_size: size(part, "embeddings.token_embedding.weight", 0)?,
        hidden_size: width,
        intermediate_size: size(part, "encoder.layers.0.mlp.fc1.weight", 0)?,
        num_hidden_layers: layers(part),
        num_attention_heads: width.div_ceil(64),
        max_position_embeddings: size(part, "embeddings.position_embedding.weight", 0)?,
        hidden_act: match kind {
            TextTower::Clip => Activation::QuickGelu,
            TextTower::OpenClip => Activation::Gelu,
        },
        projection_dim: width,
        ..TextEncoderConfig::default()
    })
}

/// How many layers a text tower has.
fn layers(part: &Checkpoint) -> usize {
    counted(part, |n| format!("encoder.layers.{n}.layer_norm1.weight"))
}

/// How many of the keys for 0, 1, .. there are, without a gap.
fn counted(part: &Checkpoint, key: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|n| part.info(&key(*n)).is_some()).count()
}

/// OpenCLIP's text tower has 24 layers, and Stable Diffusion 2.x reads the last but one. Some
/// tools leave the last one out of their files.
const OPEN_CLIP_LAYERS: usize = 23;

/// OpenCLIP's text tower as far as it is read.
fn open_clip(file: &Path) -> Result<Checkpoint> {
    let mut part = Checkpoint::open(file, |key| {
        match keys::open_clip(key.strip_prefix(OPEN_CLIP)?)? {
            OpenClip::Renamed(name) => Some(name.strip_prefix("text_model.")?.to_string()),
            OpenClip::QueryKeyValue(layer, kind) => {
                let layer = layer.strip_prefix("text_model.")?;
                Some(format!("{layer}.in_proj.{kind}"))
            }
            OpenClip::Unused => None,
        }
    })?;
    let count = layers(&part);
    if count == 0 {
        return Err(missing(file, "transformer.resblocks.0.ln_1.weight"));
    }
    for unused in OPEN_CLIP_LAYERS..count {
        part.remove_below(&format!("encoder.layers.{unused}."));
    }
    for layer in 0..count.min(OPEN_CLIP_LAYERS) {
        for kind in ["weight", "bias"] {
            let place = format!("encoder.layers.{layer}");
            let names = ["q", "k", "v"].map(|name| format!("{place}.self_attn.{name}_proj.{kind}"));
            part.split_rows(&format!("{place}.in_proj.{kind}"), &names)?;
        }
    }
    Ok(part)
}

fn write_tokenizer(folder: &Path, kind: TextTower) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for (name, bytes) in VOCABULARY {
        write_atomically(&folder.join(name), bytes)?;
    }
    let (begin, end) = ("<|startoftext|>", "<|endoftext|>");
    // 2.x fills prompts up with exclamation marks, the token 0.
    let pad = match kind {
        TextTower::Clip => end,
        TextTower::OpenClip => "!",
    };
    let special = json!({
        "bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": pad,
    });
    write_json(&folder.join("special_tokens_map.json"), &special)?;
    let mut config = special;
    config["tokenizer_class"] = json!("CLIPTokenizer");
    config["model_max_length"] = json!(77);
    config["do_lower_case"] = json!(true);
    write_json(&folder.join("tokenizer_config.json"), &config)
}

/// The schedule of all these models.
fn scheduler_config(prediction: PredictionType, zero_terminal_snr: bool) -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": false,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        // Without signal at its end a schedule must be sampled from there.
        "timestep_spacing": if zero_terminal_snr { "trailing" } else { "leading" },
        "rescale_betas_zero_snr": zero_terminal_snr,
        "prediction_type": prediction.name(),
    })
}

fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}
