//! What generation and training need in memory, computed from the sizes of the networks alone.
//! `--dry-run` measures instead; this answers before anything is loaded.

use core_model::text_encoder::TextEncoderConfig;
use core_model::unet::{DownBlockType, UNet2DConditionConfig, UpBlockType};
use core_model::vae::VaeConfig;

/// Bytes of a number.
const NUMBER: u64 = 4;

/// A model, as far as it decides about memory.
#[derive(Debug, Clone)]
pub struct ModelSizes {
    /// The noise predictor.
    pub unet: UNet2DConditionConfig,
    /// The autoencoder.
    pub vae: VaeConfig,
    /// The text encoder.
    pub text_encoder: TextEncoderConfig,
    /// Parameters of all networks.
    pub parameters: u64,
}

/// A training step, as far as it decides about memory.
#[derive(Debug, Clone, Copy)]
pub struct StepSizes {
    /// Photos of a forward pass.
    pub batch: u64,
    /// Whether a term compares attention, which doubles the batch and keeps probabilities.
    pub attention: bool,
    /// Whether the embedding is trained, so that the text encoder is on the tape.
    pub embedding: bool,
    /// Weights of the U-Net that are trained.
    pub trained: u64,
    /// Whether activations are computed again.
    pub checkpointing: bool,
}

/// Numbers that one part of the U-Net keeps for its backward pass, and those of its input.
#[derive(Debug, Clone, Copy)]
struct Part {
    kept: u64,
    input: u64,
}

impl ModelSizes {
    /// Bytes of drawing `batch` images of height x width pixels at once.
    pub fn generation(&self, batch: u64, [height, width]: [u64; 2]) -> u64 {
        let latents = self.latents([height, width]);
        let parts = self.parts(latents, false, true);
        let skips: u64 = parts.iter().map(|part| part.input).sum::<u64>() / 2;
        let largest = parts.iter().map(|part| part.kept).max().unwrap_or(0);
        let guided = 2 * batch * (skips + largest / 2);
        // The decoder's widest activations at full size, of which about four exist at a time.
        let channels = &self.vae.block_out_channels;
        let wide = channels.get(1).or(channels.first()).copied().unwrap_or(0) as u64;
        let decoding = 4 * wide * height * width;
        NUMBER * (self.parameters + guided.max(decoding))
    }

    /// Bytes of a training step on photos of height x width pixels.
    pub fn training(&self, step: StepSizes, size: [u64; 2]) -> u64 {
        let parts = self.parts(self.latents(size), step.attention, step.trained > 0);
        let kept: u64 = parts.iter().map(|part| part.kept).sum();
        let inputs: u64 = parts.iter().map(|part| part.input).sum();
        let largest = parts.iter().map(|part| part.kept).max().unwrap_or(0);
        let samples = step.batch * if step.attention { 2 } else { 1 };
        let activations = match step.checkpointing {
            true => samples * (inputs + 2 * largest),
            false => samples * kept,
        };
        let text = &self.text_encoder;
        let prompt = text.num_hidden_layers * text.max_position_embeddings;
        let prompt = prompt as u64 * (8 * text.hidden_size + 2 * text.intermediate_size) as u64;
        let prompts = match step.embedding {
            true => samples * prompt,
            false => 0,
        };
        // A gradient and AdamW's two moments for each trained weight.
        NUMBER * (self.parameters + 3 * step.trained + activations + prompts)
    }

    fn latents(&self, [height, width]: [u64; 2]) -> [u64; 2] {
        let factor = 1 << self.vae.block_out_channels.len().saturating_sub(1);
        [height / factor, width / factor]
    }

