//! The U-Net of the mini world, trained on latents of rendered scenes.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::files::write_png;
use core_model::noise_scheduler::{DdpmScheduler, SchedulerConfig, SchedulerKind};
use core_model::params::{ParamNames, to_vec};
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::{randn, rng, standard_normal};
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use core_model::vae::AutoencoderKl;
use rand::RngExt;
use serde::Deserialize;

use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{LabelledScene, PeopleShare, Scenes, Split, pixels};
use super::sharpness::sharpness;
use super::vocabulary::read_tokenizer;
use super::word_rows::UnetAndRows;
use super::zero_shot::ZeroShot;
use crate::progress::Progress;
use crate::world::Category;
use crate::world::contact_sheet::{contact_sheet, side_by_side};

/// Share of captions replaced by the empty one, for classifier-free guidance.
const CAPTION_DROPOUT: f64 = 0.1;

/// Scenes per forward pass of the autoencoder.
const ENCODE_BATCH: usize = 64;

/// Held-out scenes for the learning curve.
const HELD_OUT: usize = 256;

/// Sampling of the scenes that are classified.
const SAMPLING_STEPS: usize = 20;
const SAMPLING_GUIDANCE: f64 = 6.0;

/// Scenes on the contact sheet, and per row of it.
const ON_SHEET: usize = 64;
const SHEET_COLUMNS: u32 = 8;

/// `[unet]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetTask {
    /// The model folder. `tokenizer`, `text_encoder`, `vae` and `scheduler` are read from it, `unet`
    /// is written to it.
    pub model: PathBuf,
    /// The folder of the evaluation CLIP, which classifies generated scenes.
    pub evaluation_clip: PathBuf,
    /// Number of scenes to train on; their latents are computed once.
    pub pool: usize,
    /// The share of scenes that show a person, 0 to 1. Absent: 0.
    #[serde(default)]
    pub people: PeopleShare,
    /// Number of scenes that are generated and classified for the final quality.
    pub classified: usize,
    /// A PNG to write with the final quality: 64 generated scenes beside renderings of the same
    /// captions. Absent: none is written.
    pub contact_sheet: Option<PathBuf>,
    /// The loss of a timestep is weighted with min(SNR, gamma) / SNR (Hang et al. 2023); absent: all alike.
    pub min_snr_gamma: Option<f64>,
    /// The sizes of the network, as in its `config.json`.
    pub architecture: UNet2DConditionConfig,
}

impl UnetTask {
    fn output(&self) -> PathBuf {
        self.model.join("unet")
    }
}

/// One scene to train on: the scaled moments of its posterior, and the ids of its caption.
#[derive(Debug)]
struct Latent {
    mean: Vec<f32>,
    deviation: Vec<f32>,
    ids: Vec<u32>,
    is_person: bool,
}

/// Prediction of the noise in latents, conditioned on captions.
#[derive(Debug)]
pub(super) struct UnetObjective<'a> {
    task: &'a UnetTask,
    seed: u64,
    batch_size: usize,
    device: &'a Device,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    noise_scheduler: DdpmScheduler,
    pool: Vec<Latent>,
    held_out: Vec<Latent>,
    latent_shape: [usize; 3],
}

impl<'a> UnetObjective<'a> {
    /// Reads the frozen networks and encodes the held-out scenes. Training also needs
    /// [`prepare`](Objective::prepare); evaluation does not.
    ///
    /// # Errors
    /// An absent or damaged part of the model folder.
    pub(super) fn new(
        task: &'a UnetTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let model = &task.model;
        let scheduler = SchedulerConfig::from_dir(&model.join("scheduler"))?;
        let mut objective = Self {
            task,
            seed,
            batch_size,
            device,
            tokenizer: read_tokenizer(&model.join("tokenizer"), task.people.nouns())?,
            text_encoder: TextEncoder::load(&model.join("text_encoder"), device)?,
            noise_scheduler: DdpmScheduler::new(&scheduler)?,
            pool: Vec::new(),
            held_out: Vec::new(),
            latent_shape: [0; 3],
        };
        objective.held_out = objective.encode(Split::HeldOut, HELD_OUT)?;
        Ok(objective)
    }

