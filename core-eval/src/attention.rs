//! Where in an image the tokens of its prompt are attended to (the paper's Fig. 2 and 8): cross-attention
//! maps, means over layers, heads and timesteps.

use anyhow::{Context as _, Result};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::to_vec;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::standard_normal;
use core_model::unet::Probabilities;
use image::RgbImage;

use crate::metrics::dot;

/// Timesteps at which attention is read, evenly spaced over the schedule.
const TIMESTEPS: usize = 5;

/// An image of a prompt and the map of every token that the text encoder reads.
#[derive(Debug)]
pub(crate) struct AttentionMaps {
    /// The image that was drawn.
    pub(crate) image: RgbImage,
    /// Height and width of the maps.
    pub(crate) size: [usize; 2],
    /// The probabilities by position in the prompt, row by row.
    pub(crate) maps: Vec<Vec<f32>>,
}

/// Draws one image of a prompt from this noise, makes it noisy again, and reads how the pixels attend to
/// the tokens.
///
/// # Errors
/// A sampler that does not fit the model.
pub(crate) fn attention_maps(
    pipeline: &StableDiffusionPipeline,
    prompt: &str,
    noise: Vec<f32>,
    options: &SamplingOptions,
    device: &Device,
) -> Result<AttentionMaps> {
    let [channels, height, width] = pipeline.latent_shape()?;
    let shape = [1, channels, height, width];
    let noise = Tensor::<4>::from_data(TensorData::new(noise, shape), device);
    let prompts = [prompt.to_string()];
    let cond = pipeline.prompt_states(&prompts)?;
    let uncond = pipeline.negative_states(&[String::new()]);
    let latents = pipeline.sample(cond, uncond, noise, options, &mut |_| {})?;
    let image = pipeline.decode(latents.clone()).pop();
    let states = pipeline.encode_prompts(&prompts);
    let scheduler = DdpmScheduler::new(&pipeline.scheduler_config)?;
    let tokens = states.dims()[1];
    let mut sums = vec![vec![0.0; height * width]; tokens];
    let mut layers = 0;
    for number in 0..TIMESTEPS {
        let timestep = scheduler.num_train_timesteps() * (2 * number + 1) / (2 * TIMESTEPS);
        let values = standard_normal(
            0,
            "attention noise",
            number as u64,
            channels * height * width,
        );
        let noise = Tensor::from_data(TensorData::new(values, shape), device);
        let noisy = scheduler.add_noise(latents.clone(), noise, &[timestep]);
        let unet = pipeline.model.unet();
        let whole = Probabilities::Whole;
        let (_, maps) = unet.forward_some(noisy, &[timestep as f32], states.clone(), 0, whole);
        for map in maps {
            add(&mut sums, map, [height, width]);
            layers += 1;
        }
    }
    for value in sums.iter_mut().flatten() {
        *value /= layers.max(1) as f32;
    }
    Ok(AttentionMaps {
        image: image.context("an image was drawn")?,
        size: [height, width],
        maps: sums,
    })
}

/// Adds a layer's map [1, heads, pixels, tokens], enlarged to the size of the latents.
fn add(sums: &mut [Vec<f32>], map: Tensor<4>, [height, width]: [usize; 2]) {
    let [_, _, pixels, tokens] = map.dims();
    let values = to_vec(map.inner().mean_dim(1));
    let shrink = ((height * width) as f64 / pixels as f64).sqrt();
    let columns = (width as f64 / shrink).round() as usize;
    let rows = pixels / columns.max(1);
    for y in 0..height {
        for x in 0..width {
            let pixel = (y * rows / height) * columns + x * columns / width;
            for (token, sum) in sums.iter_mut().enumerate().take(tokens) {
                sum[y * width + x] += values[pixel * tokens + token];
            }
        }
    }
}

/// The word of the vocabulary whose input embedding is closest to that of another word, which it does not
/// begin with.
pub(crate) fn sibling(pipeline: &StableDiffusionPipeline, word: &str) -> Option<String> {
    let tokenizer = &pipeline.tokenizer;
    let encoder = pipeline.model.text_encoder();
    let encoding = tokenizer.encode(word);
    // The last token of a phrase says what the thing is.
    let id = encoding.ids[..encoding.length].iter().rev().nth(1)?;
    let ours = encoder.token_embedding(*id);
    let dim = ours.len();
    let table = to_vec(encoder.token_table());
    let length = |row: &[f32]| dot(row, row).sqrt().max(1e-12);
    let rows = (0..).zip(table.chunks_exact(dim));
    let candidates = rows.filter_map(|(other, row)| {
        let name = tokenizer.token(other);
        let plain = name.len() > 2 && name.bytes().all(|byte| byte.is_ascii_lowercase());
        let known = plain && !name.starts_with(word) && !word.contains(name.as_str());
        // A part of a word is written like a word, but is not read as one token.
        let encoding = known.then(|| tokenizer.encode(&name))?;
        let alone = encoding.length == 3 && encoding.ids[1] == other;
        alone.then(|| (name, dot(row, &ours) / (length(row) * length(&ours))))
    });
    Some(candidates.max_by(|a, b| a.1.total_cmp(&b.1))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_coarse_layers_are_enlarged_and_heads_averaged() {
        // Two heads, 2x2 pixels, one token; the latents have 4x4.
        let values = [0.0_f32, 0.2, 0.4, 0.6, 0.2, 0.4, 0.6, 0.8];
        let data = TensorData::new(values.to_vec(), [1, 2, 4, 1]);
        let map = Tensor::<4>::from_data(data, &Device::flex());
        let mut sums = vec![vec![0.0; 16]];
        add(&mut sums, map, [4, 4]);
        let expected = [
            0.1, 0.1, 0.3, 0.3, 0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.7, 0.7, 0.5, 0.5, 0.7, 0.7,
        ];
        for (value, expected) in sums[0].iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{sums:?}");
        }
    }
}
