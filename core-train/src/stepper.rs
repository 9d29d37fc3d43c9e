//! One optimiser step after the other: what training, estimates, benchmarks and test-time
//! optimisation have in common.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use core_losses::{LossTerm, total_loss};
use core_model::noise_scheduler::{DdpmScheduler, SchedulerConfig};
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::pipeline::StableDiffusionPipeline;
use core_model::tokenizer::Tokenizer;
use core_model::vae::AutoencoderKl;

use crate::base_model::BaseModel;
use crate::config::{RunConfig, StageConfig};
use crate::data::batch::BatchSizes;
use crate::data::draws::Source;
use crate::data::nested_dropout::NestedDropout;
use crate::data::prompts::StagePrompts;
use crate::error::Result;
use crate::fault::{Fault, finite};
use crate::logging::Row;
use crate::loss_scale::LossScale;
use crate::observe::{Reads, Scene, observe};
use crate::optimizer::{GradientSet, Optimizer};
use crate::prompt_encoder::{Moving, PromptEncoder};
use crate::readings::Readings;
use crate::rescale::Rescaling;
use crate::run::position::Position;
use crate::run::state::save_interval;
use crate::setup::{self, ClassImages};

const IN_PLACE: &str = "the networks are in their place";

/// A run at some step: model, optimiser and all that the next step needs.
#[derive(Debug)]
pub struct Stepper<'a> {
    config: &'a RunConfig,
    device: Device,
    parts: Parts,
    /// Absent while the optimiser moves its weights, and nowhere else held in memory, so that they are
    /// moved in place.
    model: Option<PersonalizedModel>,
    /// The model before training, of every stage from whose start on there are more parameters.
    extended: BTreeMap<usize, PersonalizedModel>,
    first_vectors: Option<Tensor<2>>,
    noise_scheduler: DdpmScheduler,
    prompts: Vec<StagePrompts>,
    sources: Vec<Source>,
    stage: Stage,
    /// Where networks compute in float16.
    loss_scale: Option<LossScale>,
    position: Position,
}

/// What an image is drawn with beside the networks that are trained.
#[derive(Debug)]
struct Parts {
    tokenizer: Tokenizer,
    vae: AutoencoderKl,
    scheduler_config: SchedulerConfig,
}

/// What belongs to one stage.
#[derive(Debug)]
struct Stage {
    terms: Vec<LossTerm>,
    reads: Reads,
    encoder: PromptEncoder,
    optimizer: Optimizer,
    rescaling: Rescaling,
    nested_dropout: Option<NestedDropout>,
    /// Whether more moves than the concept.
    trains_network: bool,
}

/// A step that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where the run is after it.
    pub position: Position,
    /// Its line of `metrics.csv`.
    pub row: Row,
}

impl<'a> Stepper<'a> {
    /// A run before its first step, on the networks of a base model. Everything that can be wrong
    /// with photos, prompts, sets of weights and replay is found here. Weights that are trained stay in
    /// memory as they were only where the caller keeps a clone of the base model.
    ///
    /// # Errors
    /// What does not fit, by file, key or prompt.
    pub fn new(config: &'a RunConfig, base: BaseModel, replay: Option<&Path>) -> Result<Self> {
        Self::with_class_images(config, base, replay, ClassImages::AsConfigured)
    }

