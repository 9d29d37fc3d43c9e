//! PhotoMaker in the mini world: an image tower that was trained on people, its projection, the fuse
//! module and a LoRA of the U-Net learn to draw a person from other photos of it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::dino::DinoModel;
use core_model::id_adapter::{ADAPTER, IdAdapterFolder, save_photomaker};
use core_model::image_processor::channels_first;
use core_model::lora::{LayerNames, Lora};
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::{Added, Extension, ParamNames, is_added};
use core_model::personalized::PersonalizedModel;
use core_model::photomaker::{ClassWord, PhotoMaker, StackedId};
use core_model::pipeline::StableDiffusionPipeline;
use core_model::rng::rng;
use rand::{Rng, RngExt};
use serde::Deserialize;

use super::objective::{Objective, Place, Quality};
use super::people_sheet::PeopleSheet;
use super::person_latents::{Noised, People, PersonLatents, base_model};
use super::scenes::{Split, coverage, pixels};
use crate::adapters::{NamedTargets, Targets};
use crate::world::{Identity, Rendering, View, render};

/// Share of captions replaced by the empty one, for classifier-free guidance.
const CAPTION_DROPOUT: f64 = 0.1;

/// Share of the steps whose loss is that of the person alone.
const MASKED: f64 = 0.5;

/// Share of the photos whose background is noise.
const WITHOUT_BACKGROUND: f64 = 0.5;

/// Most photos of one person.
const PHOTOS: usize = 4;

/// Held-out people of the learning curve.
const HELD_OUT: usize = 64;

/// Held-out people per forward pass.
const HELD_OUT_BATCH: usize = 32;

/// The share of the steps with the text alone on the contact sheet.
const START_MERGE: f64 = 0.2;

/// `[photomaker]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhotoMakerTask {
    /// The folder to write the adapter to.
    pub output: PathBuf,
    /// The folder of the base model.
    pub model: PathBuf,
    /// The folder of a vision transformer with which the image tower begins.
    pub vision: PathBuf,
    /// Number of people to train on.
    pub people: usize,
    /// Views of each that the model learns to draw; their latents are computed once.
    pub views: usize,
    /// The rank of the LoRA, which is also its alpha.
    pub rank: usize,
    /// A PNG to write with the final quality: photos of held-out people and images of them. Absent: none
    /// is written.
    pub contact_sheet: Option<PathBuf>,
}

/// The encoder, and the base model with its LoRA.
#[derive(Module, Debug)]
pub(super) struct PhotoMakerAndLora {
    photomaker: PhotoMaker,
    model: PersonalizedModel,
    #[module(skip)]
    names: ParamNames,
}

impl PhotoMakerAndLora {
    fn new(photomaker: PhotoMaker, model: PersonalizedModel) -> Self {
        let of_encoder = photomaker.names().renamed(|key| format!("{ENCODER}{key}"));
        Self {
            names: model.names().with(&of_encoder),
            photomaker,
            model,
        }
    }

    fn lora(&self, rank: usize) -> Lora {
        Lora::of_model(&self.model, rank as f64)
    }
}

/// What begins the names of the encoder's parameters, and of those of its image tower.
const ENCODER: &str = "photomaker.";
const TOWER: &str = "photomaker.vision_model.";

/// The tower's share of the learning rate, as the authors' 1e-5 beside 1e-4. At the whole rate it forgets
/// people before the fuse module has learned to read them: after five steps its vectors are nearly the same
/// for all photos.
const TOWER_RATE: f64 = 0.1;

/// People of the first steps, and the number of steps in which they become four times as many.
///
/// The base model hardly reads the class word's own state: its attention has learned to find the word in the
/// states behind it. With all people from the beginning, 3,500 steps did not open that way. The faces of a
/// few people, which can be learned by heart, open it within some hundred steps, and what comes later has it.
const FIRST_PEOPLE: f64 = 8.0;
const FOURFOLD: f64 = 500.0;

/// The number of people that a step draws from.
fn people_of_step(step: u64, people: usize) -> usize {
    let grown = FIRST_PEOPLE * 4f64.powf(step as f64 / FOURFOLD);
    people.min(grown as usize)
}

/// Targets and photos of a step.
#[derive(Debug)]
pub(super) struct Batch {
    /// The numbers of the latents.
    targets: Vec<usize>,
    /// The number of photos of each; none where the caption is left out.
    counts: Vec<usize>,
    /// The photos, target after target, [3, side, side] in [-1, 1] each.
    photos: Vec<f32>,
}

