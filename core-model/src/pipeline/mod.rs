//! From prompts to images: a Stable Diffusion folder, sampling and decoding.

mod guidance;

use std::path::Path;
use std::rc::Rc;

use burn::tensor::{Device, Tensor};
use image::RgbImage;

use crate::changed_weights::{self, CHANGED_WEIGHTS};
use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::folder::ModelFolder;
use crate::learned_embedding::LearnedEmbedding;
use crate::model_index;
use crate::neti::NetiMapper;
use crate::network::Network;
use crate::noise_scheduler::{SchedulerConfig, SchedulerKind};
use crate::params::{Weights, to_vec};
use crate::personalized::{PersonalizedModel, TEXT_ENCODER, UNET};
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::unet::UNet2DConditionModel;
use crate::vae::AutoencoderKl;
pub use guidance::PromptStates;
use guidance::{Guidance, SamplingStep};

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct SamplingOptions {
    /// The sampler; the checkpoint's own when absent.
    pub kind: Option<SchedulerKind>,
    /// The number of denoising steps.
    pub num_inference_steps: usize,
    /// How far each prediction is pushed from the negative prompt's to the prompt's; at 1 and
    /// below the negative prompt is not used.
    pub guidance_scale: f64,
}

/// The networks of a text-to-image model. Clones share their tensors.
#[derive(Debug, Clone)]
pub struct StableDiffusionPipeline {
    /// Text to token numbers.
    pub tokenizer: Tokenizer,
    /// The networks that learning a concept may change, and the concept, if there is one.
    pub model: PersonalizedModel,
    /// Images to latents and back.
    pub vae: AutoencoderKl,
    /// The checkpoint's noise schedule.
    pub scheduler_config: SchedulerConfig,
}

impl StableDiffusionPipeline {
    /// Loads a folder as diffusers' `StableDiffusionPipeline` writes it.
    ///
    /// # Errors
    /// What is missing, of another class, misshapen or does not fit together.
    pub fn load(model: &ModelFolder, device: &Device) -> Result<Self> {
        let (dir, weights) = (model.path(), model.weights());
        model_index::check(dir)?;
        let device = &device.clone().inner();
        let folder = dir.join("text_encoder");
        let text_encoder = TextEncoder::load_weights(&folder, weights, device)?;
        let tokenizer = Tokenizer::from_dir(&dir.join("tokenizer"))?;
        let tokenizer = tokenizer.fit(text_encoder.config())?;
        let folder = dir.join("unet");
        let unet = UNet2DConditionModel::load_weights(&folder, weights, device)?;
        let pipeline = Self {
            tokenizer,
            scheduler_config: SchedulerConfig::of_model(dir)?,
            model: PersonalizedModel::new(text_encoder, unet),
            vae: AutoencoderKl::load_weights(&dir.join("vae"), weights, device)?,
        };
        pipeline.check_fit(&folder)?;
        Ok(pipeline)
    }

    /// The same with the U-Net of another folder, such as a fine-tuned one: a whole network, or what training has
    /// [changed](crate::changed_weights) of the one of `base`, the model that this pipeline was loaded from.
    ///
    /// # Errors
    /// A folder that cannot be read, a U-Net of another model.
    pub fn with_unet_of(mut self, folder: &Path, base: &ModelFolder) -> Result<Self> {
        let unet = self.network_of(self.model.unet(), UNET, folder, base)?;
        self.model = self.model.with_unet(unet);
        self.check_fit(folder)?;
        Ok(self)
    }

