//! The loop over stages, top to bottom.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::checkpoint::{Precision, save_module};
use core_model::device::parse_device;
use core_model::folder::ModelFolder;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::network::DIFFUSERS_WEIGHTS;
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::{ParamNames, to_vec};
use core_model::pipeline::StableDiffusionPipeline;

use crate::conditioning::StagePrompts;
use crate::config::{RunConfig, StageConfig};
use crate::data::concept::{ConceptLatents, load_photos};
use crate::data::prompts::{ConceptWords, word_ids};
use crate::draws::Source;
use crate::environment;
use crate::error::{Error, Result};
use crate::metrics::MetricsWriter;
use crate::optimizer::Optimizer;
use crate::progress::Progress;
use crate::replay::{Replay, ReplayFit};
use crate::run_dir::{EMBEDDING, ENVIRONMENT, METRICS, RunDir, UNET, Unfinished, VALIDATION};
use crate::stage::{self, Fault, Stage};
use crate::state::{Position, StateFolder, Weights};
use crate::validation;

/// Steps between two saved states. What is lost by a kill is at most this much work, and what is
/// written grows with what is trained.
const STATE_EVERY_EMBEDDING: usize = 50;
const STATE_EVERY_UNET: usize = 100;

/// Where a run goes and how.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// The run folder; it lies beside under a scratch name until the run is complete.
    pub output: &'a Path,
    /// What to do about an unfinished run there.
    pub unfinished: Unfinished,
    /// The model of the configuration where it is located already, so that a caller with many runs
    /// hashes its files once; else it is located here.
    pub model: Option<&'a ModelFolder>,
    /// Randomness of the first stage.
    pub replay: Option<&'a Path>,
    /// Becomes true when the run is to stop after the step it is at.
    pub stop: &'a AtomicBool,
    /// Whether progress is shown on standard error.
    pub show_progress: bool,
}

/// Trains what `config` says and returns the complete run folder.
///
/// # Errors
/// Everything that can be wrong with model, photos, prompts and folder, found before the first
/// step; [`Error::NotFinite`] and [`Error::Interrupted`] later, with the state saved.
pub fn run(config: &RunConfig, options: &RunOptions<'_>) -> Result<PathBuf> {
    let device = parse_device(&config.device)?;
    let model = match options.model {
        Some(model) => model.clone(),
        None => config.model.source().locate()?,
    };
    let learner = Learner::load(config, model, &device, options.replay, None)?;
    // Reads every file of the model, so that nothing of it can fail once the folder is made.
    learner.model.digests()?;
    let (dir, position) = RunDir::open(options.output, config, options.unfinished)?;
    warn_of_idle_windows(config);
    let metrics = match learner.begin(&dir, position) {
        Ok(metrics) => metrics,
        Err(error) => {
            dir.abandon();
            return Err(error);
        }
    };
    learner.train(&dir, position, metrics, options)?;
    dir.complete()
}

/// The networks and data of a run, loaded and checked.
#[derive(Debug)]
pub(crate) struct Learner<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) model: ModelFolder,
    pub(crate) device: Device,
    pub(crate) pipeline: StableDiffusionPipeline,
    pub(crate) noise_scheduler: DdpmScheduler,
    pub(crate) latents: Option<ConceptLatents>,
    pub(crate) prompts: Vec<StagePrompts>,
    pub(crate) first_rows: Tensor<2>,
    replay: Option<Replay>,
}

