//! What a run takes on disk, computed from the shapes of the networks: no weights are read.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::folder::ModelFolder;
use core_model::params::ParamNames;
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::unet::{SampleSize, UNet2DConditionConfig, UNet2DConditionModel};
use core_model::vae::AutoencoderKl;

use crate::adapters::Adapter;
use crate::config::{RunConfig, StageConfig};
use crate::error::Result;
use crate::logging::ReportTo;
use crate::run::results;
use crate::run::state::save_interval;
use crate::setup::stage_models;

/// Most file systems give a file, and a folder, whole blocks of so many bytes.
const BLOCK: u64 = 4096;

/// The most that is counted of anything: a petabyte, which fits nowhere. Sums of such numbers do not overflow.
const MOST: u64 = 1 << 50;

/// Bytes of a number.
const NUMBER: u64 = 4;

/// Bytes of what a safetensors file says about a tensor beside its name, about.
const ENTRY: u64 = 72;

/// What a PNG of a generated image takes of three bytes per pixel, in percent: as measured on images of the mini
/// world and of Stable Diffusion.
const PNG: u64 = 58;

/// The bytes that a file of so many bytes takes on disk.
pub fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// So many times so many bytes; no more than a petabyte.
pub fn times(count: u64, bytes: u64) -> u64 {
    count.saturating_mul(bytes).min(MOST)
}

/// The bytes of a generated image as PNG, about.
pub fn png_bytes(width: u64, height: u64) -> u64 {
    on_disk(3 * width * height * PNG / 100)
}

/// The shapes of a model, as far as they decide about disks.
#[derive(Debug)]
pub struct ModelShapes {
    networks: PersonalizedModel,
    /// Bytes of a generated image.
    image: u64,
}

/// The bytes of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunBytes {
    /// What was trained, apart from the concept, and that again in every checkpoint.
    pub weights: u64,
    /// The rest of the finished folder: the concept, configuration, log, validation images.
    pub rest: u64,
    /// The state after the last step.
    pub last_state: u64,
    /// The most that states take at one moment: one is removed when the next is there.
    pub states: u64,
}

impl RunBytes {
    /// The most that the run takes while it is trained: its last state is removed when the results are there.
    pub fn peak(&self) -> u64 {
        self.rest + self.states.max(self.weights + self.last_state)
    }
}

impl ModelShapes {
    /// Reads the configurations of a model folder.
    ///
    /// # Errors
    /// A configuration that is missing or that this project does not compute.
    pub fn read(model: &ModelFolder) -> Result<Self> {
        let folder = model.path();
        let unet = UNet2DConditionModel::read_config(&folder.join("unet/config.json"))?;
        let vae = AutoencoderKl::read_config(&folder.join("vae/config.json"))?;
        Ok(Self {
            networks: PersonalizedModel::shapes_of(folder)?,
            image: image_bytes(&unet, vae.factor() as u64),
        })
    }

    /// The bytes of a generated image.
    pub fn image(&self) -> u64 {
        self.image
    }

    /// The bytes that a run takes.
    ///
    /// # Errors
    /// Sets of weights that do not fit the model.
    pub fn run(&self, config: &RunConfig) -> Result<RunBytes> {
        let mut model = self.networks.clone();
        if config.rare_token.is_none() {
            let width = model.text_encoder().config().hidden_size;
            let shape = [config.concept.num_vectors(), width];
            let vectors = Tensor::ones(shape, &Device::flex());
            model = model.with_embedding(ConceptEmbedding::new(vectors));
        }
        let models = stage_models(config, model)?;
        let Some(trained) = models.last() else {
            return Ok(RunBytes::default());
        };
        let states = models.iter().zip(1..);
        let states = states.map(|(model, stages)| state(&config.stages[..stages], model.names()));
        let states: Vec<u64> = states.collect();
        let (mut weights, mut rest) = (0, files_beside(config));
        for adapter in results(config) {
            let bytes = result(config, adapter, trained.names());
            match adapter.is_concept() {
                true => rest += bytes,
                false => weights += bytes,
            }
        }
        let copies = checkpoints(config).saturating_add(1);
        rest += times(images(config), self.image) + times(copies - 1, rest + BLOCK);
        Ok(RunBytes {
            weights: times(copies, weights),
            rest: rest.min(MOST),
            last_state: states.last().copied().unwrap_or(0),
            states: states_at_once(config, &states, trained.names()),
        })
    }
}

