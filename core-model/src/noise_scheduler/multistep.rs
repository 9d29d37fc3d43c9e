//! What the multistep solvers in lambda = log(alpha / sigma) share: timesteps and noise levels.

use super::spacing::{Spacing, check_steps, interpolate, karras, linspace, timestep_of, trailing};
use super::{NoiseSchedule, SchedulerConfig};
use crate::error::Result;

/// alpha, sigma and lambda of a variance-preserving process with this noise per signal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) alpha: f64,
    pub(super) sigma: f64,
    pub(super) lambda: f64,
}

impl Level {
    fn new(noise_per_signal: f64) -> Self {
        let alpha = 1.0 / noise_per_signal.hypot(1.0);
        let sigma = noise_per_signal * alpha;
        Self {
            alpha,
            sigma,
            lambda: -noise_per_signal.ln(),
        }
    }
}

/// The noise levels that a solver passes through.
#[derive(Debug)]
pub(super) struct Course {
    /// Descending.
    pub(super) timesteps: Vec<f64>,
    /// One more than timesteps: the last one is that of the result.
    pub(super) levels: Vec<Level>,
    /// Whether the result is free of noise.
    pub(super) ends_at_zero: bool,
}

impl Course {
    /// The course of a file through the first `end` training timesteps; `to_timestep` makes Karras
    /// sigmas' timesteps whole.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for too many steps, so that levels repeat.
    pub(super) fn new(
        config: &SchedulerConfig,
        schedule: &NoiseSchedule,
        end: usize,
        num_inference_steps: usize,
        to_timestep: fn(f64) -> f64,
    ) -> Result<Self> {
        let all_sigmas = schedule.sigmas();
        let mut timesteps = timesteps(config, all_sigmas.len(), end, num_inference_steps)?;
        let mut sigmas: Vec<f64> = timesteps
            .iter()
            .map(|t| interpolate(*t, &all_sigmas))
            .collect();
        if config.flag("use_karras_sigmas", false)? {
            let bounds = [all_sigmas[0], all_sigmas[all_sigmas.len() - 1]];
            sigmas = karras(config, bounds, num_inference_steps)?;
            timesteps = sigmas
                .iter()
                .map(|sigma| to_timestep(timestep_of(*sigma, &all_sigmas)))
                .collect();
        }
        let last_sigma = config.choice(
            "final_sigmas_type",
            &[("zero", 0.0), ("sigma_min", all_sigmas[0])],
        )?;
        sigmas.push(last_sigma);
        sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = f64::from(*sigma as f32));
        if sigmas.windows(2).any(|pair| pair[1] >= pair[0]) {
            return Err(config.refuse(
                "num_train_timesteps",
                all_sigmas.len(),
                format!(
                    "many more than {num_inference_steps}, or timesteps repeat and the \
                     multistep solver divides by zero; take fewer steps"
                ),
            ));
        }
        Ok(Self {
            timesteps,
            levels: sigmas.into_iter().map(Level::new).collect(),
            ends_at_zero: last_sigma == 0.0,
        })
    }
}

/// Descending; the last interval, from the last timestep to no noise, counts as a step.
fn timesteps(
    config: &SchedulerConfig,
    count: usize,
    end: usize,
    num_inference_steps: usize,
) -> Result<Vec<f64>> {
    check_steps(config, count, num_inference_steps)?;
    Ok(match Spacing::new(config, Spacing::Linspace)? {
        Spacing::Linspace => linspace((end - 1) as f64, num_inference_steps + 1)
            .rev()
            .take(num_inference_steps)
            .map(f64::round_ties_even)
            .collect(),
        Spacing::Leading => {
            let ratio = end / (num_inference_steps + 1);
            let offset = config.count("steps_offset", 0)? as f64;
            (1..=num_inference_steps)
                .rev()
                .map(|i| (i * ratio) as f64 + offset)
                .collect()
        }
        Spacing::Trailing => {
            let step = count as f64 / num_inference_steps as f64;
            trailing(end, step, (end * num_inference_steps).div_ceil(count))
        }
    })
}
