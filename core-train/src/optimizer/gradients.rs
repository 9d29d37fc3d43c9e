//! The gradients of one optimiser step.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use core_model::device::is_cpu;
use core_model::params::{ParamNames, to_vec};

use super::flatten;

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

    /// The gradient of this name, flattened.
    pub(super) fn get(&self, name: &str) -> Option<&Tensor<1>> {
        self.0.get(name)
    }

    /// Whether there is no gradient.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Euclidean norm over all gradients together. GPUs add the squares up themselves, in float32, so
    /// that one number is read back instead of every gradient.
    pub fn norm(&self) -> f64 {
        let gradients = self.0.values();
        let Some(first) = self.0.values().next() else {
            return 0.0;
        };
        if is_cpu(&first.device()) {
            let squares = gradients.map(|grad| square_sum(grad.clone()));
            return squares.sum::<f64>().sqrt();
        }
        let squares = gradients.map(|grad| grad.clone().square().sum());
        let sums = to_vec(Tensor::cat(squares.collect(), 0));
        sums.into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    /// The sum of all elements, shape `[1]`: not finite when any element is not. None where there is no
    /// gradient.
    pub fn sum(&self) -> Option<Tensor<1>> {
        let sums: Vec<_> = self.0.values().map(|grad| grad.clone().sum()).collect();
        (!sums.is_empty()).then(|| Tensor::cat(sums, 0).sum())
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
