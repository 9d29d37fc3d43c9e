//! Betas and their cumulated products: how much signal is left at each timestep.

use super::SchedulerConfig;
use crate::error::Result;
use crate::named::named;

named! {
    "prediction type",
    /// What the U-Net was trained to predict, spelled as in `scheduler_config.json`.
    pub enum PredictionType {
        /// The noise: Stable Diffusion 1.x and the 512 pixel models of 2.x.
        Epsilon = "epsilon",
        /// The velocity sqrt(a) noise - sqrt(1 - a) latents (<https://arxiv.org/abs/2202.00512>):
        /// the 768 pixel models of 2.x.
        VPrediction = "v_prediction",
    }
}

/// What a class makes of `rescale_betas_zero_snr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalSnr {
    /// It does not know the key.
    Ignored,
    /// No signal at all at the last timestep.
    Zero,
    /// Almost none, 2^-24, so that sigmas stay finite.
    AlmostZero,
}

/// The signal that is left at each timestep.
#[derive(Debug, Clone)]
pub struct NoiseSchedule {
    /// The variance of the noise that each timestep adds; in (0, 1), the last one 1 at zero
    /// terminal signal.
    pub betas: Vec<f64>,
    /// The product of all 1 - beta up to a timestep; strictly decreasing. float32 numbers.
    pub alphas_cumprod: Vec<f64>,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Whether `beta_schedule` says `squaredcos_cap_v2`, also beside trained betas.
    pub(super) is_squared_cosine: bool,
}

/// More training timesteps than any model has; a damaged file must not exhaust the memory.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

impl NoiseSchedule {
    /// The schedule of a file, made with float32 steps as torch makes it.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for unknown schedules and betas outside (0, 1).
    pub fn new(config: &SchedulerConfig, terminal: TerminalSnr) -> Result<Self> {
        let prediction_types = PredictionType::ALL.map(|kind| (kind.name(), kind));
        let prediction_type = config.choice("prediction_type", &prediction_types)?;
        let mut betas = betas(config)?;
        let rescale =
            terminal != TerminalSnr::Ignored && config.flag("rescale_betas_zero_snr", false)?;
        if rescale {
            betas = rescale_to_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumulated_signal(&betas);
        if rescale
            && terminal == TerminalSnr::AlmostZero
            && let Some(last) = alphas_cumprod.last_mut()
        {
            *last = 2.0_f32.powi(-24);
        }
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
        Ok(Self {
            betas: widen(betas),
            alphas_cumprod: widen(alphas_cumprod),
            prediction_type,
            is_squared_cosine: config
                .choice(
                    "beta_schedule",
                    &[
                        ("linear", false),
                        ("scaled_linear", false),
                        ("squaredcos_cap_v2", true),
                    ],
                )
                // Trained betas may stand beside any name.
                .unwrap_or(false),
        })
    }

    /// The number of training timesteps.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// Noise per signal at each timestep, sqrt((1 - a) / a), in float32 steps.
    pub(super) fn sigmas(&self) -> Vec<f64> {
        let sigma = |a: &f64| f64::from(((1.0 - *a as f32) / *a as f32).sqrt());
        self.alphas_cumprod.iter().map(sigma).collect()
    }
}

fn betas(config: &SchedulerConfig) -> Result<Vec<f32>> {
    let count = config.count("num_train_timesteps", 1000)?;
    if !(2..=MAX_TRAIN_TIMESTEPS).contains(&count) {
        let expected = format!("2 to {MAX_TRAIN_TIMESTEPS}");
        return Err(config.refuse("num_train_timesteps", count, expected));
    }
    if let Some(trained) = config.numbers("trained_betas")? {
        let fits =
            trained.len() == count && trained.iter().all(|b| (0.0..1.0).contains(b) && *b > 0.0);
        if !fits {
            let expected = format!("{count} numbers between 0 and 1, one per training timestep");
            return Err(config.refuse(
                "trained_betas",
                format!("{} numbers", trained.len()),
                expected,
            ));
        }
        return Ok(trained.into_iter().map(|beta| beta as f32).collect());
    }
    let start = beta(config, "beta_start", 0.0001)?;
    let end = beta(config, "beta_end", 0.02)?;
    type Make = fn(f64, f64, usize) -> Vec<f32>;
    let make = config.choice(
        "beta_schedule",
        &[
            ("linear", linear as Make),
            ("scaled_linear", scaled_linear),
            ("squaredcos_cap_v2", |_, _, count| squared_cosine(count)),
        ],
    )?;
    Ok(make(start, end, count))
}

fn beta(config: &SchedulerConfig, key: &str, default: f64) -> Result<f64> {
    let beta = config.number(key, default)?;
    if beta > 0.0 && beta < 1.0 {
        Ok(beta)
    } else {
        Err(config.refuse(key, beta, "a number between 0 and 1"))
    }
}

/// torch.linspace in float32: both halves are counted from their own end.
fn linear(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    let value = |i: usize| {
        if i < count / 2 {
            start + step * i as f32
        } else {
            end - step * (count - 1 - i) as f32
        }
    };
    (0..count).map(value).collect()
}

/// Linear in the square root: the schedule of latent diffusion.
fn scaled_linear(start: f64, end: f64, count: usize) -> Vec<f32> {
    let roots = linear(start.sqrt(), end.sqrt(), count);
    roots.into_iter().map(|root| root * root).collect()
}

/// The cosine schedule (<https://arxiv.org/abs/2102.09672>), betas capped at 0.999.
fn squared_cosine(count: usize) -> Vec<f32> {
    let signal = |t: f64| {
        let angle = (t + 0.008) / 1.008 * std::f64::consts::PI / 2.0;
        angle.cos().powi(2)
    };
    let beta = |i: usize| {
        let (t1, t2) = (i as f64 / count as f64, (i + 1) as f64 / count as f64);
        (1.0 - signal(t2) / signal(t1)).min(0.999) as f32
    };
    (0..count).map(beta).collect()
}

/// float32 factors and results, float64 accumulator: torch.cumprod on a CPU.
fn cumulated_signal(betas: &[f32]) -> Vec<f32> {
    let accumulate = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0, accumulate).collect()
}

