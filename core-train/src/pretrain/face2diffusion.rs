//! Face2Diffusion in the mini world: a mapping learns to make of an identity two vectors with which the
//! frozen model draws the person, while the background stays as the class word alone would have it
//! (class-guided denoising regularisation).

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::dino::DinoModel;
use core_model::face2diffusion::{Face2DiffusionConfig, Mapping, MsidConfig, VECTORS};
use core_model::id_adapter::{ADAPTER, IdAdapterFolder, save_face2diffusion};
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::{ParamNames, to_vec};
use core_model::personalized::ConceptEmbedding;
use core_model::pipeline::StableDiffusionPipeline;
use core_model::rng::rng;
use rand::RngExt;
use serde::Deserialize;

use super::objective::{Objective, Place, Quality};
use super::people_sheet::PeopleSheet;
use super::person_latents::{EXPRESSIONS, People, PersonLatents, base_model};
use super::scenes::Split;

/// Share of the targets whose expression is not told.
const WITHOUT_EXPRESSION: f64 = 0.2;

/// Held-out people of the learning curve.
const HELD_OUT: usize = 64;

/// Held-out people per forward pass.
const HELD_OUT_BATCH: usize = 32;

/// What the streams of this training are named after, the noun of its captions, and what stands for it.
const PURPOSE: &str = "face2diffusion person";
const NOUN: &str = "person";
const TOKEN: &str = "<face>";

/// `[face2diffusion]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Face2DiffusionTask {
    /// The folder to write the mapping to. The identity encoder lies in it already, in `msid/`.
    pub output: PathBuf,
    /// The folder of the base model.
    pub model: PathBuf,
    /// The layers of the identity encoder, from 0, after which its class token is read.
    pub layers: Vec<usize>,
    /// Number of people to train on.
    pub people: usize,
    /// Views of each that the model learns to draw; their latents and identities are computed once.
    pub views: usize,
    /// A PNG to write with the final quality: photos of held-out people and images of them. Absent: none
    /// is written.
    pub contact_sheet: Option<PathBuf>,
}

impl Face2DiffusionTask {
    /// The folder of the identity encoder.
    fn msid(&self) -> PathBuf {
        self.output.join("msid")
    }
}

/// Latents with the identities of their images, [images, channels].
#[derive(Debug, Default)]
struct Pool {
    latents: PersonLatents,
    identities: Vec<Vec<f32>>,
}

/// The mapping, on a frozen model and a frozen identity encoder.
#[derive(Debug)]
pub(super) struct Face2DiffusionObjective<'a> {
    task: &'a Face2DiffusionTask,
    seed: u64,
    batch_size: usize,
    device: &'a Device,
    pipeline: StableDiffusionPipeline,
    noise_scheduler: DdpmScheduler,
    msid: DinoModel,
    config: Face2DiffusionConfig,
    pool: Pool,
    held_out: Pool,
}

impl<'a> Face2DiffusionObjective<'a> {
    /// Reads the frozen networks and encodes the held-out people. Training also needs
    /// [`prepare`](Objective::prepare); evaluation does not.
    ///
    /// # Errors
    /// An absent or damaged base model or identity encoder.
    pub(super) fn new(
        task: &'a Face2DiffusionTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let mut pipeline = base_model(&task.model, device)?;
        pipeline.tokenizer.add_placeholder(TOKEN, VECTORS)?;
        let folder = task.msid();
        let msid = DinoModel::load(&folder, device).with_context(|| {
            format!(
                "{}: the mapping needs its identity encoder; train it first (core-train pretrain \
                 experiments/pretrain/msid.toml)",
                folder.display()
            )
        })?;
        let config = Face2DiffusionConfig {
            msid: MsidConfig::of_vit(msid.config(), &task.layers),
            exp_dim: EXPRESSIONS,
            text_width: pipeline.model.text_encoder().config().hidden_size,
        };
        config.msid.check_layers().context("face2diffusion")?;
        let people = People::new(seed, PURPOSE, Split::HeldOut, 1);
        let held_out = Pool::encode(&people, HELD_OUT, &pipeline, &msid, &task.layers, device)?;
        Ok(Self {
            task,
            seed,
            batch_size,
            device,
            noise_scheduler: DdpmScheduler::new(&pipeline.scheduler_config)?,
            pipeline,
            msid,
            config,
            pool: Pool::default(),
            held_out,
        })
    }