    /// The residual blocks and transformers of the U-Net for one sample.
    fn parts(&self, [height, width]: [u64; 2], attention: bool, trained: bool) -> Vec<Part> {
        let config = &self.unet;
        let levels = config.block_out_channels.len();
        let channels = |level: usize| config.block_out_channels[level] as u64;
        let pixels = |level: usize| (height >> level).max(1) * (width >> level).max(1);
        let layers = |level: usize| config.layers_per_block.at(level).unwrap_or(0);
        let resnet = |level: usize, inputs: u64| {
            let (input, output) = (inputs * pixels(level), channels(level) * pixels(level));
            // The inputs of both norms, and where weights are trained those of both convolutions and
            // what the second one gives.
            let kept = match trained {
                true => 2 * input + 3 * output,
                false => input + output,
            };
            Part { kept, input }
        };
        let transformer = |level: usize| {
            let input = channels(level) * pixels(level);
            let blocks = config.transformer_layers_per_block.at(level).unwrap_or(1) as u64;
            // Per block 8 before the feed-forward's activation, the inputs of the norms, and queries, keys
            // and values; where weights are trained also what every linear map reads.
            let mut kept = match trained {
                true => input * (3 + 24 * blocks),
                false => input * (2 + 15 * blocks),
            };
            if attention {
                let heads = config.heads(level).unwrap_or(1) as u64;
                let tokens = self.text_encoder.max_position_embeddings as u64;
                kept += 2 * blocks * heads * pixels(level) * tokens;
            }
            Part { kept, input }
        };
        let mut parts = Vec::new();
        let mut skips = vec![channels(0)];
        let mut inputs = channels(0);
        for (level, kind) in config.down_block_types.iter().enumerate() {
            for _ in 0..layers(level) {
                parts.push(resnet(level, inputs));
                if *kind == DownBlockType::CrossAttnDownBlock2D {
                    parts.push(transformer(level));
                }
                inputs = channels(level);
                skips.push(inputs);
            }
            if level + 1 < levels {
                skips.push(inputs);
            }
        }
        let middle = levels - 1;
        parts.extend([
            resnet(middle, inputs),
            transformer(middle),
            resnet(middle, inputs),
        ]);
        for (index, kind) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - index;
            for _ in 0..layers(level) + 1 {
                let skip = skips.pop().unwrap_or(0);
                parts.push(resnet(level, inputs + skip));
                if *kind == UpBlockType::CrossAttnUpBlock2D {
                    parts.push(transformer(level));
                }
                inputs = channels(level);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_model::unet::PerLevel;

    /// Stable Diffusion 2.1-base.
    fn model() -> ModelSizes {
        ModelSizes {
            unet: UNet2DConditionConfig {
                attention_head_dim: PerLevel::Each(vec![5, 10, 20, 20]),
                cross_attention_dim: PerLevel::All(1024),
                ..Default::default()
            },
            vae: VaeConfig {
                block_out_channels: vec![128, 256, 512, 512],
                ..Default::default()
            },
            text_encoder: TextEncoderConfig {
                hidden_size: 1024,
                intermediate_size: 4096,
                num_hidden_layers: 23,
                max_position_embeddings: 77,
                ..Default::default()
            },
            parameters: 1_290_000_000,
        }
    }

    fn gib(bytes: u64) -> f64 {
        bytes as f64 / f64::from(1 << 30)
    }

    /// Measured by `benchmarks/full_size.py` at 512 x 512.
    #[test]
    fn estimates_at_full_size_are_near_what_was_measured() {
        let model = model();
        let core = |checkpointing| {
            let step = StepSizes {
                batch: 1,
                attention: true,
                embedding: true,
                trained: 0,
                checkpointing,
            };
            gib(model.training(step, [512, 512]))
        };
        for (estimated, measured) in [
            (core(false), 7.53),
            (core(true), 5.97),
            (gib(model.generation(1, [512, 512])), 5.83),
        ] {
            let off = estimated / measured - 1.0;
            assert!(off.abs() < 0.15, "{estimated} GiB, measured {measured}");
        }
    }

    #[test]
    fn trained_weights_cost_three_times_their_size() {
        let model = model();
        let step = |trained| StepSizes {
            batch: 2,
            attention: false,
            embedding: false,
            trained,
            checkpointing: false,
        };
        let [few, more] = [1000, 2000].map(|n| model.training(step(n), [512, 512]));
        assert_eq!(more - few, 12_000);
    }
}
