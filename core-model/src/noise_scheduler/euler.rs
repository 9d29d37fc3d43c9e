//! Euler steps along the probability-flow ODE in sigma, noise per signal
//! (<https://arxiv.org/abs/2206.00364>, algorithm 2 without churn).

use burn::tensor::Tensor;

use super::spacing::{Spacing, check_steps, interpolate, karras, linspace, timestep_of, trailing};
use super::{NoiseSchedule, PredictionType, Sampler, SchedulerConfig, TerminalSnr, mix};
use crate::error::Result;

/// Samples have variance 1 + sigma^2 and are scaled down for the model.
#[derive(Debug)]
pub(super) struct Euler {
    timesteps: Vec<f32>,
    /// One more than timesteps.
    sigmas: Vec<f64>,
    init_noise_sigma: f64,
    prediction_type: PredictionType,
}

impl Euler {
    /// Defaults of diffusers' `EulerDiscreteScheduler`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self> {
        config.refuse_switches(&["use_exponential_sigmas", "use_beta_sigmas"])?;
        config.choice("interpolation_type", &[("linear", ())])?;
        config.choice("timestep_type", &[("discrete", ())])?;
        let schedule = NoiseSchedule::new(config, TerminalSnr::AlmostZero)?;
        let spacing = Spacing::new(config, Spacing::Linspace)?;
        let mut timesteps = timesteps(
            config,
            spacing,
            schedule.num_train_timesteps(),
            num_inference_steps,
        )?;
        let all_sigmas = schedule.sigmas();
        let last_sigma = config.choice(
            "final_sigmas_type",
            &[("zero", 0.0), ("sigma_min", all_sigmas[0])],
        )?;
        let sigma = |t: &f32| f64::from(interpolate(f64::from(*t), &all_sigmas) as f32);
        let mut sigmas: Vec<f64> = timesteps.iter().map(sigma).collect();
        if config.flag("use_karras_sigmas", false)? {
            let at = |t: f32| interpolate(f64::from(t), &all_sigmas);
            let [max, min] = [timesteps[0], timesteps[timesteps.len() - 1]].map(at);
            let wanted = karras(config, [min, max], num_inference_steps)?;
            timesteps = wanted
                .iter()
                .map(|sigma| timestep_of(*sigma, &all_sigmas) as f32)
                .collect();
            sigmas = wanted
                .iter()
                .map(|sigma| f64::from(*sigma as f32))
                .collect();
        }
        sigmas.push(last_sigma);
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = if spacing == Spacing::Leading {
            largest.hypot(1.0)
        } else {
            largest
        };
        Ok(Self {
            timesteps,
            sigmas,
            init_noise_sigma,
            prediction_type: schedule.prediction_type,
        })
    }
}

/// Descending; not rounded when evenly spaced.
fn timesteps(
    config: &SchedulerConfig,
    spacing: Spacing,
    count: usize,
    num_inference_steps: usize,
) -> Result<Vec<f32>> {
    check_steps(config, count, num_inference_steps)?;
    Ok(match spacing {
        Spacing::Linspace => linspace((count - 1) as f64, num_inference_steps)
            .rev()
            .map(|t| t as f32)
            .collect(),
        Spacing::Leading => {
            let ratio = count / num_inference_steps;
            let offset = config.count("steps_offset", 0)? as f32;
            (0..num_inference_steps)
                .rev()
                .map(|i| (i * ratio) as f32 + offset)
                .collect()
        }
        Spacing::Trailing => {
            let step = count as f64 / num_inference_steps as f64;
            trailing(count, step, num_inference_steps)
                .into_iter()
                .map(|t| t as f32)
                .collect()
        }
    })
}

impl Sampler for Euler {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, sample: Tensor<4>, index: usize) -> Tensor<4> {
        sample.div_scalar(self.sigmas[index].hypot(1.0))
    }

    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4> {
        let sigma = self.sigmas[index];
        let dt = self.sigmas[index + 1] - sigma;
        // d x / d sigma = (x - x_0) / sigma
        let [of_sample, of_output] = match self.prediction_type {
            PredictionType::Epsilon => [0.0, 1.0],
            PredictionType::VPrediction => [sigma / (sigma * sigma + 1.0), 1.0 / sigma.hypot(1.0)],
        };
        mix(1.0 + dt * of_sample, sample, dt * of_output, model_output)
    }
}
