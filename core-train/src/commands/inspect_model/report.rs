//! What is said of a model, as lines of text and as JSON.

use std::path::PathBuf;

use core_model::noise_scheduler::SchedulerKind;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Weights;
use super::memory::Memory;
use core_train::cost::memory::ModelSizes;

/// Who wrote the files of a model.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layout {
    /// A folder as diffusers writes it.
    Diffusers,
    /// One file as the original code writes it.
    Original,
}

/// A text-to-image model.
#[derive(Debug, Serialize)]
pub(super) struct ModelReport {
    pub(super) path: PathBuf,
    pub(super) layout: Layout,
    /// The class of the pipeline, or the family of a one-file checkpoint.
    pub(super) kind: String,
    #[serde(flatten)]
    pub(super) networks: Networks,
    /// None in one file, which contains no tokenizer.
    pub(super) tokenizer: Option<TokenizerReport>,
    pub(super) scheduler: Option<Scheduler>,
    /// None where the file does not say it.
    pub(super) prediction_type: Option<String>,
    pub(super) memory: Memory,
}

/// The three networks of a model.
#[derive(Debug, Serialize)]
pub(super) struct Networks {
    text_encoder: TextEncoderReport,
    unet: UnetReport,
    vae: VaeReport,
}

/// Parameters and the number formats in which they are stored.
#[derive(Debug, Serialize)]
pub(super) struct WeightsReport {
    parameters: u64,
    dtypes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TextEncoderReport {
    #[serde(flatten)]
    weights: WeightsReport,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    activation: &'static str,
}

#[derive(Debug, Serialize)]
struct UnetReport {
    #[serde(flatten)]
    weights: WeightsReport,
    channels: Vec<usize>,
    heads: Vec<usize>,
    cross_attention_dim: usize,
    /// Width and height of the latents that it was trained on.
    sample_size: Option<[usize; 2]>,
}

#[derive(Debug, Serialize)]
struct VaeReport {
    #[serde(flatten)]
    weights: WeightsReport,
    channels: Vec<usize>,
    latent_channels: usize,
    scaling_factor: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenizerReport {
    pub(super) tokens: usize,
    pub(super) context_length: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Scheduler {
    pub(super) class: String,
    /// None for one that is not implemented.
    pub(super) sampler: Option<SchedulerKind>,
}

/// One network of transformers or diffusers.
#[derive(Debug, Serialize)]
pub(super) struct SingleNetwork {
    pub(super) path: PathBuf,
    pub(super) class: String,
    #[serde(flatten)]
    pub(super) weights: WeightsReport,
    pub(super) config: Map<String, Value>,
}

/// A tuning-free encoder.
#[derive(Debug, Serialize)]
pub(super) struct AdapterReport {
    pub(super) path: PathBuf,
    pub(super) method: &'static str,
    /// The same and what follows, in words.
    #[serde(skip)]
    pub(super) what: String,
    /// Channels of what it makes, which are those of the base model's text encoder.
    pub(super) width: usize,
    /// Side of a photo, in pixels.
    pub(super) image_size: usize,
    /// What each of its files holds.
    pub(super) weights: Vec<(PathBuf, WeightsReport)>,
}

impl From<&Weights> for WeightsReport {
    fn from(weights: &Weights) -> Self {
        Self {
            parameters: weights.parameters(),
            dtypes: weights.dtypes(),
        }
    }
}

impl WeightsReport {
    fn describe(&self) -> String {
        let millions = self.parameters as f64 / 1e6;
        format!("{millions:.1} M parameters, {}", self.dtypes.join(" and "))
    }
}

impl Networks {
    /// `weights` are those of the text encoder, the U-Net and the autoencoder.
    pub(super) fn new(sizes: &ModelSizes, [text, unet, vae]: &[Weights; 3]) -> Self {
        let config = &sizes.text_encoder;
        let text_encoder = TextEncoderReport {
            weights: text.into(),
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            heads: config.num_attention_heads,
            activation: config.hidden_act.name(),
        };
        let config = &sizes.unet;
        let levels = 0..config.block_out_channels.len();
        let unet = UnetReport {
            weights: unet.into(),
            channels: config.block_out_channels.clone(),
            heads: levels.filter_map(|level| config.heads(level)).collect(),
            cross_attention_dim: config.cross_attention_dim.at(0).unwrap_or(0),
            sample_size: config.sample_size.map(|side| [side.width(), side.height()]),
        };
        let config = &sizes.vae;
        let vae = VaeReport {
            weights: vae.into(),
            channels: config.block_out_channels.clone(),
            latent_channels: config.latent_channels,
            scaling_factor: config.scaling_factor,
        };
        Self {
            text_encoder,
            unet,
            vae,
        }
    }

    fn lines(&self) -> [String; 3] {
        let (text, unet, vae) = (&self.text_encoder, &self.unet, &self.vae);
        let side = unet.sample_size.map_or(String::new(), |[width, height]| {
            format!(", trained on latents of {width} x {height}")
        });
        [
            format!(
                "text encoder: {}; {} layers of {}, {} heads, {}",
                text.weights.describe(),
                text.layers,
                text.hidden_size,
                text.heads,
                text.activation,
            ),
            format!(
                "U-Net: {}; channels {:?}, heads {:?}, prompts of width {}{side}",
                unet.weights.describe(),
                unet.channels,
                unet.heads,
                unet.cross_attention_dim,
            ),
            format!(
                "autoencoder: {}; channels {:?}, latents of {} channels, scaling factor {}",
                vae.weights.describe(),
                vae.channels,
                vae.latent_channels,
                vae.scaling_factor,
            ),
        ]
    }
}

impl ModelReport {
    pub(super) fn lines(&self) -> Vec<String> {
        let what = match self.layout {
            Layout::Diffusers => "text-to-image model in the layout of diffusers",
            Layout::Original => "one-file checkpoint in the original layout",
        };
        let mut lines = vec![format!("{}: {what}, {}", self.path.display(), self.kind)];
        lines.extend(self.networks.lines());
        if let Some(tokenizer) = &self.tokenizer {
            let (tokens, length) = (tokenizer.tokens, tokenizer.context_length);
            lines.push(format!("tokenizer: {tokens} tokens, prompts of {length}"));
        }
        let prediction = match &self.prediction_type {
            Some(prediction) => format!("the U-Net predicts {prediction}"),
            None => "the file does not say what its U-Net predicts; set --prediction-type or \
                     model.prediction_type"
                .into(),
        };
        lines.push(match &self.scheduler {
            Some(Scheduler { class, sampler }) => {
                let own = match sampler {
                    Some(kind) => format!("sampled with {}", kind.name()),
                    None => "which is not implemented; name another with --scheduler".into(),
                };
                format!("scheduler: {class}, {own}; {prediction}")
            }
            None => prediction,
        });
        lines.extend(self.memory.lines());
        lines
    }
}

impl AdapterReport {
    pub(super) fn lines(&self) -> Vec<String> {
        let what = format!(
            "{}: {}; a recipe names it below [adapter]",
            self.path.display(),
            self.what
        );
        let files = self.weights.iter();
        let files =
            files.map(|(file, weights)| format!("{}: {}", file.display(), weights.describe()));
        std::iter::once(what).chain(files).collect()
    }
}

impl SingleNetwork {
    pub(super) fn lines(&self) -> Vec<String> {
        let what = format!("{}, {}", self.class, self.weights.describe());
        let facts = self.config.iter();
        let facts = facts.filter(|(key, value)| !key.starts_with('_') && !value.is_object());
        let facts = facts.map(|(key, value)| format!("  {key}: {value}"));
        std::iter::once(format!("{}: {what}", self.path.display()))
            .chain(facts)
            .collect()
    }
}