    /// States of captions whose noun is replaced by vectors [batch, 2, channels].
    fn states(&self, captions: &[&str], vectors: Tensor<3>) -> Tensor<3> {
        let [batch, count, width] = vectors.dims();
        let tokenizer = &self.pipeline.tokenizer;
        let first = tokenizer.vocab_size() as u32;
        let own = |(sample, caption): (usize, &&str)| {
            let ids = tokenizer.encode(&caption.replace(NOUN, TOKEN)).ids;
            let own = |id: u32| match id >= first {
                true => id + (sample * count) as u32,
                false => id,
            };
            ids.into_iter().map(own).collect()
        };
        let ids: Vec<Vec<u32>> = captions.iter().enumerate().map(own).collect();
        let text_encoder = self.pipeline.model.text_encoder();
        text_encoder.forward_with_inputs(&ids, vectors.reshape([batch * count, width]))
    }

    /// The loss on some images of a pool with these identities and expressions; what is random is a
    /// function of key and index.
    fn loss_on(
        &self,
        pool: &Pool,
        chosen: &[usize],
        vectors: Tensor<3>,
        (key, index): (&str, u64),
    ) -> Tensor<1> {
        let draw = (self.seed, key, index);
        let latents = &pool.latents;
        let noised = latents.noised(chosen, &self.noise_scheduler, draw, self.device);
        let captions = chosen.iter().map(|c| latents.latents[*c].caption.as_str());
        let captions: Vec<&str> = captions.collect();
        let unet = self.pipeline.model.unet();
        let of_class: Vec<String> = captions.iter().map(|c| (*c).to_string()).collect();
        let of_class = self.pipeline.encode_prompts(&of_class);
        let class = unet
            .forward(noised.sample.clone(), &noised.timesteps, of_class)
            .inner();
        let states = self.states(&captions, vectors);
        let person = unet.forward(noised.sample, &noised.timesteps, states);
        let background = noised.mask.clone() * -1.0 + 1.0;
        let target = noised.noise * noised.mask + class * background;
        (person - target).square().mean()
    }

    fn tensor(&self, rows: &[&[f32]]) -> Tensor<2> {
        let shape = [rows.len(), rows.first().map_or(0, |row| row.len())];
        Tensor::from_data(TensorData::new(rows.concat(), shape), self.device)
    }
}

impl Pool {
    fn encode(
        people: &People,
        count: usize,
        pipeline: &StableDiffusionPipeline,
        msid: &DinoModel,
        layers: &[usize],
        device: &Device,
    ) -> Result<Self> {
        let mut identities = Vec::with_capacity(count);
        let mut each = |images: Tensor<4>| {
            let features = msid.class_tokens(images, layers).inner();
            let width = features.dims()[1];
            identities.extend(to_vec(features).chunks(width).map(<[f32]>::to_vec));
        };
        let latents = PersonLatents::encode(people, count, pipeline, device, &mut each)?;
        Ok(Self {
            latents,
            identities,
        })
    }
}