    /// The same with the text encoder of another folder, such as a fine-tuned one, likewise.
    ///
    /// # Errors
    /// A folder that cannot be read, a text encoder of another model.
    pub fn with_text_encoder_of(mut self, folder: &Path, base: &ModelFolder) -> Result<Self> {
        let own = self.model.text_encoder();
        let text_encoder = self.network_of(own, TEXT_ENCODER, folder, base)?;
        let (found, expected) = (text_encoder.config(), own.config());
        for (key, found, expected) in [
            ("hidden_size", found.hidden_size, expected.hidden_size),
            ("vocab_size", found.vocab_size, expected.vocab_size),
        ] {
            if found != expected {
                return Err(Error::Config {
                    path: folder.join("config.json"),
                    key: key.to_string(),
                    value: found.to_string(),
                    expected: format!("{expected}; this text encoder belongs to another model"),
                });
            }
        }
        self.model = self.model.with_text_encoder(text_encoder);
        Ok(self)
    }

    /// The network of a folder that takes the place of this pipeline's `own`, which is a part of `base`.
    fn network_of<N: Network>(
        &self,
        own: &N,
        part: &str,
        folder: &Path,
        base: &ModelFolder,
    ) -> Result<N> {
        let changed = folder.join(CHANGED_WEIGHTS);
        if changed.is_file() {
            let digest = base.weights_digest(part, N::class(own.config()).weights())?;
            return changed_weights::load(own.clone(), &digest, &changed);
        }
        let weights = Weights {
            variant: None,
            ..base.weights()
        };
        N::load_weights(folder, weights, &self.device())
    }

    fn device(&self) -> Device {
        self.model.text_encoder().token_table().device()
    }

    /// Fails when the parts were not made for each other.
    fn check_fit(&self, unet: &Path) -> Result<()> {
        let config = self.model.unet().config();
        let refuse = |key: &str, value: usize, expected: String| Error::Config {
            path: unet.join("config.json"),
            key: key.to_string(),
            value: value.to_string(),
            expected: format!("{expected}; this U-Net belongs to another model"),
        };
        let width = self.model.text_encoder().config().hidden_size;
        let levels = 0..config.block_out_channels.len();
        let other = levels.filter_map(|level| config.cross_attention_dim.at(level));
        if let Some(other) = other.into_iter().find(|other| *other != width) {
            let expected = format!("the width of the text encoder, {width}");
            return Err(refuse("cross_attention_dim", other, expected));
        }
        let channels = self.vae.config().latent_channels;
        if config.in_channels != channels {
            let expected = format!("the channels of the VAE's latents, {channels}");
            return Err(refuse("in_channels", config.in_channels, expected));
        }
        Ok(())
    }

    /// Makes `token` stand for a learned concept in prompts.
    ///
    /// # Errors
    /// Vectors of another width than the text encoder's, or a token that exists already.
    pub fn add_concept(&mut self, embedding: &LearnedEmbedding, token: &str) -> Result<()> {
        let device = self.device();
        let model = self.model.clone().with_learned(embedding, &device)?;
        self.tokenizer
            .add_placeholder(token, embedding.num_vectors)?;
        self.model = model;
        Ok(())
    }

    /// Fails when `prompt` is too long and its end, which is cut off, holds the placeholder
    /// `token`; says whether anything is cut off at all.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the prompt and the limit.
    pub fn check_prompt(&self, prompt: &str, token: Option<(&str, usize)>) -> Result<bool> {
        self.tokenizer.check_rows(prompt)?;
        let encoding = self.tokenizer.encode(prompt);
        if let Some((token, num_vectors)) = token {
            let wanted = self.tokenizer.occurrences(prompt, token) * num_vectors;
            let first_row = self.tokenizer.vocab_size();
            let found = encoding
                .ids
                .iter()
                .filter(|id| **id as usize >= first_row)
                .count();
            if encoding.truncated && found < wanted {
                return Err(Error::Invalid(format!(
                    "the prompt {prompt:?} is longer than the {} tokens that the model reads, and \
                     its placeholder `{token}` ({num_vectors} tokens) would be cut off; shorten \
                     the prompt or move the placeholder to the front",
                    self.tokenizer.context_length()
                )));
            }
        }
        Ok(encoding.truncated)
    }

