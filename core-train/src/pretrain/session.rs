//! The training loop of all networks of the mini world: prefetched scenes, AdamW with warm-up and
//! cosine decay, an exponential moving average of the weights, a learning curve, and a state file
//! from which training resumes after an interruption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::ops::AdamW;
use core_model::params::{ParamNames, set_trainable, to_vec};
use serde::Deserialize;

use super::objective::Objective;
use crate::optimizer::{GradientSet, Optimizer};
use crate::progress::Progress;

/// Length, batch size and optimiser settings of a training.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Number of optimiser steps.
    pub steps: u64,
    /// Scenes per step.
    pub batch_size: usize,
    /// Learning rate after the warm-up; it decays to zero along half a cosine.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// Decay of the moving average of the weights per step; the average is what is saved.
    pub ema_decay: f64,
    /// Largest norm of all gradients together; larger ones are scaled down to it.
    pub max_grad_norm: f64,
    /// Steps between two entries of the learning curve.
    pub evaluate_every: u64,
    /// Steps between two saved states.
    pub save_every: u64,
}

impl Schedule {
    /// Refuses values with which training is impossible.
    ///
    /// # Errors
    /// The key and why its value is impossible.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("batch_size", self.batch_size as u64),
            ("evaluate_every", self.evaluate_every),
            ("save_every", self.save_every),
            ("steps", self.steps),
        ];
        for (key, value) in positive {
            if value == 0 {
                bail!("schedule.{key} is 0; expected 1 or more");
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            bail!(
                "schedule.learning_rate is {}; expected more than 0",
                self.learning_rate
            );
        }
        if !(0.0..1.0).contains(&self.ema_decay) {
            bail!(
                "schedule.ema_decay is {}; expected at least 0 and less than 1",
                self.ema_decay
            );
        }
        Ok(())
    }

    fn learning_rate(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.learning_rate * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let done = (step - self.warmup_steps) as f64;
        let share = done / (self.steps - self.warmup_steps).max(1) as f64;
        self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos())
    }

    /// The average is short at first, so that after a thousand steps it no longer contains the
    /// initial weights.
    fn ema_decay(&self, step: u64) -> f64 {
        self.ema_decay
            .min((1.0 + step as f64) / (10.0 + step as f64))
    }
}

/// A network in training.
struct Session<'a, O: Objective> {
    objective: &'a O,
    schedule: Schedule,
    network: O::Network,
    names: ParamNames,
    average: BTreeMap<String, Tensor<1>>,
    optimizer: Optimizer,
    optimizer_config: AdamW,
    step: u64,
    seconds: f64,
    /// Running mean of the loss; `None` before the first step.
    mean_loss: Option<f64>,
    folder: PathBuf,
    curve: PathBuf,
    device: Device,
}

/// Trains a network to the end of the schedule, starting from the state in `folder` if there is one, and returns
/// the averaged network.
///
/// # Errors
/// An unreadable state, a loss that is NaN or infinite, or an error of the objective.
pub(super) fn train<O: Objective>(
    objective: &O,
    network: O::Network,
    schedule: Schedule,
    folder: &Path,
    curve: &Path,
    device: &Device,
) -> Result<O::Network> {
    for folder in [folder, curve.parent().unwrap_or(Path::new(""))] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut session = Session::open(objective, network, schedule, folder, curve, device)?;
    session.cut_curve()?;
    session.run()?;
    Ok(session.averaged())
}

