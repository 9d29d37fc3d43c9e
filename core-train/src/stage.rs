//! A stage at work: gradients of a step, then the step.

use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::noise_scheduler::DdpmScheduler;
use core_model::params::{set_trainable, to_vec};
use core_model::text_encoder::TextEncoder;
use core_model::unet::UNet2DConditionModel;

use crate::conditioning::{PromptEncoder, StagePrompts};
use crate::config::StageConfig;
use crate::draws::{Choices, Source};
use crate::metrics::Row;
use crate::optimizer::{GradientSet, Optimizer};
use crate::state::Weights;
use crate::step::{Objective, forward};

/// The embedding's name among the optimiser's tensors; no key of a U-Net has it.
const EMBEDDING: &str = "concept_embedding";

/// A loss or gradient that is no number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) value: f32,
}

/// The values of one step's terms, averaged over its forward passes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Terms {
    loss: f64,
    diffusion: f64,
    regularizers: Vec<(&'static str, f64)>,
}

/// One stage with everything its steps need but the weights.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) config: &'a StageConfig,
    pub(crate) noise_scheduler: &'a DdpmScheduler,
    pub(crate) encoder: PromptEncoder<'a>,
    pub(crate) source: Source<'a>,
    pub(crate) choices: Choices,
    pub(crate) optimizer: Optimizer,
    pub(crate) diffusion: bool,
    pub(crate) device: &'a Device,
}

impl<'a> Stage<'a> {
    /// A stage before its first step.
    pub(crate) fn new(
        config: &'a StageConfig,
        noise_scheduler: &'a DdpmScheduler,
        text_encoder: &'a TextEncoder,
        prompts: &'a StagePrompts,
        source: Source<'a>,
        flip: bool,
        device: &'a Device,
    ) -> Self {
        Self {
            config,
            noise_scheduler,
            encoder: PromptEncoder::new(text_encoder, prompts),
            source,
            choices: Choices {
                batch_size: config.batch_size,
                prompts: prompts.training(),
                templates: prompts.templates(),
                num_train_timesteps: noise_scheduler.num_train_timesteps(),
                flip,
            },
            optimizer: Optimizer::new(config.optimizer.adamw()),
            diffusion: true,
            device,
        }
    }

    /// Puts the weights that the stage trains on the tape and all others off it; how many tensors
    /// of the U-Net are on it.
    pub(crate) fn choose(&self, unet: UNet2DConditionModel) -> UNet2DConditionModel {
        let names = unet.names().clone();
        let chosen = |key: &str| self.config.train.iter().any(|set| set.holds(key));
        set_trainable(unet, &names, chosen)
            .with_gradient_checkpointing(self.config.gradient_checkpointing)
    }

    /// The gradients of step `step`, from 1, averaged over its forward passes.
    pub(crate) fn gradients(
        &mut self,
        weights: &Weights,
        step: usize,
    ) -> Result<(GradientSet, Terms), Fault> {
        let passes = self.config.gradient_accumulation_steps;
        let mut gradients = GradientSet::default();
        let mut terms = Terms::default();
        for pass in 0..passes {
            let index = (step - 1) * passes + pass;
            self.add_pass(weights, index, &mut gradients, &mut terms)?;
        }
        if passes > 1 {
            gradients.scale(1.0 / passes as f64);
            terms.scale(1.0 / passes as f64);
        }
        let total = gradients.sum();
        if !total.is_finite() {
            return Err(Fault {
                what: "the gradient".into(),
                value: total,
            });
        }
        if let Some(max_norm) = self.config.optimizer.max_grad_norm {
            gradients.clip_norm(max_norm);
        }
        Ok((gradients, terms))
    }

    fn add_pass(
        &mut self,
        weights: &Weights,
        index: usize,
        gradients: &mut GradientSet,
        terms: &mut Terms,
    ) -> Result<(), Fault> {
        let batch = self.source.batch(index, &self.choices, self.device);
        let rows = if self.config.trains_embedding() {
            weights.rows.clone().autodiff().require_grad()
        } else {
            weights.rows.clone()
        };
        let conditioning = self.encoder.encode(&batch, &rows);
        let objective = Objective {
            diffusion: self.diffusion,
            regularizers: &self.config.regularizers,
        };
        let unet = &weights.unet;
        let losses = forward(
            unet,
            self.noise_scheduler,
            &batch,
            &conditioning,
            &objective,
        );
        let Some(losses) = losses else {
            return Ok(());
        };
        let diffusion = losses
            .diffusion
            .map(|value| finite("the diffusion loss", value));
        terms.diffusion += f64::from(diffusion.transpose()?.unwrap_or(0.0));
        for (kind, value) in losses.terms {
            if let Some(value) = value {
                terms.add(kind, finite(kind, value)?);
            }
        }
        terms.loss += f64::from(finite("the loss", losses.total.clone())?);
        let mut grads = losses.total.backward();
        if let Some(grad) = rows
            .is_require_grad()
            .then(|| rows.grad_remove(&mut grads))
            .flatten()
        {
            gradients.add(EMBEDDING, grad);
        }
        gradients.add_module(unet, unet.names(), &mut grads);
        Ok(())
    }