/// Prediction of the noise in latents of people, conditioned on captions and photos.
#[derive(Debug)]
pub(super) struct PhotoMakerObjective<'a> {
    task: &'a PhotoMakerTask,
    seed: u64,
    batch_size: usize,
    device: &'a Device,
    pipeline: StableDiffusionPipeline,
    noise_scheduler: DdpmScheduler,
    pool: PersonLatents,
    held_out: PersonLatents,
}

impl<'a> PhotoMakerObjective<'a> {
    /// Reads the base model and encodes the held-out people. Training also needs
    /// [`prepare`](Objective::prepare); evaluation does not.
    ///
    /// # Errors
    /// An absent or damaged base model, or one that does not know people.
    pub(super) fn new(
        task: &'a PhotoMakerTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let mut pipeline = base_model(&task.model, device)?;
        pipeline.model = with_lora(pipeline.model, task.rank, seed)?;
        let noise_scheduler = DdpmScheduler::new(&pipeline.scheduler_config)?;
        let people = People::new(seed, PURPOSE, Split::HeldOut, 1);
        let held_out = PersonLatents::encode(&people, HELD_OUT, &pipeline, device, &mut |_| {})?;
        check_captions(&held_out, &pipeline)?;
        Ok(Self {
            task,
            seed,
            batch_size,
            device,
            pipeline,
            noise_scheduler,
            pool: PersonLatents::default(),
            held_out,
        })
    }

    /// The vision transformer with which the image tower begins.
    fn vision(&self, device: &Device) -> Result<DinoModel> {
        DinoModel::load(&self.task.vision, device).with_context(|| {
            format!(
                "{}: the image tower begins with a vision transformer that was trained on people; train it \
                 first (core-train pretrain experiments/pretrain/msid.toml)",
                self.task.vision.display()
            )
        })
    }

    fn people(&self) -> People {
        People::new(self.seed, PURPOSE, Split::Training, self.task.views)
    }

    /// The states of captions with the photos' vectors, [batch, positions, channels]. A caption with no
    /// photos is the empty one.
    fn states(&self, photomaker: &PhotoMaker, captions: &[&str], batch: &Batch) -> Tensor<3> {
        let tokenizer = &self.pipeline.tokenizer;
        let empty = tokenizer.encode("").ids;
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for (caption, count) in captions.iter().zip(&batch.counts) {
            if *count == 0 {
                ids.push(empty.clone());
                places.push(Vec::new());
                continue;
            }
            let word = ClassWord::new(NOUN, *count, tokenizer);
            match word.expand(caption, tokenizer) {
                Ok(expanded) => {
                    ids.push(expanded.ids);
                    places.push(expanded.places);
                }
                Err(error) => unreachable!("the captions were checked: {error}"),
            }
        }
        let states = self.pipeline.model.text_encoder().forward(&ids, None);
        if batch.photos.is_empty() {
            return states;
        }
        let id_embeds = photomaker.embed(pixels(batch.photos.clone(), self.device));
        photomaker.fuse_module().stack(states, id_embeds, &places)
    }

    /// The mean squared error of each image, [batch]; with `masked` only the person counts, in the mean
    /// over all values.
    fn errors(
        network: &PhotoMakerAndLora,
        noised: Noised,
        states: Tensor<3>,
        masked: bool,
    ) -> Tensor<1> {
        let batch = noised.timesteps.len();
        let unet = network.model.unet();
        let prediction = unet.forward(noised.sample, &noised.timesteps, states);
        let difference = prediction - noised.noise;
        let difference = match masked {
            true => difference * noised.mask,
            false => difference,
        };
        difference.square().mean_dims(&[1, 2, 3]).reshape([batch])
    }

    /// Four photos of each of some held-out people.
    fn held_out_batch(&self, targets: Vec<usize>, people: impl Fn(usize) -> usize) -> Batch {
        let all = People::new(self.seed, PURPOSE, Split::HeldOut, 1);
        let mut generator = rng(self.seed, "photomaker held-out photos", targets[0] as u64);
        let photos = targets.iter().flat_map(|target| {
            let identity = all.identity(people(*target) as u64);
            (0..PHOTOS)
                .flat_map(|_| photo(&mut generator, &identity, 0.0))
                .collect::<Vec<f32>>()
        });
        Batch {
            photos: photos.collect(),
            counts: vec![PHOTOS; targets.len()],
            targets,
        }
    }