    /// The hidden states of prompts, [prompts, context_length, d], off the tape; the concept's
    /// token stands for its vectors.
    pub fn encode_prompts(&self, prompts: &[String]) -> Tensor<3> {
        let encodings = prompts.iter().map(|prompt| self.tokenizer.encode(prompt));
        let ids: Vec<Vec<u32>> = encodings.map(|encoding| encoding.ids).collect();
        self.model.encode(&ids).inner()
    }

    /// What prompts are to the U-Net: their hidden states; where a mapper gives the concept another
    /// embedding at every timestep, a function that encodes them for one; where photos stand for its
    /// class word, the text alone in the first steps.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prompt with which a person's photos cannot be fused.
    pub fn prompt_states(&self, prompts: &[String]) -> Result<PromptStates<'_>> {
        if let Some(person) = self.model.stacked_id() {
            return person.prompt_states(prompts, &self.tokenizer, self.model.text_encoder());
        }
        Ok(self.encoded_states(prompts))
    }

    /// The same for negative prompts, which no photos are fused with.
    pub fn negative_states(&self, prompts: &[String]) -> PromptStates<'_> {
        self.encoded_states(prompts)
    }

    fn encoded_states(&self, prompts: &[String]) -> PromptStates<'_> {
        let encodings = prompts.iter().map(|prompt| self.tokenizer.encode(prompt));
        let ids: Vec<Vec<u32>> = encodings.map(|encoding| encoding.ids).collect();
        let Some(mapper) = self.model.mapper_of(&ids) else {
            return self.model.encode(&ids).inner().into();
        };
        let text_encoder = self.model.text_encoder();
        PromptStates::ByTimestep(Rc::new(move |timestep| {
            let timesteps = vec![timestep; ids.len()];
            mapper.conditioning(text_encoder, &ids, &timesteps, None)
        }))
    }

    /// The same with only so many hidden units of the concept's mapper (NeTI's truncation).
    ///
    /// # Errors
    /// A concept without a mapper, more units than there are.
    pub fn with_truncation(mut self, kept: usize) -> Result<Self> {
        let Some(mapper) = self.model.mapper().cloned() else {
            let reason = "a truncation is one of a mapper, which this concept does not have; only \
                          runs that train `neti` have one";
            return Err(Error::Invalid(reason.into()));
        };
        self.model = self.model.with_mapper(mapper.with_truncation(kept)?);
        Ok(self)
    }

    /// Makes `token` stand for a concept that a mapper describes.
    ///
    /// # Errors
    /// A token that exists already.
    pub fn add_mapper(&mut self, mapper: NetiMapper, token: &str) -> Result<()> {
        self.tokenizer.add_placeholder(token, 1)?;
        self.model = self.model.clone().with_mapper(mapper);
        Ok(())
    }

    /// Turns noise of unit variance [b, c, h, w] into latents as the VAE makes them, times
    /// `scaling_factor`. `cond` and `uncond` are states of b prompts or of one; both passes of a
    /// guided step run as one batch of 2b. `on_step` gets the number of model calls done.
    ///
    /// # Errors
    /// A scheduler class or value that is not implemented, or too many steps.
    pub fn sample<'a>(
        &self,
        cond: impl Into<PromptStates<'a>>,
        uncond: impl Into<PromptStates<'a>>,
        latents: Tensor<4>,
        options: &SamplingOptions,
        on_step: &mut dyn FnMut(usize),
    ) -> Result<Tensor<4>> {
        let steps = options.num_inference_steps;
        let mut sampler = self.scheduler_config.sampler(options.kind, steps)?;
        let guidance = Guidance {
            cond: cond.into(),
            uncond: (options.guidance_scale > 1.0).then(|| uncond.into()),
            scale: options.guidance_scale,
        };
        let timesteps = sampler.timesteps().to_vec();
        let mut latents = latents.inner().mul_scalar(sampler.init_noise_sigma());
        let mut constant = None;
        for (index, timestep) in timesteps.into_iter().enumerate() {
            let input = sampler.scale_model_input(latents.clone(), index);
            let batch = input.dims()[0];
            let states = match &constant {
                Some(states) => Conditioning::clone(states),
                None => {
                    let step = SamplingStep {
                        index,
                        of: steps,
                        timestep,
                    };
                    guidance.states(step, batch)
                }
            };
            if guidance.is_constant() {
                constant.get_or_insert(states.clone());
            }
            let noise_pred = guidance.predict(self.model.unet(), input, timestep, states);
            latents = sampler.step(noise_pred, index, latents);
            on_step(index + 1);
        }
        Ok(latents)
    }

    /// The images of latents [b, c, h, w] as [`sample`](Self::sample) returns them.
    pub fn decode(&self, latents: Tensor<4>) -> Vec<RgbImage> {
        let latents = latents.inner().div_scalar(self.vae.config().scaling_factor);
        let [batch, ..] = latents.dims();
        // One at a time: the decoder's activations are far larger than the image.
        let one = |i: usize| to_image(self.vae.decode(latents.clone().narrow(0, i, 1)).inner());
        (0..batch).map(one).collect()
    }

    /// How many images of `height` x `width` latents are drawn as one batch: as many as keep the
    /// memory near that of one image of 512 x 512 pixels. Depends on nothing else, so that a
    /// larger order of images begins with those of a smaller one.
    pub fn images_per_batch(height: usize, width: usize) -> usize {
        (64 * 64 / (height * width).max(1)).clamp(1, 8)
    }

    /// The shape [channels, height, width] of the latents that the U-Net was trained on.
    ///
    /// # Errors
    /// When its config does not say.
    pub fn latent_shape(&self) -> Result<[usize; 3]> {
        let config = self.model.unet().config();
        let size = config.sample_size.ok_or_else(|| {
            let text = "the U-Net's config.json names no sample_size; give initial latents";
            Error::Invalid(text.into())
        })?;
        let shape = [config.in_channels, size.height(), size.width()];
        self.check_latents(shape)?;
        Ok(shape)
    }

    /// Fails for latents [channels, height, width] that the U-Net cannot take.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming both.
    pub fn check_latents(&self, [channels, height, width]: [usize; 3]) -> Result<()> {
        let expected = self.model.unet().config().in_channels;
        if channels == expected && height > 0 && width > 0 {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "latents of shape [{channels}, {height}, {width}] do not fit the U-Net: it takes \
             {expected} channels and sides of at least 1"
        )))
    }
}