    /// Moves the weights by the gradients of step `step`, then rescales the embedding (Eq. 6).
    pub(crate) fn update(
        &mut self,
        weights: Weights,
        gradients: &GradientSet,
        step: usize,
    ) -> Weights {
        let learning_rate = self.learning_rate(step);
        self.optimizer.begin_step();
        let Weights {
            rows,
            recorded_norm,
            unet,
        } = weights;
        let recorded_norm = match self.config.rescale_window() {
            Some(window) if window.from == 0 && step == 1 => Some(norm(&rows)),
            _ => recorded_norm,
        };
        let rows = self
            .optimizer
            .update(EMBEDDING, rows, gradients, learning_rate);
        let names = unet.names().clone();
        let unet = self
            .optimizer
            .update_module(unet, &names, gradients, learning_rate);
        let (rows, recorded_norm) = self.rescale(rows, recorded_norm, step);
        Weights {
            rows,
            recorded_norm,
            unet,
        }
    }

    /// `v* <- v*/||v*|| * ||v*_prev||` inside the window; its first step records the norm.
    fn rescale(
        &self,
        rows: Tensor<2>,
        recorded_norm: Option<f32>,
        step: usize,
    ) -> (Tensor<2>, Option<f32>) {
        let Some(window) = self.config.rescale_window() else {
            return (rows, None);
        };
        if step == window.from {
            let recorded = norm(&rows);
            return (rows, Some(recorded));
        }
        match recorded_norm {
            Some(recorded) if step > window.from && step <= window.to => {
                let factor = recorded / norm(&rows);
                (rows * factor, Some(recorded))
            }
            other => (rows, other),
        }
    }

    /// Of step `step`, from 1.
    pub(crate) fn learning_rate(&self, step: usize) -> f64 {
        self.config.learning_rate * self.config.optimizer.lr_factor(step, self.config.steps)
    }

    /// What `metrics.csv` says about step `step` after which the weights are these.
    pub(crate) fn row(&self, terms: &Terms, weights: &Weights, step: usize) -> Row {
        Row {
            stage: self.config.name.clone(),
            step,
            loss: terms.loss as f32,
            diffusion: terms.diffusion as f32,
            terms: terms
                .regularizers
                .iter()
                .map(|(kind, value)| (*kind, *value as f32))
                .collect(),
            embedding_norm: norm(&weights.rows),
            learning_rate: self.learning_rate(step),
        }
    }
}

impl Terms {
    fn add(&mut self, kind: &'static str, value: f32) {
        match self.regularizers.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, sum)) => *sum += f64::from(value),
            None => self.regularizers.push((kind, f64::from(value))),
        }
    }

    fn scale(&mut self, factor: f64) {
        self.loss *= factor;
        self.diffusion *= factor;
        for (_, value) in &mut self.regularizers {
            *value *= factor;
        }
    }
}

fn finite(what: &str, value: Tensor<1>) -> Result<f32, Fault> {
    let value = value.into_scalar::<f32>();
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Fault {
            what: what.to_string(),
            value,
        })
    }
}

/// Whether a step with finite gradients led out of the numbers all the same.
pub(crate) fn diverged(weights: &Weights) -> Option<Fault> {
    let value = norm(&weights.rows);
    (!value.is_finite()).then(|| Fault {
        what: "the norm of the embedding".into(),
        value,
    })
}

/// The Euclidean norm of all vectors together, as `torch.norm` of the whole parameter: what the
/// authors' code rescales. With one vector it is the vector's.
pub(crate) fn norm(rows: &Tensor<2>) -> f32 {
    let values = to_vec(rows.clone());
    let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
    squares.sum::<f64>().sqrt() as f32
}
