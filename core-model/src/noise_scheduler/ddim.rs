//! DDIM without added noise (<https://arxiv.org/abs/2010.02502>, equation 12 with sigma 0).

use burn::tensor::Tensor;

use super::spacing::integer_timesteps;
use super::{NoiseSchedule, PredictionType, Sampler, SchedulerConfig, TerminalSnr, mix};
use crate::error::Result;

/// The numbers of one step, each a factor of (sample, model output) or of (x_0, noise).
#[derive(Debug, Clone, Copy)]
struct Step {
    to_original: [f64; 2],
    to_noise: [f64; 2],
    to_previous: [f64; 2],
}

/// x_0 is predicted, then noised again to the level of the next timestep.
#[derive(Debug)]
pub(super) struct Ddim {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    /// The largest |x_0|, if there is a limit.
    clip: Option<f64>,
}

impl Ddim {
    /// Defaults of diffusers' `DDIMScheduler`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self> {
        config.refuse_switches(&["thresholding"])?;
        let schedule = NoiseSchedule::new(config, TerminalSnr::Zero)?;
        let count = schedule.num_train_timesteps();
        let mut timesteps = integer_timesteps(config, count, num_inference_steps)?;
        timesteps.reverse();
        let alphas = &schedule.alphas_cumprod;
        let final_alpha = if config.flag("set_alpha_to_one", true)? {
            1.0
        } else {
            alphas[0]
        };
        let step = |t: usize| {
            let previous = t.checked_sub(count / num_inference_steps);
            let alpha_previous = previous.map_or(final_alpha, |t| alphas[t]);
            Step::new(alphas[t], alpha_previous, schedule.prediction_type)
        };
        let steps: Vec<Step> = timesteps.iter().map(|t| step(*t)).collect();
        if steps.iter().any(|step| !step.to_original[0].is_finite()) {
            return Err(config.refuse(
                "rescale_betas_zero_snr",
                "true",
                "false, or prediction_type v_prediction, or timestep_spacing leading: \
                 noise cannot be predicted where there is no signal",
            ));
        }
        let clip = config
            .flag("clip_sample", true)?
            .then(|| config.number("clip_sample_range", 1.0))
            .transpose()?;
        let timesteps = timesteps.into_iter().map(|t| t as f32).collect();
        Ok(Self {
            timesteps,
            steps,
            clip,
        })
    }
}

impl Step {
    fn new(alpha: f64, alpha_previous: f64, prediction_type: PredictionType) -> Self {
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (to_original, to_noise) = match prediction_type {
            PredictionType::Epsilon => ([1.0 / signal, -sigma / signal], [0.0, 1.0]),
            PredictionType::VPrediction => ([signal, -sigma], [sigma, signal]),
        };
        let to_previous = [alpha_previous.sqrt(), (1.0 - alpha_previous).sqrt()];
        Self {
            to_original,
            to_noise,
            to_previous,
        }
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4> {
        let Step {
            to_original,
            to_noise,
            to_previous,
        } = self.steps[index];
        let original = mix(
            to_original[0],
            sample.clone(),
            to_original[1],
            model_output.clone(),
        );
        let original = match self.clip {
            Some(range) => original.clamp(-range, range),
            None => original,
        };
        let noise = mix(to_noise[0], sample, to_noise[1], model_output);
        mix(to_previous[0], original, to_previous[1], noise)
    }
}
