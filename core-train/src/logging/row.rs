//! The numbers of one optimiser step.

use crate::fault::{Fault, finite};

/// The term that every run has.
pub(super) const DIFFUSION: &str = "diffusion";

/// The numbers of one step; sums are kept in double precision and written in single precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The stage's name.
    pub stage: String,
    /// From 1 in each stage.
    pub step: usize,
    /// The weighted total.
    pub loss: f64,
    /// The unweighted terms that were computed, by kind.
    pub terms: Vec<(&'static str, f64)>,
    /// Of all vectors together, after the step and rescaling; absent where no vector is learned.
    pub embedding_norm: Option<f32>,
    /// Of this step.
    pub learning_rate: f64,
    /// The mean scores of the validation images drawn after this step, by the metric's column.
    pub scores: Vec<(&'static str, f64)>,
}

impl Row {
    /// A step of which nothing was computed yet.
    pub fn new(stage: &str, step: usize, learning_rate: f64) -> Self {
        Self {
            stage: stage.to_string(),
            step,
            loss: 0.0,
            terms: Vec::new(),
            embedding_norm: None,
            learning_rate,
            scores: Vec::new(),
        }
    }

    /// Adds the unweighted terms and the weighted total of one forward pass.
    ///
    /// # Errors
    /// A value that is NaN or infinite, by the name of its term.
    pub fn add(&mut self, terms: &[(&'static str, f32)], total: f32) -> Result<(), Fault> {
        for (kind, value) in terms {
            let value = f64::from(finite(&named(kind), *value)?);
            match self.terms.iter_mut().find(|(name, _)| name == kind) {
                Some((_, sum)) => *sum += value,
                None => self.terms.push((kind, value)),
            }
        }
        self.loss += f64::from(finite("the loss", total)?);
        Ok(())
    }

    /// Multiplies losses and terms, to make means of sums.
    pub fn scale(&mut self, factor: f64) {
        self.loss *= factor;
        for (_, value) in &mut self.terms {
            *value *= factor;
        }
    }

    /// All numbers that the step has, by the columns of `metrics.csv`, in their order; as text that
    /// gives the same number back.
    pub(super) fn numbers(&self) -> Vec<(&'static str, String)> {
        let mut numbers = vec![("loss", shortest(self.loss))];
        numbers.extend(
            self.terms
                .iter()
                .map(|(kind, value)| (*kind, shortest(*value))),
        );
        let norm = self.embedding_norm;
        numbers.extend(norm.map(|norm| ("embedding_norm", shortest(f64::from(norm)))));
        numbers.push(("learning_rate", format!("{:?}", self.learning_rate)));
        numbers.extend(
            self.scores
                .iter()
                .map(|(column, value)| (*column, shortest(*value))),
        );
        numbers
    }
}

/// A term in messages.
fn named(kind: &str) -> String {
    match kind {
        DIFFUSION => "the diffusion loss".into(),
        other => other.into(),
    }
}

/// The fewest digits that give the same number of single precision back.
fn shortest(value: f64) -> String {
    format!("{:?}", value as f32)
}
