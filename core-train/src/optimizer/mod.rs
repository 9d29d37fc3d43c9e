//! An optimiser over parameters known by name, so that its state can be stored and resumed by name.

mod gradients;
mod rule;
mod spherical_sgd;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::{Checkpoint, TensorToWrite};
use core_model::params::{ParamNames, to_vec};

pub use gradients::GradientSet;
pub use rule::Rule;
pub use spherical_sgd::SphericalSgd;
pub(crate) use spherical_sgd::norms;

fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let length = tensor.shape().num_elements();
    tensor.reshape([length])
}

/// Moves parameters by a [`Rule`].
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    step: u64,
    /// What the rule keeps for each parameter.
    kept: BTreeMap<String, [Tensor<1>; 2]>,
}

impl Optimizer {
    /// An optimiser that has made no step yet.
    pub fn new(rule: impl Into<Rule>) -> Self {
        Self {
            rule: rule.into(),
            step: 0,
            kept: BTreeMap::new(),
        }
    }

    /// Starts the next step; [`update`](Self::update) calls until the next one belong to it.
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Moves one tensor by its gradient; a tensor without gradient stays as it is.
    ///
    /// `value` is off the tape, and so is the result.
    pub fn update<const D: usize>(
        &mut self,
        name: &str,
        value: Tensor<D>,
        gradients: &GradientSet,
        learning_rate: f64,
    ) -> Tensor<D> {
        let Some(grad) = gradients.get(name) else {
            return value;
        };
        let shape = value.dims();
        let value = flatten(value);
        let kept = match self.kept.remove(name) {
            Some(kept) => kept,
            None => self.rule.first(&value, shape[0]),
        };
        let (value, kept) = self
            .rule
            .step(value, grad.clone(), kept, learning_rate, self.step);
        self.kept.insert(name.to_string(), kept);
        value.reshape(shape)
    }

    /// Moves every parameter of a module that has a gradient, at the learning rate of its name, and
    /// then to where `constrain` puts it.
    pub fn update_module<M: Module>(
        &mut self,
        module: M,
        names: &ParamNames,
        gradients: &GradientSet,
        learning_rate: impl Fn(&str) -> f64,
        constrain: impl Fn(&str, Tensor<1>) -> Tensor<1>,
    ) -> M {
        let is_trained = |_: &str, is_trained| is_trained;
        names.map(module, is_trained, |name, value| {
            let moved = self.update(name, value, gradients, learning_rate(name));
            constrain(name, moved)
        })
    }

    /// What it knows about one parameter, to be put back with [`undo_step`](Self::undo_step).
    pub(crate) fn kept_of(&self, name: &str) -> Option<[Tensor<1>; 2]> {
        self.kept.get(name).cloned()
    }

    /// Undoes the step begun last for the only parameter that it has moved.
    pub(crate) fn undo_step(&mut self, name: &str, kept: Option<[Tensor<1>; 2]>) {
        self.step -= 1;
        match kept {
            Some(kept) => self.kept.insert(name.to_string(), kept),
            None => self.kept.remove(name),
        };
    }

    /// Everything a resumed run needs, to be written beside the parameters.
    pub fn state(&self) -> Vec<TensorToWrite> {
        let names = self.rule.kept();
        let mut tensors: Vec<_> = self
            .kept
            .iter()
            .flat_map(|(name, kept)| {
                kept.iter().zip(names).map(move |(tensor, what)| {
                    let values = to_vec(tensor.clone());
                    TensorToWrite {
                        name: format!("{name}.{what}"),
                        shape: vec![values.len()],
                        values,
                    }
                })
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }

    /// Restores what [`state`](Self::state) gave after `step` steps.
    ///
    /// # Errors
    /// A read error of the file.
    pub fn restore(
        rule: impl Into<Rule>,
        step: u64,
        file: &Checkpoint,
        device: &Device,
    ) -> core_model::Result<Self> {
        let rule = rule.into();
        let [first, second] = rule.kept();
        let mut kept = BTreeMap::new();
        let names = file.keys().filter_map(|key| {
            let name = key.strip_suffix(first)?;
            name.strip_suffix('.')
        });
        for name in names {
            let read = |what: &str| -> core_model::Result<Tensor<1>> {
                let (values, shape) =
                    file.read_f32(&format!("{name}.{what}"))?.ok_or_else(|| {
                        core_model::Error::format(
                            file.path(),
                            format!("`{name}.{what}` is missing; the saved state is damaged"),
                        )
                    })?;
                Ok(Tensor::from_data(TensorData::new(values, shape), device))
            };
            kept.insert(name.to_string(), [read(first)?, read(second)?]);
        }
        Ok(Self { rule, step, kept })
    }
}