    fn encode(&mut self, split: Split, count: usize) -> Result<Vec<Latent>> {
        let vae = AutoencoderKl::load(&self.task.model.join("vae"), self.device)?;
        let factor = vae.config().scaling_factor;
        let scenes = Scenes::new(self.seed, split, "unet scene").with_people(self.task.people);
        let mut pool = Vec::with_capacity(count);
        let mut progress = Progress::new("latents", 0, count.div_ceil(ENCODE_BATCH) as u64);
        for batch in 0..count.div_ceil(ENCODE_BATCH) {
            let batch = scenes.labelled(batch as u64, ENCODE_BATCH);
            let images = pixels(
                batch
                    .iter()
                    .flat_map(|s| s.pixels.iter().copied())
                    .collect(),
                self.device,
            );
            let posterior = vae.encode(images);
            let [_, c, h, w] = posterior.mean.dims();
            self.latent_shape = [c, h, w];
            let [mean, deviation] = posterior.scaled(factor).map(to_vec);
            let size = c * h * w;
            for (scene, (mean, deviation)) in batch
                .iter()
                .zip(mean.chunks(size).zip(deviation.chunks(size)))
            {
                let ids = self.tokenizer.encode(&scene.caption).ids;
                pool.push(Latent {
                    mean: mean.to_vec(),
                    deviation: deviation.to_vec(),
                    ids,
                    is_person: scene.attributes.category == Category::Person,
                });
            }
            progress.advance("");
        }
        pool.truncate(count);
        Ok(pool)
    }

    /// Refuses a U-Net for other latents or other hidden states than its model has.
    fn check_fit(&self, config: &UNet2DConditionConfig, whose: &str) -> Result<()> {
        let model = self.task.model.display();
        let channels = self.latent_shape[0];
        ensure!(
            config.in_channels == channels,
            "{whose}: in_channels is {}, and latents of the autoencoder in {model} have {channels} channels; give \
             the U-Net as many, or move its folder away to train it anew",
            config.in_channels
        );
        let width = self.text_encoder.config().hidden_size;
        ensure!(
            config.cross_attention_dim.at(0) == Some(width),
            "{whose}: cross_attention_dim is not {width}, the hidden_size of the text encoder in {model}; give the \
             U-Net that width, or move its folder away to train it anew"
        );
        Ok(())
    }

    /// Noisy latents, timesteps, captions and the target of some scenes.
    fn noised(
        &self,
        network: &UnetAndRows,
        scenes: &[&Latent],
        captions: &[Vec<u32>],
        key: &str,
        index: u64,
    ) -> Noised {
        let [c, h, w] = self.latent_shape;
        let shape = [scenes.len(), c, h, w];
        let mut generator = rng(self.seed, key, index);
        let count = self.noise_scheduler.num_train_timesteps();
        let timesteps: Vec<usize> = scenes
            .iter()
            .map(|_| generator.random_range(0..count))
            .collect();
        let draws = standard_normal(
            self.seed,
            &format!("{key} posterior"),
            index,
            shape.iter().product(),
        );
        let mut latents = Vec::with_capacity(draws.len());
        for (scene, draws) in scenes.iter().zip(draws.chunks(c * h * w)) {
            let moments = scene.mean.iter().zip(&scene.deviation);
            latents.extend(
                moments
                    .zip(draws)
                    .map(|((mean, std), draw)| mean + std * draw),
            );
        }
        let latents = Tensor::<4>::from_data(TensorData::new(latents, shape), self.device);
        let noise = randn(
            shape,
            self.seed,
            &format!("{key} noise"),
            index,
            self.device,
        );
        Noised {
            sample: self
                .noise_scheduler
                .add_noise(latents, noise.clone(), &timesteps),
            noise,
            encoder_hidden_states: network.encode(&self.text_encoder, captions),
            timesteps,
        }
    }

    /// The weight of the loss of a timestep.
    fn weight(&self, timestep: usize) -> f64 {
        let kept = self.noise_scheduler.alphas_cumprod()[timestep];
        let snr = kept / (1.0 - kept);
        let gamma = self.task.min_snr_gamma;
        gamma.map_or(1.0, |gamma| gamma.min(snr) / snr)
    }
}

struct Noised {
    sample: Tensor<4>,
    noise: Tensor<4>,
    encoder_hidden_states: Tensor<3>,
    timesteps: Vec<usize>,
}

