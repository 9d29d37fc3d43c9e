//! AdamW over parameters known by name, so that its state can be stored and resumed by name.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use core_model::checkpoint::{Checkpoint, TensorToWrite};
use core_model::ops::{AdamW, adamw_step};
use core_model::params::{ParamNames, to_vec};

/// The gradients of one optimiser step, flattened, by parameter name.
#[derive(Debug, Clone, Default)]
pub struct GradientSet(BTreeMap<String, Tensor<1>>);

impl GradientSet {
    /// Adds the gradients that a backward pass left for the trainable parameters of a module.
    pub fn add_module<M: Module>(&mut self, module: &M, names: &ParamNames, grads: &mut Gradients) {
        struct Collector<'a> {
            names: &'a ParamNames,
            grads: &'a mut Gradients,
            set: &'a mut GradientSet,
        }
        impl ModuleVisitor for Collector<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.val();
                if tensor.is_require_grad()
                    && let Some(grad) = tensor.grad_remove(self.grads)
                {
                    self.set.add(self.names.name(param.id), grad);
                }
            }
        }
        module.visit(&mut Collector {
            names,
            grads,
            set: self,
        });
    }

    /// Adds one gradient to what is already there under this name.
    pub fn add<const D: usize>(&mut self, name: &str, grad: Tensor<D>) {
        let grad = flatten(grad);
        let sum = match self.0.remove(name) {
            Some(sum) => sum + grad,
            None => grad,
        };
        self.0.insert(name.to_string(), sum);
    }

    /// The gradient of this name, and all others.
    pub fn split(mut self, name: &str) -> (Self, Self) {
        let of_name = self.0.remove_entry(name);
        (Self(of_name.into_iter().collect()), self)
    }

    /// Whether there is no gradient.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Euclidean norm over all gradients together.
    pub fn norm(&self) -> f64 {
        self.0
            .values()
            .map(|grad| square_sum(grad.clone()))
            .sum::<f64>()
            .sqrt()
    }

    /// The sum of all elements: not finite when any element is not.
    pub fn sum(&self) -> f32 {
        let sums: Vec<_> = self.0.values().map(|grad| grad.clone().sum()).collect();
        if sums.is_empty() {
            return 0.0;
        }
        Tensor::cat(sums, 0).sum().into_scalar::<f32>()
    }

    /// Scales all gradients so that their common norm is at most `max_norm`, as
    /// `torch.nn.utils.clip_grad_norm_` does.
    pub fn clip_norm(&mut self, max_norm: f64) {
        let factor = max_norm / (self.norm() + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
    }

    /// Multiplies all gradients.
    pub fn scale(&mut self, factor: f64) {
        for grad in self.0.values_mut() {
            *grad = grad.clone() * factor;
        }
    }
}

fn square_sum(grad: Tensor<1>) -> f64 {
    to_vec(grad)
        .iter()
        .map(|g| f64::from(*g) * f64::from(*g))
        .sum()
}

fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let length = tensor.shape().num_elements();
    tensor.reshape([length])
}

/// AdamW (Loshchilov and Hutter 2019), computed as `torch.optim.AdamW` does.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: AdamW,
    step: u64,
    moments: BTreeMap<String, [Tensor<1>; 2]>,
}

impl Optimizer {
    /// An optimiser that has made no step yet.
    pub fn new(config: AdamW) -> Self {
        Self {
            config,
            step: 0,
            moments: BTreeMap::new(),
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
        let Some(grad) = gradients.0.get(name) else {
            return value;
        };
        let [exp_avg, exp_avg_sq] = match self.moments.remove(name) {
            Some(moments) => moments,
            None => [grad.zeros_like(), grad.zeros_like()],
        };
        let shape = value.dims();
        let (value, exp_avg, exp_avg_sq) = adamw_step(
            flatten(value),
            grad.clone(),
            exp_avg,
            exp_avg_sq,
            &self.config,
            learning_rate,
            self.step,
        );
        self.moments.insert(name.to_string(), [exp_avg, exp_avg_sq]);
        value.reshape(shape)
    }

    /// Moves every parameter of a module that has a gradient, at the learning rate of its name.
    pub fn update_module<M: Module>(
        &mut self,
        module: M,
        names: &ParamNames,
        gradients: &GradientSet,
        learning_rate: impl Fn(&str) -> f64,
    ) -> M {
        let is_trained = |_: &str, is_trained| is_trained;
        names.map(module, is_trained, |name, value| {
            self.update(name, value, gradients, learning_rate(name))
        })
    }

    /// What it knows about one parameter, to be put back with [`undo_step`](Self::undo_step).
    pub(crate) fn moments_of(&self, name: &str) -> Option<[Tensor<1>; 2]> {
        self.moments.get(name).cloned()
    }

    /// Undoes the step begun last for the only parameter that it has moved.
    pub(crate) fn undo_step(&mut self, name: &str, moments: Option<[Tensor<1>; 2]>) {
        self.step -= 1;
        match moments {
            Some(moments) => self.moments.insert(name.to_string(), moments),
            None => self.moments.remove(name),
        };
    }

    /// Everything a resumed run needs, to be written beside the parameters.
    pub fn state(&self) -> Vec<TensorToWrite> {
        let mut tensors: Vec<_> = self
            .moments
            .iter()
            .flat_map(|(name, [exp_avg, exp_avg_sq])| {
                [(exp_avg, "exp_avg"), (exp_avg_sq, "exp_avg_sq")].map(|(tensor, kind)| {
                    let values = to_vec(tensor.clone());
                    TensorToWrite {
                        name: format!("{name}.{kind}"),
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
        config: AdamW,
        step: u64,
        file: &Checkpoint,
        device: &Device,
    ) -> core_model::Result<Self> {
        let mut moments = BTreeMap::new();
        let names: Vec<_> = file
            .keys()
            .filter_map(|key| key.strip_suffix(".exp_avg"))
            .collect();
        for name in names {
            let read = |kind: &str| -> core_model::Result<Tensor<1>> {
                let (values, shape) =
                    file.read_f32(&format!("{name}.{kind}"))?.ok_or_else(|| {
                        core_model::Error::format(
                            file.path(),
                            format!("`{name}.{kind}` is missing; the saved state is damaged"),
                        )
                    })?;
                Ok(Tensor::from_data(TensorData::new(values, shape), device))
            };
            moments.insert(name.to_string(), [read("exp_avg")?, read("exp_avg_sq")?]);
        }
        Ok(Self {
            config,
            step,
            moments,
        })
    }
}