/// [1, 3, height, width] in [-1, 1] as 8-bit pixels, rounded as numpy does.
fn to_image(pixels: Tensor<4>) -> RgbImage {
    let [_, channels, height, width] = pixels.dims();
    assert_eq!(channels, 3, "images have three channels");
    let values = to_vec(pixels.permute([0, 2, 3, 1]));
    let byte = |v: f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let bytes: Vec<u8> = values.into_iter().map(byte).collect();
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .unwrap_or_else(|| RgbImage::new(width as u32, height as u32))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_clamped_and_rounded_half_to_even() {
        let device = Device::flex();
        // 0.5 / 255 and 1.5 / 255 lie between two levels.
        let levels = [-3.0, -1.0, 0.0, 1.0, 7.0, 2.0 * 64.0 / 255.0 - 1.0];
        let values: Vec<f32> = [levels, levels, levels].concat();
        let pixels = Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, 3, 2, 3]);
        let image = to_image(pixels);
        let red: Vec<u8> = image.pixels().map(|pixel| pixel.0[0]).collect();
        assert_eq!(red, [0, 0, 128, 255, 255, 64]);
        assert_eq!(image.dimensions(), (3, 2));
    }

    #[test]
    fn small_images_share_a_batch_and_large_ones_do_not() {
        assert_eq!(StableDiffusionPipeline::images_per_batch(16, 16), 8);
        assert_eq!(StableDiffusionPipeline::images_per_batch(64, 64), 1);
        assert_eq!(StableDiffusionPipeline::images_per_batch(96, 96), 1);
    }
}
