//! The numbers that a step leaves on the device, read back in one transfer: each one would wait for
//! a GPU to finish all that was asked of it.

use burn::tensor::Tensor;
use core_losses::Losses;
use core_model::params::to_vec;

use crate::fault::{Fault, finite};
use crate::logging::Row;
use crate::optimizer::GradientSet;

/// A gradient in faults.
const GRADIENT: &str = "the gradient";

/// The losses of a step's forward passes.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// The terms of each pass.
    passes: Vec<Vec<&'static str>>,
    /// For each pass its terms and then its total, off the tape.
    values: Vec<Tensor<1>>,
}

impl Readings {
    /// Keeps the values of one forward pass.
    pub(crate) fn add(&mut self, losses: &Losses) {
        let mut kinds = Vec::new();
        for (kind, value) in &losses.terms {
            if let Some(value) = value {
                kinds.push(*kind);
                self.values.push(value.clone().inner());
            }
        }
        self.values.push(losses.total.clone().inner());
        self.passes.push(kinds);
    }

    /// Adds the values to a row; whether the gradients are finite.
    ///
    /// # Errors
    /// A value that is NaN or infinite, by the name of its term.
    pub(crate) fn read(self, gradients: &GradientSet, row: &mut Row) -> Result<Finite, Fault> {
        let Self { passes, mut values } = self;
        let sum = gradients.sum();
        let has_gradients = sum.is_some();
        values.extend(sum);
        if values.is_empty() {
            return Ok(Ok(()));
        }
        let mut values = to_vec(Tensor::cat(values, 0)).into_iter();
        for kinds in passes {
            let terms: Vec<_> = kinds.into_iter().zip(values.by_ref()).collect();
            let total = values.next().unwrap_or(f32::NAN);
            row.add(&terms, total)?;
        }
        let sum = values.next().filter(|_| has_gradients);
        Ok(finite(GRADIENT, sum.unwrap_or(0.0)).map(|_| ()))
    }
}

/// Whether the gradients of a step are finite.
pub(crate) type Finite = Result<(), Fault>;