impl<'a> Learner<'a> {
    pub(crate) fn load(
        config: &'a RunConfig,
        model: ModelFolder,
        device: &Device,
        replay: Option<&Path>,
        tuned_unet: Option<&Path>,
    ) -> Result<Self> {
        model.weights().precision.check(&config.device)?;
        let mut pipeline = StableDiffusionPipeline::load_with_unet(&model, tuned_unet, device)?;
        check_something_trains(config, pipeline.unet.names())?;
        let first_rows = initial_rows(config, &pipeline, device)?;
        let concept = &config.concept;
        let token = concept.placeholder_token();
        pipeline
            .tokenizer
            .add_placeholder(&token, concept.num_vectors)?;
        let words = ConceptWords {
            tokenizer: &pipeline.tokenizer,
            placeholder_token: &token,
            super_category: &concept.super_category,
        };
        let prompts = config.stages.iter().map(|stage| {
            let templates = stage.regularization_prompts.as_ref();
            let templates = templates.map_or(&[][..], |source| source.templates());
            StagePrompts::new(&words, stage.prompts.templates(), templates)
        });
        let prompts = prompts.collect::<Result<_>>()?;
        let noise_scheduler = DdpmScheduler::new(&pipeline.scheduler_config)?;
        let replay = match replay {
            Some(path) => Some(open_replay(config, &pipeline, &noise_scheduler, path)?),
            None => None,
        };
        // A replayed first stage needs no photos.
        let latents = if replay.is_none() || config.stages.len() > 1 {
            Some(encode_photos(config, &pipeline, device)?)
        } else {
            None
        };
        Ok(Self {
            config,
            model,
            device: device.clone(),
            pipeline,
            noise_scheduler,
            latents,
            prompts,
            first_rows,
            replay,
        })
    }