/// The bytes of an image of the size that a model was trained on; `factor` is that of its autoencoder.
fn image_bytes(unet: &UNet2DConditionConfig, factor: u64) -> u64 {
    let size = unet.sample_size.unwrap_or(SampleSize::Square(64));
    png_bytes(size.width() as u64 * factor, size.height() as u64 * factor)
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().map(|size| *size as u64).product()
}

/// The file of the tensors for which `chosen` holds, each given by its name; `count` says how many numbers are written
/// of one.
fn file(names: &ParamNames, chosen: impl Fn(&str) -> bool, count: impl Fn(&[usize]) -> u64) -> u64 {
    let chosen = names.iter().filter(|(name, _)| chosen(name));
    let tensors = chosen.map(|(name, shape)| NUMBER * count(shape) + name.len() as u64 + ENTRY);
    on_disk(tensors.sum::<u64>() + ENTRY)
}

/// The state in the last of some stages: what they have moved, and what the optimiser keeps of the last one.
fn state(stages: &[StageConfig], names: &ParamNames) -> u64 {
    let moved = |name: &str| stages.iter().any(|stage| stage.moves(name));
    let moves = |name: &str| stages.last().is_some_and(|stage| stage.moves(name));
    // Two folders and the position.
    file(names, moved, numbers) + file(names, moves, |shape| 2 * numbers(shape)) + 3 * BLOCK
}

/// The most that two states take which follow each other, given that of every stage.
fn states_at_once(config: &RunConfig, states: &[u64], names: &ParamNames) -> u64 {
    let mut most = 0;
    let mut before = 0;
    for (stage, state) in config.stages.iter().zip(states) {
        let of_network =
            |name: &str| name.starts_with("unet.") || name.starts_with("text_encoder.");
        let trains_network = names
            .keys()
            .any(|name| of_network(name) && stage.moves(name));
        let is_saved_again = stage.steps > save_interval(trains_network);
        most = most.max(state + if is_saved_again { *state } else { before });
        before = *state;
    }
    most
}

/// The file or folder that a set of weights writes: all that was moved in any stage and is written there.
fn result(config: &RunConfig, adapter: &dyn Adapter, names: &ParamNames) -> u64 {
    let entries = config.stages.iter().flat_map(|stage| &stage.train);
    let entries: Vec<_> = entries
        .filter(|entry| entry.adapter.adapter().file() == adapter.file())
        .collect();
    let moved = |name: &str| entries.iter().any(|entry| entry.moves(name)) || adapter.moves(name);
    let is_folder = Path::new(adapter.file()).extension().is_none();
    // The folder itself and its configuration.
    let beside = if is_folder { 2 * BLOCK } else { 0 };
    file(names, moved, |shape| adapter.numbers_written(shape)) + beside
}

/// The run folder with configuration, environment and the numbers of every step.
fn files_beside(config: &RunConfig) -> u64 {
    let steps = config.stages.iter().map(|stage| stage.steps as u64);
    let steps = steps.fold(0, u64::saturating_add);
    let columns = 5 + config.term_kinds().len() as u64;
    let row = 10 * columns + 12;
    let mut bytes = 3 * BLOCK + BLOCK + on_disk(times(steps, row));
    for other in &config.report_to {
        bytes += on_disk(match other {
            ReportTo::MetricsJsonl => times(steps, row + 16 * columns),
            ReportTo::TensorBoard => times(steps, columns * 60),
        });
    }
    bytes
}

/// How often something happens after every so many steps of a stage.
fn intervals(config: &RunConfig, every: usize) -> u64 {
    let stages = config.stages.iter();
    let counts = stages.map(|stage| stage.steps.checked_div(every).unwrap_or(0) as u64);
    counts.fold(0, u64::saturating_add)
}

fn checkpoints(config: &RunConfig) -> u64 {
    config
        .checkpoint_every
        .map_or(0, |every| intervals(config, every))
}

/// The number of validation images.
fn images(config: &RunConfig) -> u64 {
    let validation = config.validation.as_ref();
    validation.map_or(0, |validation| {
        intervals(config, validation.every).saturating_mul(validation.prompts.len() as u64)
    })
}