impl Noised {
    /// Mean squared error per scene, [batch].
    fn errors(self, network: &UNet2DConditionModel) -> Tensor<1> {
        let timesteps: Vec<f32> = self.timesteps.iter().map(|t| *t as f32).collect();
        let batch = timesteps.len();
        let prediction = network.forward(self.sample, &timesteps, self.encoder_hidden_states);
        (prediction - self.noise)
            .square()
            .mean_dims(&[1, 2, 3])
            .reshape([batch])
    }
}

impl Objective for UnetObjective<'_> {
    type Network = UnetAndRows;
    /// Indices of scenes in the pool.
    type Batch = Vec<usize>;

    fn fresh(&self, device: &Device) -> Result<UnetAndRows> {
        let architecture = &self.task.architecture;
        self.check_fit(architecture, "[unet.architecture]")?;
        let unet = UNet2DConditionModel::init(architecture, self.seed, device)?;
        Ok(UnetAndRows::new(unet, &self.tokenizer, &self.text_encoder))
    }

    fn stored(&self, device: &Device) -> Result<Option<UnetAndRows>> {
        let folder = self.task.output();
        let Some(unet) = stored::<UNet2DConditionModel>(&folder, device)? else {
            return Ok(None);
        };
        self.check_fit(unet.config(), &folder.display().to_string())?;
        let network = UnetAndRows::new(unet, &self.tokenizer, &self.text_encoder);
        Ok(Some(network))
    }

    /// Renders and encodes the scenes to be trained on.
    fn prepare(&mut self) -> Result<()> {
        self.pool = self.encode(Split::Training, self.task.pool)?;
        Ok(())
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.model.join("unet"))
    }

    fn outputs(&self) -> Vec<PathBuf> {
        let known = self.text_encoder.config().vocab_size;
        let grows = self.tokenizer.vocab_size() > known;
        let text_encoder = grows.then(|| self.task.model.join("text_encoder"));
        [self.task.output()]
            .into_iter()
            .chain(text_encoder)
            .collect()
    }

    fn names(&self, network: &UnetAndRows) -> ParamNames {
        network.names.clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Vec<usize> + Send> {
        let (seed, batch_size, pool) = (self.seed, self.batch_size, self.pool.len());
        Box::new(move |step| {
            let mut generator = rng(seed, "unet batch", step);
            (0..batch_size)
                .map(|_| generator.random_range(0..pool))
                .collect()
        })
    }

    fn loss(&self, network: &UnetAndRows, batch: Vec<usize>, step: u64) -> Tensor<1> {
        let mut generator = rng(self.seed, "unet caption dropout", step);
        let empty = self.tokenizer.encode("").ids;
        let scenes: Vec<&Latent> = batch.iter().map(|index| &self.pool[*index]).collect();
        let captions: Vec<Vec<u32>> = scenes
            .iter()
            .map(|scene| {
                if generator.random_bool(CAPTION_DROPOUT) {
                    empty.clone()
                } else {
                    scene.ids.clone()
                }
            })
            .collect();
        let noised = self.noised(network, &scenes, &captions, "unet step", step);
        let weights: Vec<f32> = noised
            .timesteps
            .iter()
            .map(|t| self.weight(*t) as f32)
            .collect();
        let size = weights.len();
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [size]), self.device);
        (noised.errors(&network.unet) * weights).mean()
    }

    /// The mean error over held-out things and, if there are any, over held-out people.
    fn evaluate(&self, network: &UnetAndRows) -> Result<Quality> {
        let mut errors = Vec::new();
        for (index, batch) in self.held_out.chunks(ENCODE_BATCH).enumerate() {
            let scenes: Vec<&Latent> = batch.iter().collect();
            let captions: Vec<Vec<u32>> = batch.iter().map(|scene| scene.ids.clone()).collect();
            let noised = self.noised(network, &scenes, &captions, "unet held-out", index as u64);
            errors.extend(
                to_vec(noised.errors(&network.unet))
                    .into_iter()
                    .map(f64::from),
            );
        }
        let mut quality = Quality::new();
        for (name, of_people) in [("held_out_error", false), ("people_error", true)] {
            let scenes = self.held_out.iter().zip(&errors);
            let of_kind: Vec<f64> = scenes
                .filter(|(scene, _)| scene.is_person == of_people)
                .map(|(_, error)| *error)
                .collect();
            if !of_kind.is_empty() {
                let mean = of_kind.iter().sum::<f64>() / of_kind.len() as f64;
                quality.push((name.into(), mean));
            }
        }
        Ok(quality)
    }

    fn worth(&self, quality: &Quality) -> f64 {
        -quality.iter().map(|(_, error)| error).sum::<f64>()
    }

    fn final_quality(&self, network: &UnetAndRows) -> Result<Quality> {
        let mut quality = self.evaluate(network)?;
        let clip = ZeroShot::load(
            &self.task.evaluation_clip,
            self.task.people.nouns(),
            self.device,
        )?;
        let scenes =
            Scenes::new(self.seed, Split::HeldOut, "judged scene").with_people(self.task.people);
        let asked: Vec<LabelledScene> = (0..self.task.classified.div_ceil(ENCODE_BATCH))
            .flat_map(|batch| scenes.fully_described(batch as u64, ENCODE_BATCH))
            .take(self.task.classified)
            .collect();
        let drawn = self.draw(network, &asked)?;
        for (name, value) in clip.accuracy(&drawn, &asked)? {
            quality.push((format!("generated_{name}"), value));
        }
        let rendered: Vec<_> = asked.iter().map(LabelledScene::image).collect();
        for (name, value) in clip.accuracy(&rendered, &asked)? {
            quality.push((format!("rendered_{name}"), value));
        }
        let relative = sharpness(&drawn) / sharpness(&rendered);
        quality.push(("generated_sharpness".into(), relative));
        if let Some(path) = &self.task.contact_sheet {
            let sheet = |images: &[image::RgbImage]| {
                contact_sheet(&images[..ON_SHEET.min(images.len())], SHEET_COLUMNS)
            };
            write_png(path, &side_by_side(&sheet(&drawn), &sheet(&rendered)))?;
        }
        Ok(quality)
    }

    fn save(&self, network: &UnetAndRows, place: Place<'_>) -> Result<()> {
        let folder = place(&self.task.output());
        network.unet.save(&folder, Precision::Float16)?;
        if let Some(text_encoder) = network.grown(&self.text_encoder)? {
            let folder = place(&self.task.model.join("text_encoder"));
            text_encoder.save(&folder, Precision::Float16)?;
        }
        Ok(())
    }
}