    pub(crate) fn source(&self, stage: usize) -> Source<'_> {
        match (&self.replay, &self.latents) {
            (Some(replay), _) if stage == 0 => Source::Replay(replay),
            (_, Some(latents)) => Source::Random {
                latents,
                seed: self.config.seed,
                stage,
            },
            _ => unreachable!("photos are loaded unless the only stage is replayed"),
        }
    }

    pub(crate) fn stage(&self, index: usize) -> Stage<'_> {
        Stage::new(
            &self.config.stages[index],
            &self.noise_scheduler,
            &self.pipeline.text_encoder,
            &self.prompts[index],
            self.source(index),
            self.config.concept.flip,
            &self.device,
        )
    }

    pub(crate) fn first_weights(&self) -> Weights {
        Weights {
            rows: self.first_rows.clone(),
            recorded_norm: None,
            unet: self.pipeline.unet.clone(),
        }
    }

    /// Writes what a run folder holds before the first step.
    fn begin(&self, dir: &RunDir, position: Option<Position>) -> Result<MetricsWriter> {
        let folder = dir.folder();
        environment::write(&folder.join(ENVIRONMENT), self.config, &self.model)?;
        let rows = position.map_or(0, |position| position.total);
        let kinds = self.config.regularizer_kinds();
        MetricsWriter::open(&folder.join(METRICS), kinds, rows)
    }

    fn train(
        &self,
        dir: &RunDir,
        position: Option<Position>,
        mut metrics: MetricsWriter,
        options: &RunOptions<'_>,
    ) -> Result<()> {
        let folder = dir.folder();
        let states = StateFolder::of(folder);

        // 1. where to begin: at the start or after the saved step
        let mut weights = self.first_weights();
        let mut resumed = None;
        if let Some(position) = position {
            let optimizer = states.restore(self.config, position, &mut weights, &self.device)?;
            resumed = Some((position, optimizer));
        }
        let first = position.map_or(0, |position| position.stage);
        let mut trained_unet = self.config.stages[..first]
            .iter()
            .any(StageConfig::trains_unet);

        for (index, config) in self.config.stages.iter().enumerate().skip(first) {
            // 2. what this stage trains
            let mut stage = self.stage(index);
            weights.unet = stage.choose(weights.unet);
            trained_unet |= config.trains_unet();
            let done_before: usize = self.config.stages[..index].iter().map(|s| s.steps).sum();
            let mut done = 0;
            if let Some((position, optimizer)) = resumed.take() {
                done = position.step;
                stage.optimizer = optimizer;
            } else {
                weights.recorded_norm = None;
            }
            let every = if config.trains_unet() {
                STATE_EVERY_UNET
            } else {
                STATE_EVERY_EMBEDDING
            };
            let mut progress = options
                .show_progress
                .then(|| Progress::new(&config.name, done as u64, config.steps as u64));

            for step in done + 1..=config.steps {
                let save = |weights: &Weights, stage: &Stage<'_>, step: usize| {
                    self.save_embedding(weights, folder)?;
                    let position = Position {
                        stage: index,
                        step,
                        total: done_before + step,
                    };
                    states.save(position, weights, &stage.optimizer, trained_unet)
                };
                // 3. gradients
                let (gradients, terms) = match stage.gradients(&weights, step) {
                    Ok(found) => found,
                    Err(fault) => {
                        metrics.sync()?;
                        save(&weights, &stage, step - 1)?;
                        return Err(not_finite(config, step, fault, folder));
                    }
                };
                // 4. step
                let before = (weights.rows.clone(), keep_optimizer(&stage));
                weights = stage.update(weights, &gradients, step);
                if let Some(fault) = stage::diverged(&weights) {
                    metrics.sync()?;
                    if let (rows, Some(optimizer)) = before {
                        weights.rows = rows;
                        stage.optimizer = optimizer;
                        save(&weights, &stage, step - 1)?;
                    }
                    return Err(not_finite(config, step, fault, folder));
                }
                // 5. log
                let row = stage.row(&terms, &weights, step);
                metrics.write(&row)?;
                if let Some(progress) = &mut progress {
                    progress.advance(&format!("loss {:.4}", row.loss));
                }
                // 6. pictures
                self.validate(config, &weights, step, folder)?;
                // 7. save
                let stopping = options.stop.load(Ordering::Relaxed);
                if step % every == 0 || step == config.steps || stopping {
                    metrics.sync()?;
                    save(&weights, &stage, step)?;
                }
                if stopping {
                    return Err(Error::Interrupted {
                        stage: config.name.clone(),
                        step,
                        folder: folder.to_path_buf(),
                    });
                }
            }
            if let Some(progress) = &progress {
                progress.finish();
            }
        }

        // 8. results
        self.save_embedding(&weights, folder)?;
        if self.config.trains_unet() {
            self.save_unet(&weights, &folder.join(UNET))?;
        }
        Ok(())
    }

    fn validate(
        &self,
        config: &StageConfig,
        weights: &Weights,
        step: usize,
        folder: &Path,
    ) -> Result<()> {
        let Some(validation) = &self.config.validation else {
            return Ok(());
        };
        if !step.is_multiple_of(validation.every) {
            return Ok(());
        }
        let pipeline = StableDiffusionPipeline {
            tokenizer: self.pipeline.tokenizer.clone(),
            text_encoder: self.pipeline.text_encoder.clone(),
            unet: weights.unet.valid(),
            vae: self.pipeline.vae.clone(),
            scheduler_config: self.pipeline.scheduler_config.clone(),
        };
        let token = self.config.concept.placeholder_token();
        let shots = validation::Shots {
            prompts: &validation.prompts,
            token: &token,
            rows: &weights.rows,
            seed: self.config.seed,
        };
        let name = format!("{}-{step:05}", config.name);
        validation::draw(&pipeline, &shots, &folder.join(VALIDATION), &name)
    }

    fn save_embedding(&self, weights: &Weights, folder: &Path) -> Result<()> {
        let embedding = self.learned(weights)?;
        Ok(embedding.save(&folder.join(EMBEDDING))?)
    }

    pub(crate) fn learned(&self, weights: &Weights) -> Result<LearnedEmbedding> {
        let concept = &self.config.concept;
        let [_, width] = weights.rows.dims();
        let values = to_vec(weights.rows.clone());
        let rows: Vec<Vec<f32>> = values.chunks(width).map(<[f32]>::to_vec).collect();
        let mut embedding = LearnedEmbedding::new(&concept.placeholder_token(), &rows)?;
        let model = &self.config.model.path;
        let name = model
            .file_name()
            .unwrap_or(model.as_os_str())
            .to_string_lossy();
        for (key, value) in [
            ("super_category", concept.super_category.as_str()),
            ("base_model", name.as_ref()),
        ] {
            embedding
                .metadata
                .insert(key.to_string(), value.to_string());
        }
        Ok(embedding)
    }

    /// The weights, beside a copy of the base model's `config.json`.
    fn save_unet(&self, weights: &Weights, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let original = self.model.path().join("unet/config.json");
        let bytes = core_model::files::read(&original)?;
        core_model::files::write_atomically(&folder.join("config.json"), &bytes)?;
        let path = folder.join(DIFFUSERS_WEIGHTS);
        let unet = &weights.unet;
        Ok(save_module(&path, unet, unet.names(), Precision::Full)?)
    }
}