/// Shifts and scales sqrt(alphas_cumprod) so that the first value stays and the last is zero
/// (<https://arxiv.org/abs/2305.08891>, algorithm 1).
fn rescale_to_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulated_signal(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let signal: Vec<f32> = roots
        .iter()
        .map(|root| ((root - last) * scale).powi(2))
        .collect();
    let beta = |i: usize| {
        if i == 0 {
            1.0 - signal[0]
        } else {
            1.0 - signal[i] / signal[i - 1]
        }
    };
    (0..signal.len()).map(beta).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn schedule(beta_schedule: &str, rescale: bool, terminal: TerminalSnr) -> NoiseSchedule {
        let json = format!(
            r#"{{"beta_schedule": "{beta_schedule}", "rescale_betas_zero_snr": {rescale},
                "beta_start": 0.00085, "beta_end": 0.012}}"#
        );
        let config = SchedulerConfig::from_json("scheduler_config.json", &json).unwrap();
        NoiseSchedule::new(&config, terminal).unwrap()
    }

    #[test]
    fn betas_are_in_the_unit_interval_and_the_signal_strictly_decreases() {
        for name in ["linear", "scaled_linear", "squaredcos_cap_v2"] {
            let schedule = schedule(name, false, TerminalSnr::Zero);
            assert_eq!(schedule.num_train_timesteps(), 1000);
            assert!(schedule.betas.iter().all(|beta| *beta > 0.0 && *beta < 1.0));
            assert!(
                schedule
                    .alphas_cumprod
                    .windows(2)
                    .all(|pair| pair[1] < pair[0])
            );
            assert!(schedule.alphas_cumprod.iter().all(|a| *a > 0.0 && *a < 1.0));
        }
    }

    #[test]
    fn the_ends_of_the_latent_diffusion_schedule_are_the_configured_betas() {
        let schedule = schedule("scaled_linear", false, TerminalSnr::Zero);
        assert!((schedule.betas[0] - 0.00085).abs() < 1e-9);
        assert!((schedule.betas[999] - 0.012).abs() < 1e-8);
        // The number that every Stable Diffusion 1 and 2 model ends at.
        assert!((schedule.alphas_cumprod[999] - 0.00466).abs() < 1e-5);
    }

    #[test]
    fn rescaling_leaves_no_signal_at_the_end_and_the_start_as_it_was() {
        let plain = schedule("scaled_linear", false, TerminalSnr::Zero);
        let zero = schedule("scaled_linear", true, TerminalSnr::Zero);
        assert_eq!(zero.alphas_cumprod[999], 0.0);
        assert!((zero.alphas_cumprod[0] - plain.alphas_cumprod[0]).abs() < 1e-6);
        assert!(zero.alphas_cumprod.windows(2).all(|pair| pair[1] < pair[0]));
        let almost = schedule("scaled_linear", true, TerminalSnr::AlmostZero);
        assert_eq!(almost.alphas_cumprod[999], 2.0_f64.powi(-24));
        let ignored = schedule("scaled_linear", true, TerminalSnr::Ignored);
        assert_eq!(ignored.alphas_cumprod, plain.alphas_cumprod);
    }

    #[test]
    fn trained_betas_replace_the_schedule() {
        let json = r#"{"num_train_timesteps": 2, "trained_betas": [0.5, 0.75]}"#;
        let config = SchedulerConfig::from_json("c", json).unwrap();
        let schedule = NoiseSchedule::new(&config, TerminalSnr::Zero).unwrap();
        assert_eq!(schedule.alphas_cumprod, [0.5, 0.125]);
        let json = r#"{"num_train_timesteps": 3, "trained_betas": [0.5, 0.75]}"#;
        let config = SchedulerConfig::from_json("c", json).unwrap();
        let error = NoiseSchedule::new(&config, TerminalSnr::Zero).unwrap_err();
        assert!(error.to_string().contains("trained_betas"), "{error}");
    }
}
