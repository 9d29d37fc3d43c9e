//! Classifier-free guidance, and what prompts are to the U-Net at every step.

use std::rc::Rc;

use burn::tensor::Tensor;

use crate::conditioning::Conditioning;
use crate::photomaker::start_merge_step;
use crate::unet::UNet2DConditionModel;

/// What a prompt is to the U-Net while an image is drawn.
#[derive(Clone)]
pub enum PromptStates<'a> {
    /// The same at every timestep.
    Constant(Box<Conditioning>),
    /// Other states at every timestep, given by a function of it.
    ByTimestep(Rc<dyn Fn(f32) -> Conditioning + 'a>),
    /// Others in the first steps than in the rest (PhotoMaker's delayed conditioning).
    Delayed {
        /// In the first steps.
        first: Box<Conditioning>,
        /// In the rest.
        then: Box<Conditioning>,
        /// The share of the steps after which the change comes.
        share: f64,
    },
}

/// A step of sampling.
#[derive(Debug, Clone, Copy)]
pub(super) struct SamplingStep {
    /// Its number, from 0.
    pub(super) index: usize,
    /// The number of denoising steps.
    pub(super) of: usize,
    pub(super) timestep: f32,
}

impl PromptStates<'_> {
    /// The states at a step, for every sample of a batch.
    fn at(&self, step: SamplingStep, batch: usize) -> Conditioning {
        let states = match self {
            Self::Constant(states) => Conditioning::clone(states),
            Self::ByTimestep(states) => states(step.timestep),
            Self::Delayed { first, then, share } => {
                match step.index <= start_merge_step(*share, step.of) {
                    true => Conditioning::clone(first),
                    false => Conditioning::clone(then),
                }
            }
        };
        states.inner().repeat(batch)
    }

    fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

impl From<Tensor<3>> for PromptStates<'_> {
    fn from(states: Tensor<3>) -> Self {
        Self::Constant(Box::new(states.into()))
    }
}

/// Classifier-free guidance (Ho and Salimans 2022).
pub(super) struct Guidance<'a> {
    pub(super) cond: PromptStates<'a>,
    /// Absent where the prompt alone decides.
    pub(super) uncond: Option<PromptStates<'a>>,
    pub(super) scale: f64,
}

impl Guidance<'_> {
    pub(super) fn is_constant(&self) -> bool {
        let uncond = self.uncond.as_ref();
        self.cond.is_constant() && uncond.is_none_or(PromptStates::is_constant)
    }

    /// What the U-Net reads in one step: of the negative prompt, if it is used, and of the prompt.
    pub(super) fn states(&self, step: SamplingStep, batch: usize) -> Conditioning {
        let cond = self.cond.at(step, batch);
        match &self.uncond {
            Some(uncond) => Conditioning::cat(vec![uncond.at(step, batch), cond]),
            None => cond,
        }
    }

    pub(super) fn predict(
        &self,
        unet: &UNet2DConditionModel,
        input: Tensor<4>,
        timestep: f32,
        states: Conditioning,
    ) -> Tensor<4> {
        let timesteps = vec![timestep; input.dims()[0]];
        if self.uncond.is_none() {
            return unet.forward(input, &timesteps, states).inner();
        }
        let both = unet.forward(input, &timesteps, states);
        let [without, with] = halves(both.inner());
        without.clone() + (with - without).mul_scalar(self.scale)
    }
}

fn halves(both: Tensor<4>) -> [Tensor<4>; 2] {
    let [double, ..] = both.dims();
    [
        both.clone().narrow(0, 0, double / 2),
        both.narrow(0, double / 2, double / 2),
    ]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::params::to_vec;

    #[test]
    fn delayed_states_are_those_of_the_text_in_the_first_steps_and_the_others_after_them() {
        let states = |value: f32| Tensor::<3>::full([1, 2, 1], value, &Device::flex());
        let cond = PromptStates::Delayed {
            first: Box::new(states(1.0).into()),
            then: Box::new(states(2.0).into()),
            share: 0.2,
        };
        let guidance = Guidance {
            cond,
            uncond: Some(states(0.0).into()),
            scale: 5.0,
        };
        assert!(!guidance.is_constant());
        let read = |index: usize| {
            let step = SamplingStep {
                index,
                of: 10,
                timestep: 0.0,
            };
            let [keys, _] = guidance.states(step, 1).of_layer(0);
            to_vec(keys)
        };
        let text: Vec<usize> = (0..10).filter(|index| read(*index)[2] == 1.0).collect();
        assert_eq!(text, [0, 1, 2]);
        assert_eq!(read(3), [0.0, 0.0, 2.0, 2.0]);
    }
}