impl UnetObjective<'_> {
    /// Generates one image for each scene's caption.
    fn draw(&self, network: &UnetAndRows, asked: &[LabelledScene]) -> Result<Vec<image::RgbImage>> {
        let model = &self.task.model;
        let grown = network.grown(&self.text_encoder)?;
        let text_encoder = grown.unwrap_or_else(|| self.text_encoder.clone());
        let pipeline = StableDiffusionPipeline {
            tokenizer: Tokenizer::from_dir(&model.join("tokenizer"))?,
            model: PersonalizedModel::new(text_encoder, network.unet.clone()),
            vae: AutoencoderKl::load(&model.join("vae"), self.device)?,
            scheduler_config: SchedulerConfig::from_dir(&model.join("scheduler"))?,
        };
        let options = SamplingOptions {
            kind: Some(SchedulerKind::DpmppTwoM),
            num_inference_steps: SAMPLING_STEPS,
            guidance_scale: SAMPLING_GUIDANCE,
        };
        let [c, h, w] = self.latent_shape;
        let mut drawn = Vec::with_capacity(asked.len());
        let mut progress = Progress::new("classified scenes", 0, asked.len() as u64);
        for (index, batch) in asked.chunks(16).enumerate() {
            let prompts: Vec<String> = batch.iter().map(|scene| scene.caption.clone()).collect();
            let negative = vec![String::new(); batch.len()];
            let cond = pipeline.encode_prompts(&prompts);
            let uncond = pipeline.encode_prompts(&negative);
            let shape = [batch.len(), c, h, w];
            let noise = randn(shape, self.seed, "judged noise", index as u64, self.device);
            let latents = pipeline.sample(cond, uncond, noise, &options, &mut |_| {})?;
            drawn.extend(pipeline.decode(latents));
            for _ in batch {
                progress.advance("");
            }
        }
        Ok(drawn)
    }
}
