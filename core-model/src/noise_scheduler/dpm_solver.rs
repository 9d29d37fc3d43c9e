//! DPM-Solver++ in its multistep form of second order, "2M"
//! (<https://arxiv.org/abs/2211.01095>, algorithm 2).

use burn::tensor::Tensor;

use super::spacing::{Spacing, check_steps, interpolate, karras, linspace, timestep_of, trailing};
use super::{NoiseSchedule, PredictionType, Sampler, SchedulerConfig, TerminalSnr, mix};
use crate::error::Result;

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Factors of (sample, model output) in the predicted x_0.
    to_original: [f64; 2],
    /// Factor of the sample in the next sample.
    sample: f64,
    /// Factor of the predicted x_0.
    original: f64,
    /// Factor of (this x_0 - the x_0 before): zero in first-order steps.
    difference: f64,
}

/// An exponential integrator over x_0 in lambda = log(alpha / sigma).
#[derive(Debug)]
pub(super) struct DpmSolver {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    previous_original: Option<Tensor<4>>,
}

/// alpha, sigma and lambda of a variance-preserving process with this noise per signal.
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
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

/// How the second derivative enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SolverType {
    Midpoint,
    Heun,
}

impl DpmSolver {
    /// Defaults of diffusers' `DPMSolverMultistepScheduler`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self> {
        refuse_variants(config)?;
        let schedule = NoiseSchedule::new(config, TerminalSnr::AlmostZero)?;
        let mut timesteps = timesteps(config, &schedule, num_inference_steps)?;
        let all_sigmas = schedule.sigmas();
        let last_sigma = config.choice(
            "final_sigmas_type",
            &[("zero", 0.0), ("sigma_min", all_sigmas[0])],
        )?;
        let mut sigmas: Vec<f64> = timesteps
            .iter()
            .map(|t| interpolate(*t, &all_sigmas))
            .collect();
        if config.flag("use_karras_sigmas", false)? {
            let bounds = [all_sigmas[0], all_sigmas[all_sigmas.len() - 1]];
            sigmas = karras(config, bounds, num_inference_steps)?;
            // diffusers rounds the timesteps of all other schedules and cuts those of this one off.
            let cut = schedule.is_squared_cosine;
            timesteps = sigmas
                .iter()
                .map(|sigma| timestep_of(*sigma, &all_sigmas))
                .map(|t| if cut { t.trunc() } else { t.round_ties_even() })
                .collect();
        }
        sigmas.push(last_sigma);
        sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = f64::from(*sigma as f32));
        if sigmas.windows(2).any(|pair| pair[1] >= pair[0]) {
            return Err(config.refuse(
                "num_train_timesteps",
                schedule.num_train_timesteps(),
                format!(
                    "many more than {num_inference_steps}, or timesteps repeat and the \
                     multistep solver divides by zero; take fewer steps"
                ),
            ));
        }
        let order_of = orders(config, timesteps.len(), last_sigma == 0.0)?;
        let solver = solver_type(config)?;
        let step = |i: usize| {
            let levels = [i + 1, i, i.saturating_sub(1)].map(|i| Level::new(sigmas[i]));
            Step::new(&levels, order_of(i), solver, schedule.prediction_type)
        };
        Ok(Self {
            steps: (0..timesteps.len()).map(step).collect(),
            timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
            previous_original: None,
        })
    }
}

fn refuse_variants(config: &SchedulerConfig) -> Result<()> {
    config.refuse_switches(&[
        "thresholding",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ])?;
    // diffusers reads `deis` as `dpmsolver++`.
    config.choice("algorithm_type", &[("dpmsolver++", ()), ("deis", ())])?;
    config.choice("variance_type", &[("null", ())])
}

/// diffusers reads the names of other classes' solvers as `midpoint`.
fn solver_type(config: &SchedulerConfig) -> Result<SolverType> {
    config.choice(
        "solver_type",
        &[
            ("midpoint", SolverType::Midpoint),
            ("heun", SolverType::Heun),
            ("logrho", SolverType::Midpoint),
            ("bh1", SolverType::Midpoint),
            ("bh2", SolverType::Midpoint),
        ],
    )
}

/// The order of each step: the first is always 1, the last often.
fn orders(
    config: &SchedulerConfig,
    count: usize,
    ends_at_zero: bool,
) -> Result<impl Fn(usize) -> usize> {
    let highest = config.count("solver_order", 2)?;
    if !(1..=2).contains(&highest) {
        return Err(config.refuse("solver_order", highest, "1 or 2"));
    }
    let last_is_first_order = ends_at_zero
        || config.flag("euler_at_final", false)?
        || (config.flag("lower_order_final", true)? && count < 15);
    Ok(move |i: usize| {
        if i == 0 || (i + 1 == count && last_is_first_order) {
            1
        } else {
            highest
        }
    })
}

/// Descending; the last interval, from the last timestep to no noise, counts as a step.
fn timesteps(
    config: &SchedulerConfig,
    schedule: &NoiseSchedule,
    num_inference_steps: usize,
) -> Result<Vec<f64>> {
    let count = schedule.num_train_timesteps();
    check_steps(config, count, num_inference_steps)?;
    // Timesteps with hardly any signal can be left out.
    let lambda_min = config.number("lambda_min_clipped", f64::NEG_INFINITY)?;
    let sigmas = schedule.sigmas();
    let clipped = sigmas
        .iter()
        .filter(|sigma| -sigma.ln() < lambda_min)
        .count();
    let end = count - clipped;
    if end == 0 {
        return Err(config.refuse(
            "lambda_min_clipped",
            lambda_min,
            "less: it cuts all timesteps",
        ));
    }
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

impl Step {
    /// `levels`: after the step, before it, and one step earlier.
    fn new(levels: &[Level; 3], order: usize, solver: SolverType, kind: PredictionType) -> Self {
        let [t, s0, s1] = levels;
        let to_original = match kind {
            PredictionType::Epsilon => [1.0 / s0.alpha, -s0.sigma / s0.alpha],
            PredictionType::VPrediction => [s0.alpha, -s0.sigma],
        };
        let h = t.lambda - s0.lambda;
        let growth = (-h).exp_m1();
        let difference = if order == 1 {
            0.0
        } else {
            let h_0 = s0.lambda - s1.lambda;
            let second = match solver {
                SolverType::Midpoint => -0.5 * t.alpha * growth,
                SolverType::Heun => t.alpha * (growth / h + 1.0),
            };
            second * h / h_0
        };
        Self {
            to_original,
            sample: t.sigma / s0.sigma,
            original: -t.alpha * growth,
            difference,
        }
    }
}

impl Sampler for DpmSolver {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4> {
        let Step {
            to_original,
            sample: keep,
            original: add,
            difference,
        } = self.steps[index];
        let original = mix(to_original[0], sample.clone(), to_original[1], model_output);
        let previous = self.previous_original.replace(original.clone());
        let next = mix(keep, sample, add, original.clone());
        match previous {
            Some(previous) if difference != 0.0 => {
                next + (original - previous).mul_scalar(difference)
            }
            _ => next,
        }
    }
}