/// Refuses a stage that names no weight of this model.
fn check_something_trains(config: &RunConfig, unet: &ParamNames) -> Result<()> {
    for (index, stage) in config.stages.iter().enumerate() {
        let moves = |key: &str| stage.train.iter().any(|set| set.holds(key));
        if !stage.trains_embedding() && !unet.keys().any(moves) {
            return Err(Error::Config {
                path: config.model.path.clone(),
                key: format!("stages.{index}.train"),
                reason: "names no weight that this U-Net has".into(),
            });
        }
    }
    Ok(())
}

/// The optimiser before a step, where its tensors are few.
fn keep_optimizer(stage: &Stage<'_>) -> Option<Optimizer> {
    (!stage.config.trains_unet()).then(|| stage.optimizer.clone())
}

fn not_finite(config: &StageConfig, step: usize, fault: Fault, folder: &Path) -> Error {
    Error::NotFinite {
        stage: config.name.clone(),
        step,
        what: fault.what,
        value: fault.value,
        kept: step - 1,
        folder: folder.to_path_buf(),
    }
}

/// A window after the last step is most likely left over from a longer stage.
fn warn_of_idle_windows(config: &RunConfig) {
    for stage in &config.stages {
        if let Some(window) = stage.rescale_window().filter(|w| w.from >= stage.steps) {
            tracing::warn!(
                "stage `{}` ends at step {} and never rescales, which would begin after step {}",
                stage.name,
                stage.steps,
                window.from
            );
        }
    }
}

/// Every vector starts at the mean of the initialiser's rows of the token table.
fn initial_rows(
    config: &RunConfig,
    pipeline: &StableDiffusionPipeline,
    device: &Device,
) -> Result<Tensor<2>> {
    let words = config.concept.initializer();
    let ids = word_ids(&pipeline.tokenizer, words);
    if ids.is_empty() {
        let reason = format!("the initializer token {words:?} has no token in the vocabulary");
        return Err(core_model::Error::Invalid(reason).into());
    }
    let rows: Vec<Vec<f32>> = ids
        .iter()
        .map(|id| pipeline.text_encoder.token_embedding(*id))
        .collect();
    let width = rows[0].len();
    let mean: Vec<f32> = (0..width)
        .map(|i| (rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64) as f32)
        .collect();
    let count = config.concept.num_vectors;
    Ok(Tensor::from_data(
        TensorData::new(mean.repeat(count), [count, width]),
        device,
    ))
}

fn open_replay(
    config: &RunConfig,
    pipeline: &StableDiffusionPipeline,
    noise_scheduler: &DdpmScheduler,
    path: &Path,
) -> Result<Replay> {
    let fit = ReplayFit {
        stage: &config.stages[0],
        channels: pipeline.unet.config().in_channels,
        num_train_timesteps: noise_scheduler.num_train_timesteps(),
    };
    Replay::open(path, fit)
}

fn encode_photos(
    config: &RunConfig,
    pipeline: &StableDiffusionPipeline,
    device: &Device,
) -> Result<ConceptLatents> {
    let [_, side, _] = pipeline.latent_shape()?;
    let side = side * pipeline.vae.config().factor();
    let photos = load_photos(&config.concept, side as u32)?;
    Ok(ConceptLatents::new(
        &pipeline.vae,
        &photos,
        config.concept.flip,
        device,
    ))
}
