//! Embedding rescaling, Eq. 6 of the paper: `v* <- v*/||v*|| * ||v*_prev||`, the norm being that
//! before the window, in which the embedding is not to grow.

use core_model::personalized::ConceptEmbedding;

use crate::config::RescaleWindow;

/// Rescaling in one stage, with the norm that it restores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rescaling {
    window: Option<RescaleWindow>,
    recorded_norm: Option<f32>,
}

impl Rescaling {
    /// A stage before its first step; a window from step 0 records the norm now.
    pub fn new(window: Option<RescaleWindow>, concept: Option<&ConceptEmbedding>) -> Self {
        let from_the_start = window.is_some_and(|window| window.from == 0);
        let concept = concept.filter(|_| from_the_start);
        Self {
            window,
            recorded_norm: concept.map(ConceptEmbedding::norm),
        }
    }

    /// The concept after step `step`, from 1, of the stage: the step at which the window begins
    /// records the norm, the steps inside the window restore it.
    pub fn after_step(&mut self, concept: ConceptEmbedding, step: usize) -> ConceptEmbedding {
        let Some(window) = self.window else {
            return concept;
        };
        if step == window.from {
            self.recorded_norm = Some(concept.norm());
        }
        match self.recorded_norm {
            Some(recorded) if step > window.from && step <= window.to => {
                let factor = recorded / concept.norm();
                concept.with_vectors(concept.vectors().inner() * factor)
            }
            _ => concept,
        }
    }

    /// What a resumed run needs.
    pub fn recorded_norm(&self) -> Option<f32> {
        self.recorded_norm
    }

    /// The same with the norm that an interrupted run had recorded.
    #[must_use]
    pub fn with_recorded_norm(self, recorded_norm: Option<f32>) -> Self {
        Self {
            recorded_norm,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn the_norm_of_the_windows_first_step_is_restored_until_its_end() {
        let device = Device::flex();
        let concept = |norm: f32| {
            ConceptEmbedding::new(Tensor::from_floats([[0.6 * norm, 0.8 * norm]], &device))
        };
        let window = RescaleWindow { from: 2, to: 4 };
        let mut rescaling = Rescaling::new(Some(window), Some(&concept(1.0)));
        // The norm grows by one in every step.
        let norms = [1, 2, 3, 4, 5].map(|step| {
            let norm = rescaling.after_step(concept(step as f32), step).norm();
            (norm * 1e3).round() / 1e3
        });
        assert_eq!(norms, [1.0, 2.0, 2.0, 2.0, 5.0]);
    }

    #[test]
    fn a_window_from_step_zero_restores_the_norm_before_training() {
        let device = Device::flex();
        let concept = |norm: f32| ConceptEmbedding::new(Tensor::from_floats([[norm]], &device));
        let window = RescaleWindow { from: 0, to: 1 };
        let mut rescaling = Rescaling::new(Some(window), Some(&concept(3.0)));
        assert_eq!(rescaling.after_step(concept(7.0), 1).norm(), 3.0);
        assert_eq!(rescaling.after_step(concept(7.0), 2).norm(), 7.0);
    }
}
