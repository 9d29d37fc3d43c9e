//! The training side of a schedule: noise added at any timestep, and what the network is to say.

use burn::tensor::{Tensor, TensorData};

use super::{NoiseSchedule, PredictionType, SchedulerConfig, TerminalSnr};
use crate::error::Result;

/// The forward process q(x_t | x_0) of DDPM (<https://arxiv.org/abs/2006.11239>, equation 4).
///
/// a_t is `alphas_cumprod[t]`; every sample of a batch has a timestep of its own.
#[derive(Debug, Clone)]
pub struct DdpmScheduler {
    schedule: NoiseSchedule,
}

impl DdpmScheduler {
    /// The training schedule of a checkpoint, whichever class wrote its file.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for values that are not implemented.
    pub fn new(config: &SchedulerConfig) -> Result<Self> {
        Ok(Self {
            schedule: NoiseSchedule::new(config, TerminalSnr::Zero)?,
        })
    }

    /// a_t for every timestep, strictly decreasing.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.schedule.alphas_cumprod
    }

    /// The number of timesteps, one more than the largest.
    pub fn num_train_timesteps(&self) -> usize {
        self.schedule.num_train_timesteps()
    }

    /// What the network predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.schedule.prediction_type
    }

    /// sqrt(a_t) latents + sqrt(1 - a_t) noise, all [batch, channels, height, width].
    ///
    /// # Panics
    /// When a timestep is not below [`num_train_timesteps`](Self::num_train_timesteps) or their
    /// number is not the batch size.
    pub fn add_noise(
        &self,
        latents: Tensor<4>,
        noise: Tensor<4>,
        timesteps: &[usize],
    ) -> Tensor<4> {
        let (signal, sigma) = self.factors(&latents, timesteps);
        latents * signal + noise * sigma
    }

    /// What the loss compares the network's output with: the noise, or the velocity
    /// sqrt(a_t) noise - sqrt(1 - a_t) latents.
    ///
    /// # Panics
    /// As [`add_noise`](Self::add_noise).
    pub fn target(&self, latents: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        match self.schedule.prediction_type {
            PredictionType::Epsilon => noise,
            PredictionType::VPrediction => {
                let (signal, sigma) = self.factors(&latents, timesteps);
                noise * signal - latents * sigma
            }
        }
    }

    /// sqrt(a_t) and sqrt(1 - a_t), both [batch, 1, 1, 1].
    fn factors(&self, latents: &Tensor<4>, timesteps: &[usize]) -> (Tensor<4>, Tensor<4>) {
        let [batch, ..] = latents.dims();
        assert_eq!(
            timesteps.len(),
            batch,
            "one timestep for each of {batch} samples"
        );
        let column = |factor: fn(f64) -> f64| {
            let alphas = timesteps.iter().map(|t| self.schedule.alphas_cumprod[*t]);
            let values: Vec<f32> = alphas.map(|a| factor(a) as f32).collect();
            Tensor::from_data(TensorData::new(values, [batch, 1, 1, 1]), &latents.device())
        };
        (column(f64::sqrt), column(|a| (1.0 - a).sqrt()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::params::to_vec;
    use crate::rng::randn;

    fn scheduler(prediction_type: &str) -> DdpmScheduler {
        let json = format!(
            r#"{{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
                "prediction_type": "{prediction_type}"}}"#
        );
        DdpmScheduler::new(&SchedulerConfig::from_json("c", &json).unwrap()).unwrap()
    }

    #[test]
    fn adding_and_removing_noise_is_the_identity() {
        let scheduler = scheduler("epsilon");
        let device = Device::flex();
        let latents = randn([3, 2, 2, 2], 0, "latents", 0, &device);
        let noise = randn([3, 2, 2, 2], 0, "noise", 0, &device);
        let timesteps = [0, 500, 900];
        let noisy = scheduler.add_noise(latents.clone(), noise.clone(), &timesteps);
        let (signal, sigma) = scheduler.factors(&latents, &timesteps);
        let back = (noisy - noise * sigma) / signal;
        for (x, y) in to_vec(back).iter().zip(to_vec(latents)) {
            assert!((x - y).abs() < 1e-4, "{x} {y}");
        }
    }

    #[test]
    fn every_sample_has_its_own_timestep() {
        let scheduler = scheduler("epsilon");
        let device = Device::flex();
        let ones = Tensor::<4>::ones([2, 1, 1, 1], &device);
        let noisy = to_vec(scheduler.add_noise(ones.clone(), ones.zeros_like(), &[0, 999]));
        assert!((f64::from(noisy[0]) - (1.0_f64 - 0.00085).sqrt()).abs() < 1e-6);
        assert!((f64::from(noisy[1]) - 0.00466_f64.sqrt()).abs() < 1e-4);
    }

    #[test]
    fn the_velocity_is_orthogonal_to_the_noisy_sample_on_the_circle() {
        // With latents = (1, 0) and noise = (0, 1), x_t is a point of the unit circle and v_t its
        // derivative.
        let scheduler = scheduler("v_prediction");
        let device = Device::flex();
        let latents = Tensor::<1>::from_floats([1.0, 0.0], &device).reshape([1, 2, 1, 1]);
        let noise = Tensor::<1>::from_floats([0.0, 1.0], &device).reshape([1, 2, 1, 1]);
        let x = scheduler.add_noise(latents.clone(), noise.clone(), &[300]);
        let v = scheduler.target(latents, noise, &[300]);
        let product = to_vec((x * v.clone()).sum())[0];
        let length = to_vec((v.clone() * v).sum())[0];
        assert!(product.abs() < 1e-6 && (length - 1.0).abs() < 1e-6);
    }
}