    /// The same for a run of which only time and memory are wanted: nothing is drawn for it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn to_measure(
        config: &'a RunConfig,
        base: BaseModel,
        replay: Option<&Path>,
    ) -> Result<Self> {
        Self::with_class_images(config, base, replay, ClassImages::StandIns)
    }

    fn with_class_images(
        config: &'a RunConfig,
        base: BaseModel,
        replay: Option<&Path>,
        class_images: ClassImages,
    ) -> Result<Self> {
        let pipeline = setup::with_concept(config, base.pipeline.clone(), &base.device)?;
        Self::on(config, &base, pipeline, replay, class_images)
    }

    /// The same on a pipeline that knows the concept already.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn on(
        config: &'a RunConfig,
        base: &BaseModel,
        pipeline: StableDiffusionPipeline,
        replay: Option<&Path>,
        class_images: ClassImages,
    ) -> Result<Self> {
        let StableDiffusionPipeline {
            tokenizer,
            model,
            vae,
            scheduler_config,
        } = pipeline;
        let mut stage_models = setup::stage_models(config, model)?.into_iter();
        let mut model = stage_models.next().expect("a run has a stage");
        if let Some(path) = replay {
            model = setup::with_start_values(&config.stages[0], model, path, &base.device)?;
        }
        let mut extended = BTreeMap::new();
        let mut names = model.names().clone();
        for (index, later) in (1..).zip(stage_models) {
            if !later.names().is(&names) {
                names = later.names().clone();
                extended.insert(index, later);
            }
        }
        setup::check_validation(config, &scheduler_config)?;
        let prompts = setup::prompts(config, &tokenizer)?;
        let noise_scheduler = DdpmScheduler::new(&scheduler_config)?;
        let sources = setup::sources(
            config,
            base,
            &noise_scheduler,
            replay.map(|path| (path, &model)),
            class_images,
        )?;
        let vectors = model.embedding().map(ConceptEmbedding::vectors);
        let (model, stage) = enter(&config.stages[0], model);
        let precision = config.model.precision.unwrap_or_default();
        Ok(Self {
            config,
            device: base.device.clone(),
            parts: Parts {
                tokenizer,
                vae,
                scheduler_config,
            },
            model: Some(model),
            extended,
            first_vectors: vectors.map(Tensor::inner),
            noise_scheduler,
            prompts,
            sources,
            stage,
            loss_scale: LossScale::of(precision.computed_on(&base.device)),
            position: Position::default(),
        })
    }

    /// Goes to the start of a stage with the weights as they are, and what the stage adds to them.
    pub(crate) fn begin_stage(&mut self, index: usize) {
        let mut model = self.take_model();
        if let Some((_, extended)) = self.extended.range(..=index).next_back() {
            model = extended.with_values_of(model);
        }
        self.enter(index, model);
        self.position = Position {
            stage: index,
            step: 0,
            ..self.position
        };
    }

    /// The networks, to be put back.
    fn take_model(&mut self) -> PersonalizedModel {
        self.model.take().expect(IN_PLACE)
    }

    /// Trains a model as stage `index` does.
    fn enter(&mut self, index: usize, model: PersonalizedModel) {
        let (model, stage) = enter(&self.config.stages[index], model);
        (self.model, self.stage) = (Some(model), stage);
    }

    /// Makes the next step; `None` when the run is at its end. After a fault the run is where it
    /// was before the step.
    pub fn next_step(&mut self) -> Option<Result<Step, Fault>> {
        if self.position.step == self.config.stages[self.position.stage].steps {
            let next = self.position.stage + 1;
            if next == self.config.stages.len() {
                return None;
            }
            self.begin_stage(next);
        }
        Some(self.step())
    }

    /// One step: gradients of all forward passes, then the optimiser, then Eq. 6.
    fn step(&mut self) -> Result<Step, Fault> {
        let config = &self.config.stages[self.position.stage];
        let step = self.position.step + 1;
        let (mut gradients, mut row) = self.gradients(step)?;
        if let Some(max_norm) = config.optimizer.max_grad_norm {
            gradients.clip_norm(max_norm);
        }
        row.embedding_norm = self.update(gradients, step)?;
        self.position.step = step;
        self.position.total += 1;
        Ok(Step {
            position: self.position,
            row,
        })
    }

    /// The gradients of a step, and its losses; in float16 with the first loss scale at which they are
    /// finite.
    fn gradients(&mut self, step: usize) -> Result<(GradientSet, Row), Fault> {
        let config = &self.config.stages[self.position.stage];
        loop {
            let mut row = Row::new(&config.name, step, config.learning_rate_of_step(step));
            let (gradients, readings) = self.passes();
            if let Err(fault) = readings.read(&gradients, &mut row)? {
                if self.loss_scale.as_mut().is_some_and(LossScale::shrink) {
                    continue;
                }
                return Err(fault);
            }
            if let Some(scale) = &mut self.loss_scale {
                scale.keep();
            }
            let passes = config.gradient_accumulation_steps;
            if passes > 1 {
                row.scale(1.0 / passes as f64);
            }
            return Ok((gradients, row));
        }
    }

    /// All forward and backward passes of the next step.
    fn passes(&mut self) -> (GradientSet, Readings) {
        let config = &self.config.stages[self.position.stage];
        let passes = config.gradient_accumulation_steps;
        let factor = self.loss_scale.as_ref().map(LossScale::factor);
        let (mut gradients, mut readings) = (GradientSet::default(), Readings::default());
        for pass in 0..passes {
            let index = self.position.step * passes + pass;
            // What was observed is let go of before the backward pass.
            let losses = {
                let observed = self.observe(index);
                total_loss(&self.stage.terms, &observed)
            };
            let Some(losses) = losses else { continue };
            readings.add(&losses);
            let total = match factor {
                Some(factor) => losses.total * factor,
                None => losses.total,
            };
            let mut grads = total.backward();
            gradients.add_module(self.model(), self.model().names(), &mut grads);
        }
        if let Some(factor) = factor {
            gradients.scale(1.0 / factor);
        }
        if passes > 1 {
            gradients.scale(1.0 / passes as f64);
        }
        (gradients, readings)
    }

    /// The passes of the stage's forward pass `index`, from 0.
    fn observe(&mut self, index: usize) -> core_losses::Observed {
        let number = self.position.stage;
        let prompts = &self.prompts[number];
        let sizes = BatchSizes {
            batch_size: self.config.stages[number].batch_size,
            prompts: prompts.own,
            class_prompts: prompts.class_prompts.len(),
            templates: prompts.templates.len(),
            nested_dropout: self.stage.nested_dropout,
            num_train_timesteps: self.noise_scheduler.num_train_timesteps(),
            flip: self.config.concept.flip,
        };
        let batch = self.sources[number].batch(index, &sizes, &self.device);
        let scene = Scene {
            batch: &batch,
            prompts,
            noise_scheduler: &self.noise_scheduler,
            first_vectors: self.first_vectors.as_ref(),
        };
        observe(
            self.model.as_ref().expect(IN_PLACE),
            &mut self.stage.encoder,
            scene,
            &self.stage.reads,
        )
    }

    /// Moves the weights; the norm of the concept's vectors afterwards. The concept goes first: when it
    /// becomes NaN or infinite although its gradient was finite, it stays where it was and nothing else
    /// has moved.
    fn update(&mut self, gradients: GradientSet, step: usize) -> Result<Option<f32>, Fault> {
        const CONCEPT: &str = ConceptEmbedding::NAME;
        let config = &self.config.stages[self.position.stage];
        let concept = self.model().embedding().cloned();
        let Stage {
            optimizer,
            rescaling,
            ..
        } = &mut self.stage;
        let rate = |name: &str| config.learning_rate_of(name, step);
        let constrain = |name: &str, value| config.constrain(name, value);
        let (of_concept, others) = gradients.split(CONCEPT);
        let mut norm = None;
        optimizer.begin_step();
        if let Some(concept) = concept {
            let kept = optimizer.kept_of(CONCEPT);
            let vectors = concept.vectors().inner();
            let moved = optimizer.update(CONCEPT, vectors, &of_concept, rate(CONCEPT));
            let moved = rescaling.after_step(concept.with_vectors(moved), step);
            match finite("the norm of the embedding", moved.norm()) {
                Ok(moved) => norm = Some(moved),
                Err(fault) => {
                    optimizer.undo_step(CONCEPT, kept);
                    return Err(fault);
                }
            }
            let model = self.model.as_mut().expect(IN_PLACE);
            model.set_vectors(moved.vectors());
        }
        if !others.is_empty() {
            let model = self.take_model();
            let names = model.names().clone();
            let optimizer = &mut self.stage.optimizer;
            let moved = optimizer.update_module(model, &names, &others, rate, constrain);
            self.model = Some(moved);
        }
        Ok(norm)
    }

    /// Whether enough steps were made since the last state that a kill would cost more than saving
    /// does.
    pub(crate) fn is_save_point(&self) -> bool {
        let config = self.stage_config();
        let every = save_interval(self.stage.trains_network);
        let step = self.position.step;
        step.is_multiple_of(every) || step == config.steps
    }

    /// Whether all trained weights are finite.
    pub(crate) fn is_finite(&self) -> bool {
        let config = self.stage_config();
        let tensors = self.model().tensors(|name| config.moves(name));
        let mut values = tensors.iter().flat_map(|tensor| &tensor.values);
        values.all(|value| value.is_finite())
    }

    /// What is trained, and how.
    pub fn config(&self) -> &'a RunConfig {
        self.config
    }

    /// Where the tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where the run is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The stage that the run is in.
    pub fn stage_config(&self) -> &'a StageConfig {
        &self.config.stages[self.position.stage]
    }

    /// The networks as they are now.
    pub fn model(&self) -> &PersonalizedModel {
        self.model.as_ref().expect(IN_PLACE)
    }

    /// Draws images with the networks as they are now.
    pub fn pipeline(&self) -> StableDiffusionPipeline {
        let Parts {
            tokenizer,
            vae,
            scheduler_config,
        } = &self.parts;
        StableDiffusionPipeline {
            tokenizer: tokenizer.clone(),
            model: self.model().valid(),
            vae: vae.clone(),
            scheduler_config: scheduler_config.clone(),
        }
    }

    /// The optimiser of the stage, and the norm that Eq. 6 restores.
    pub(crate) fn optimizer(&self) -> (&Optimizer, Option<f32>) {
        (&self.stage.optimizer, self.stage.rescaling.recorded_norm())
    }

    /// What the loss is multiplied by, if anything.
    pub(crate) fn loss_scale(&self) -> Option<&LossScale> {
        self.loss_scale.as_ref()
    }

    /// Goes on with the loss scale of an interrupted run.
    pub(crate) fn set_loss_scale(&mut self, restored: LossScale) {
        if let Some(scale) = &mut self.loss_scale {
            *scale = restored;
        }
    }

    /// Puts the run where an interrupted one was.
    pub(crate) fn resume(
        &mut self,
        position: Position,
        model: PersonalizedModel,
        optimizer: Optimizer,
        recorded_norm: Option<f32>,
    ) {
        self.enter(position.stage, model);
        self.stage.optimizer = optimizer;
        self.stage.rescaling = self.stage.rescaling.with_recorded_norm(recorded_norm);
        self.position = position;
    }

    /// Draws from other random numbers than the stages of a run: those of stage `number`.
    pub(crate) fn with_draws_of_stage(mut self, number: usize) -> Self {
        for source in &mut self.sources {
            if let Source::Random(draws) = source {
                draws.stage = number;
            }
        }
        self
    }
}

/// The networks as a stage trains them, and the stage before its first step.
fn enter(config: &StageConfig, model: PersonalizedModel) -> (PersonalizedModel, Stage) {
    let model = model
        .train_only(|name| config.moves(name))
        .with_gradient_checkpointing(config.gradient_checkpointing)
        .with_first_token_gradient_stopped(config.stop_first_token_gradient);
    let stage = Stage::new(config, &model);
    (model, stage)
}

impl Stage {
    fn new(config: &StageConfig, model: &PersonalizedModel) -> Self {
        let terms = config.terms();
        let any = |part: &str| {
            let names = model.names();
            names
                .keys()
                .any(|name| name.starts_with(part) && config.moves(name))
        };
        let moving = Moving {
            concept: any("concept.") || any("neti."),
            text_encoder: any("text_encoder."),
        };
        Self {
            reads: Reads::of(&terms),
            terms,
            encoder: PromptEncoder::new(moving),
            optimizer: Optimizer::new(config.optimizer.rule()),
            rescaling: Rescaling::new(config.rescale_window(), model.embedding()),
            nested_dropout: setup::nested_dropout(config, model),
            trains_network: any("unet.") || moving.text_encoder,
        }
    }
}