    /// The mean error over held-out people; `people` names whose photos are shown.
    fn held_out_error(
        &self,
        network: &PhotoMakerAndLora,
        people: Option<&dyn Fn(usize) -> usize>,
    ) -> f64 {
        let mut sum = 0.0;
        for first in (0..HELD_OUT).step_by(HELD_OUT_BATCH) {
            let targets: Vec<usize> = (first..first + HELD_OUT_BATCH).collect();
            let captions = targets
                .iter()
                .map(|t| self.held_out.latents[*t].caption.as_str());
            let captions: Vec<&str> = captions.collect();
            let key = (self.seed, "photomaker held-out", first as u64);
            let noised = self
                .held_out
                .noised(&targets, &self.noise_scheduler, key, self.device);
            let states = match people {
                Some(people) => {
                    let batch = self.held_out_batch(targets, people);
                    self.states(&network.photomaker, &captions, &batch)
                }
                None => {
                    let captions: Vec<String> = captions.into_iter().map(String::from).collect();
                    self.pipeline.encode_prompts(&captions)
                }
            };
            let errors = Self::errors(network, noised, states, true);
            sum += f64::from(errors.sum().into_scalar::<f32>());
        }
        sum / HELD_OUT as f64
    }
}

/// What the streams of this training are named after, and the noun of its captions.
const PURPOSE: &str = "photomaker person";
const NOUN: &str = "person";

/// The model with fresh changes of low rank beside all attention layers of its U-Net.
fn with_lora(model: PersonalizedModel, rank: usize, seed: u64) -> Result<PersonalizedModel> {
    let targets = Targets::Named(NamedTargets::Attention);
    let layers = targets.layers(&model, false).map_err(anyhow::Error::msg)?;
    let added = Added::LowRank { rank, scale: 1.0 };
    Ok(model.extended(Extension {
        added,
        layers,
        seed,
    })?)
}

/// Fails unless every caption has room for the copies of its noun.
fn check_captions(latents: &PersonLatents, pipeline: &StableDiffusionPipeline) -> Result<()> {
    let word = ClassWord::new(NOUN, PHOTOS, &pipeline.tokenizer);
    let mut captions = latents.latents.iter().map(|latent| &latent.caption);
    captions.try_for_each(|caption| Ok(word.check(caption, &pipeline.tokenizer)?))
}

/// A photo of a person in any view; its background is noise with this probability.
fn photo(generator: &mut impl Rng, identity: &Identity, without_background: f64) -> Vec<f32> {
    let view = View::sample(generator, identity);
    let Rendering { image, mask } = render(identity, &view);
    let mut values = channels_first(&image);
    if generator.random_bool(without_background) {
        let coverage: Vec<f32> = coverage(&mask).collect();
        for (at, value) in values.iter_mut().enumerate() {
            let person = coverage[at % coverage.len()];
            *value = person * *value + (1.0 - person) * generator.random_range(-1.0..1.0);
        }
    }
    values
}