impl Objective for Face2DiffusionObjective<'_> {
    type Network = Mapping;
    /// Indices of images in the pool.
    type Batch = Vec<usize>;

    fn fresh(&self, device: &Device) -> Result<Mapping> {
        Ok(Mapping::init(&self.config, self.seed, device)?)
    }

    fn stored(&self, device: &Device) -> Result<Option<Mapping>> {
        if !self.task.output.join(ADAPTER).exists() {
            return Ok(None);
        }
        let folder = IdAdapterFolder::open(&self.task.output)?;
        Ok(Some(folder.face2diffusion(device)?.mapping().clone()))
    }

    /// Renders and encodes the images to be trained on.
    fn prepare(&mut self) -> Result<()> {
        let Face2DiffusionTask {
            people,
            views,
            layers,
            ..
        } = self.task;
        ensure!(
            people * views > 0,
            "face2diffusion.people and face2diffusion.views are {people} and {views}; expected 1 or more"
        );
        let all = People::new(self.seed, PURPOSE, Split::Training, *views);
        let (pipeline, msid) = (&self.pipeline, &self.msid);
        let pool = Pool::encode(&all, people * views, pipeline, msid, layers, self.device)?;
        self.pool = pool;
        Ok(())
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &Mapping) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Vec<usize> + Send> {
        let (seed, size) = (self.seed, self.batch_size);
        let count = self.task.people * self.task.views;
        Box::new(move |step| {
            let mut generator = rng(seed, "face2diffusion batch", step);
            (0..size)
                .map(|_| generator.random_range(0..count))
                .collect()
        })
    }

    fn loss(&self, network: &Mapping, batch: Vec<usize>, step: u64) -> Tensor<1> {
        let pool = &self.pool;
        let mut generator = rng(self.seed, "face2diffusion expressions", step);
        let given: Vec<f32> = batch
            .iter()
            .map(|_| f32::from(u8::from(!generator.random_bool(WITHOUT_EXPRESSION))))
            .collect();
        let given = Tensor::<2>::from_data(TensorData::new(given, [batch.len(), 1]), self.device);
        let values = batch
            .iter()
            .map(|c| &pool.latents.latents[*c].expression[..]);
        let values = self.tensor(&values.collect::<Vec<_>>());
        let identities = batch.iter().map(|c| &pool.identities[*c][..]);
        let identities = self.tensor(&identities.collect::<Vec<_>>());
        let vectors = network.forward(identities, network.expressions(values, given));
        self.loss_on(pool, &batch, vectors, ("face2diffusion step", step))
    }

    /// The loss on held-out people without an expression: with their own identity, and with another's.
    fn evaluate(&self, network: &Mapping) -> Result<Quality> {
        let mut quality = Quality::new();
        for (name, shift) in [("held_out_loss", 0), ("loss_with_another_identity", 1)] {
            let mut sum = 0.0;
            for first in (0..HELD_OUT).step_by(HELD_OUT_BATCH) {
                let chosen: Vec<usize> = (first..first + HELD_OUT_BATCH).collect();
                let identities = chosen
                    .iter()
                    .map(|c| &self.held_out.identities[(c + shift) % HELD_OUT][..]);
                let identities = self.tensor(&identities.collect::<Vec<_>>());
                let expressions = network.null_expression(chosen.len());
                let vectors = network.forward(identities, expressions);
                let key = ("face2diffusion held-out", first as u64);
                let loss = self.loss_on(&self.held_out, &chosen, vectors, key);
                sum += f64::from(loss.into_scalar::<f32>()) * chosen.len() as f64;
            }
            quality.push((name.to_string(), sum / HELD_OUT as f64));
        }
        Ok(quality)
    }

    fn worth(&self, quality: &Quality) -> f64 {
        -quality.first().map_or(0.0, |(_, loss)| *loss)
    }

    fn final_quality(&self, network: &Mapping) -> Result<Quality> {
        if let Some(path) = &self.task.contact_sheet {
            let sheet = PeopleSheet {
                seed: self.seed,
                base: &self.pipeline,
                device: self.device,
            };
            sheet.write(path, TOKEN, &|photos| {
                let identity = self.msid.class_tokens(photos, &self.task.layers);
                let expression = network.null_expression(1);
                let vectors = network.forward(identity.mean_dim(0), expression).inner();
                let width = self.config.text_width;
                let concept =
                    ConceptEmbedding::without_positions(vectors.reshape([VECTORS, width]));
                let mut pipeline = self.pipeline.clone();
                pipeline.model = pipeline.model.with_embedding(concept);
                Ok(pipeline)
            })?;
        }
        self.evaluate(network)
    }

    fn save(&self, network: &Mapping, place: Place<'_>) -> Result<()> {
        Ok(save_face2diffusion(
            &place(&self.task.output),
            &self.config,
            network,
        )?)
    }
}