impl<'a, O: Objective> Session<'a, O> {
    fn open(
        objective: &'a O,
        network: O::Network,
        schedule: Schedule,
        folder: &Path,
        curve: &Path,
        device: &Device,
    ) -> Result<Self> {
        let names = objective.names(&network);
        let network = set_trainable(network, &names, |name| objective.trains(name));
        let optimizer_config = AdamW {
            betas: [0.9, 0.99],
            weight_decay: schedule.weight_decay,
            ..AdamW::default()
        };
        let average = values(&network, &names);
        let mut session = Self {
            objective,
            schedule,
            network,
            names,
            average,
            optimizer: Optimizer::new(optimizer_config),
            optimizer_config,
            step: 0,
            seconds: 0.0,
            mean_loss: None,
            folder: folder.to_path_buf(),
            curve: curve.to_path_buf(),
            device: device.clone(),
        };
        if session.state_path().exists() {
            session.restore()?;
        }
        Ok(session)
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    fn run(&mut self) -> Result<()> {
        let batches = Prefetch::start(self.objective.batches(), self.step + 1, self.schedule.steps);
        let mut progress = Progress::new("steps", self.step, self.schedule.steps);
        while self.step < self.schedule.steps {
            let step = self.step + 1;
            let clock = Instant::now();
            let batch = batches.next()?;
            self.network = self.objective.before_step(self.network.clone(), step);
            let loss = self.objective.loss(&self.network, batch, step);
            let mut grads = loss.backward();
            let loss = f64::from(loss.into_scalar::<f32>());
            if !loss.is_finite() {
                bail!(
                    "step {step}: the loss is {loss}; the state before it is in {}",
                    self.folder.display()
                );
            }
            self.descend(&mut grads, step);
            self.step = step;
            let mean_loss = self
                .mean_loss
                .map_or(loss, |mean| 0.98 * mean + 0.02 * loss);
            self.mean_loss = Some(mean_loss);
            self.seconds += clock.elapsed().as_secs_f64();
            progress.advance(&format!("loss {mean_loss:.4}"));
            let last = step == self.schedule.steps;
            if step.is_multiple_of(self.schedule.evaluate_every) || last {
                self.record(mean_loss)?;
            }
            if step.is_multiple_of(self.schedule.save_every) || last {
                self.store()?;
            }
        }
        progress.finish();
        Ok(())
    }

    fn descend(&mut self, grads: &mut burn::tensor::Gradients, step: u64) {
        let mut gradients = GradientSet::default();
        gradients.add_module(&self.network, &self.names, grads);
        gradients.clip_norm(self.schedule.max_grad_norm);
        self.optimizer.begin_step();
        let learning_rate = self.schedule.learning_rate(step);
        let network = self.network.clone();
        self.network = self.optimizer.update_module(
            network,
            &self.names,
            &gradients,
            |name| learning_rate * self.objective.rate(name),
            |_, value| value,
        );
        let decay = self.schedule.ema_decay(step);
        for (name, value) in values(&self.network, &self.names) {
            if let Some(average) = self.average.remove(&name) {
                self.average
                    .insert(name, average * decay + value * (1.0 - decay));
            }
        }
    }

    /// The network with its averaged weights, off the tape.
    fn averaged(&self) -> O::Network {
        let network = set_trainable(self.network.clone(), &self.names, |_| false);
        with_values(network, &self.names, &self.average)
    }

    /// Drops the points of the learning curve after the restored step.
    fn cut_curve(&self) -> Result<()> {
        if !self.curve.exists() {
            return Ok(());
        }
        if self.step == 0 {
            return std::fs::remove_file(&self.curve)
                .with_context(|| self.curve.display().to_string());
        }
        let text = core_model::files::read_to_string(&self.curve)?;
        let kept: String = text
            .lines()
            .filter(|line| {
                let step = line.split(',').next().unwrap_or_default().parse();
                step.map_or(true, |step: u64| step <= self.step)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        Ok(core_model::files::write_atomically(
            &self.curve,
            kept.as_bytes(),
        )?)
    }

    /// Appends one line to the learning curve: step, number of scenes, seconds, loss, quality.
    fn record(&self, loss: f64) -> Result<()> {
        let quality = self.objective.evaluate(&self.averaged())?;
        let path = &self.curve;
        let images = self.step * self.schedule.batch_size as u64;
        let mut text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(_) => {
                let names: String = quality.iter().map(|(name, _)| format!(",{name}")).collect();
                format!("step,images,seconds,loss{names}\n")
            }
        };
        let figures: String = quality
            .iter()
            .map(|(_, value)| format!(",{value:.5}"))
            .collect();
        text.push_str(&format!(
            "{},{images},{:.0},{loss:.5}{figures}\n",
            self.step, self.seconds
        ));
        core_model::files::write_atomically(path, text.as_bytes())?;
        let shown: String = quality
            .iter()
            .map(|(name, value)| format!(" {name} {value:.3}"))
            .collect();
        tracing::info!("step {} loss {loss:.4}{shown}", self.step);
        Ok(())
    }

    fn store(&self) -> Result<()> {
        let prefixed = |prefix: &str, values: BTreeMap<String, Tensor<1>>| -> Vec<TensorToWrite> {
            values
                .into_iter()
                .map(|(name, tensor)| {
                    let values = to_vec(tensor);
                    TensorToWrite {
                        name: format!("{prefix}{name}"),
                        shape: vec![values.len()],
                        values,
                    }
                })
                .collect()
        };
        let mut tensors = prefixed("network/", values(&self.network, &self.names));
        tensors.extend(prefixed("average/", self.average.clone()));
        tensors.extend(self.optimizer.state());
        let step = self.step.to_string();
        let seconds = self.seconds.to_string();
        let mean_loss = self.mean_loss.map(|loss| loss.to_string());
        let mut metadata = vec![("step", step.as_str()), ("seconds", seconds.as_str())];
        metadata.extend(mean_loss.as_deref().map(|loss| ("mean_loss", loss)));
        save_tensors(&self.state_path(), tensors, Precision::Float32, &metadata)?;
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        let path = self.state_path();
        let file = Checkpoint::open(&path, |key| Some(key.to_string()))?;
        let number = |key: &str| -> Result<f64> {
            let text = file.metadata().get(key).with_context(|| {
                format!(
                    "{}: has no `{key}`; remove the file to start anew",
                    path.display()
                )
            })?;
            Ok(text.parse()?)
        };
        self.step = number("step")? as u64;
        self.seconds = number("seconds")?;
        self.mean_loss = match file.metadata().get("mean_loss") {
            Some(_) => Some(number("mean_loss")?),
            None => None,
        };
        let mut network = self.average.clone();
        let of_other = |reason: String| {
            anyhow!(
                "{}: {reason}, so the state is of another architecture; remove the file to start anew, or \
                 name another folder as `state`",
                path.display()
            )
        };
        for key in file.keys() {
            if let Some(name) = key.strip_prefix("network/")
                && !network.contains_key(name)
            {
                return Err(of_other(format!(
                    "holds `{name}`, which the network does not have"
                )));
            }
        }
        for (prefix, into) in [("network/", &mut network), ("average/", &mut self.average)] {
            for (name, value) in into {
                let expected = value.dims()[0];
                let (values, shape) = file
                    .read_f32(&format!("{prefix}{name}"))?
                    .ok_or_else(|| of_other(format!("lacks `{name}`, which the network has")))?;
                if values.len() != expected {
                    let found = values.len();
                    return Err(of_other(format!(
                        "`{name}` has {found} values there and {expected} in the network"
                    )));
                }
                *value = Tensor::from_data(TensorData::new(values, shape), &self.device);
            }
        }
        let restored = with_values(self.network.clone(), &self.names, &network);
        self.network = set_trainable(restored, &self.names, |name| self.objective.trains(name));
        self.optimizer = Optimizer::restore(self.optimizer_config, self.step, &file, &self.device)?;
        Ok(())
    }
}

/// Every trained parameter, flattened, off the tape.
fn values<M: Module>(module: &M, names: &ParamNames) -> BTreeMap<String, Tensor<1>> {
    let mut values = BTreeMap::new();
    names.read(module, |param| {
        if param.is_trained {
            values.insert(param.name.to_string(), param.value);
        }
    });
    values
}

/// The module with its parameters replaced.
fn with_values<M: Module>(
    module: M,
    names: &ParamNames,
    values: &BTreeMap<String, Tensor<1>>,
) -> M {
    let is_there = |name: &str, _| values.contains_key(name);
    names.map(module, is_there, |name, _| values[name].clone())
}

/// Makes batches on another thread while the network trains on earlier ones.
struct Prefetch<T>(mpsc::Receiver<T>);

impl<T: Send + 'static> Prefetch<T> {
    fn start(make: Box<dyn Fn(u64) -> T + Send>, first: u64, last: u64) -> Self {
        let (sender, receiver) = mpsc::sync_channel(2);
        std::thread::spawn(move || {
            for step in first..=last {
                if sender.send(make(step)).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    fn next(&self) -> Result<T> {
        self.0
            .recv()
            .context("the thread that renders scenes ended early")
    }
}