impl Objective for PhotoMakerObjective<'_> {
    type Network = PhotoMakerAndLora;
    type Batch = Batch;

    fn fresh(&self, device: &Device) -> Result<PhotoMakerAndLora> {
        let vision = self.vision(device)?;
        let width = self.pipeline.model.text_encoder().config().hidden_size;
        let photomaker = PhotoMaker::around(vision, width, self.seed, device)?;
        Ok(PhotoMakerAndLora::new(
            photomaker,
            self.pipeline.model.clone(),
        ))
    }

    fn stored(&self, device: &Device) -> Result<Option<PhotoMakerAndLora>> {
        if !self.task.output.join(ADAPTER).exists() {
            return Ok(None);
        }
        let folder = IdAdapterFolder::open(&self.task.output)?;
        let model = &self.pipeline.model;
        let lora = folder.lora(&LayerNames::of_model(model))?;
        let model = lora.put_in(model.clone())?;
        Ok(Some(PhotoMakerAndLora::new(
            folder.photomaker(device)?,
            model,
        )))
    }

    /// Renders and encodes the images to be trained on.
    fn prepare(&mut self) -> Result<()> {
        let PhotoMakerTask { people, views, .. } = self.task;
        ensure!(
            people * views > 0,
            "photomaker.people and photomaker.views are {people} and {views}; expected 1 or more"
        );
        let count = people * views;
        let pool = PersonLatents::encode(
            &self.people(),
            count,
            &self.pipeline,
            self.device,
            &mut |_| {},
        )?;
        check_captions(&pool, &self.pipeline)?;
        self.pool = pool;
        Ok(())
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &PhotoMakerAndLora) -> ParamNames {
        network.names.clone()
    }

    fn trains(&self, name: &str) -> bool {
        name.starts_with(ENCODER) || is_added(name)
    }

    fn rate(&self, name: &str) -> f64 {
        match name.starts_with(TOWER) {
            true => TOWER_RATE,
            false => 1.0,
        }
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Batch + Send> {
        let (people, seed, size) = (self.people(), self.seed, self.batch_size);
        let (count, views) = (self.task.people, self.task.views);
        Box::new(move |step| {
            let mut generator = rng(seed, "photomaker batch", step);
            let mut batch = Batch {
                targets: Vec::new(),
                counts: Vec::new(),
                photos: Vec::new(),
            };
            for _ in 0..size {
                let person = generator.random_range(0..people_of_step(step, count));
                let view = generator.random_range(0..views);
                let photos = match generator.random_bool(CAPTION_DROPOUT) {
                    true => 0,
                    false => generator.random_range(1..=PHOTOS),
                };
                batch.targets.push(person * views + view);
                batch.counts.push(photos);
                let identity = people.identity(person as u64);
                for _ in 0..photos {
                    let photo = photo(&mut generator, &identity, WITHOUT_BACKGROUND);
                    batch.photos.extend(photo);
                }
            }
            batch
        })
    }

    fn loss(&self, network: &PhotoMakerAndLora, batch: Batch, step: u64) -> Tensor<1> {
        let pool = &self.pool;
        let captions = batch
            .targets
            .iter()
            .map(|target| pool.latents[*target].caption.as_str());
        let captions: Vec<&str> = captions.collect();
        let key = (self.seed, "photomaker step", step);
        let noised = pool.noised(&batch.targets, &self.noise_scheduler, key, self.device);
        let states = self.states(&network.photomaker, &captions, &batch);
        let masked = rng(self.seed, "photomaker masked", step).random_bool(MASKED);
        Self::errors(network, noised, states, masked).mean()
    }

    /// The error on the person alone: with photos of that person, of another one, and with the text alone.
    fn evaluate(&self, network: &PhotoMakerAndLora) -> Result<Quality> {
        let own: &dyn Fn(usize) -> usize = &|person| person;
        let other: &dyn Fn(usize) -> usize = &|person| (person + 1) % HELD_OUT;
        let kinds = [
            ("person_error", Some(own)),
            ("error_with_photos_of_another", Some(other)),
            ("error_without_photos", None),
        ];
        let figures = kinds.into_iter().map(|(name, people)| {
            let error = self.held_out_error(network, people);
            (name.to_string(), error)
        });
        Ok(figures.collect())
    }

    fn worth(&self, quality: &Quality) -> f64 {
        -quality.first().map_or(0.0, |(_, error)| *error)
    }

    fn final_quality(&self, network: &PhotoMakerAndLora) -> Result<Quality> {
        if let Some(path) = &self.task.contact_sheet {
            let sheet = PeopleSheet {
                seed: self.seed,
                base: &self.pipeline,
                device: self.device,
            };
            sheet.write(path, NOUN, &|photos| {
                let id_embeds = network.photomaker.embed(photos).inner();
                let count = id_embeds.dims()[0];
                let word = ClassWord::new(NOUN, count, &self.pipeline.tokenizer);
                let person = StackedId::new(&network.photomaker, id_embeds, word, START_MERGE);
                let mut pipeline = self.pipeline.clone();
                pipeline.model = network.model.clone().with_stacked_id(person);
                Ok(pipeline)
            })?;
        }
        self.evaluate(network)
    }

    fn save(&self, network: &PhotoMakerAndLora, place: Place<'_>) -> Result<()> {
        let lora = network.lora(self.task.rank);
        Ok(save_photomaker(
            &place(&self.task.output),
            &network.photomaker,
            &lora,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::people_of_step;

    #[test]
    fn people_become_four_times_as_many_in_five_hundred_steps_until_all_are_there() {
        let of = |step| people_of_step(step, 20_000);
        assert_eq!([of(0), of(500), of(1000), of(2500)], [8, 32, 128, 8192]);
        assert_eq!([of(3000), of(u64::MAX)], [20_000, 20_000]);
        assert_eq!(people_of_step(0, 3), 3);
    }
}
