//! DPM-Solver++ in its multistep form of second order, "2M"
//! (<https://arxiv.org/abs/2211.01095>, algorithm 2).

use burn::tensor::Tensor;

use super::multistep::{Course, Level};
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
        let end = timesteps_with_signal(config, &schedule)?;
        // diffusers rounds the timesteps of all other schedules and cuts those of this one off.
        let to_timestep = match schedule.is_squared_cosine {
            true => f64::trunc,
            false => f64::round_ties_even,
        };
        let Course {
            timesteps,
            levels,
            ends_at_zero,
        } = Course::new(config, &schedule, end, num_inference_steps, to_timestep)?;
        let order_of = orders(config, timesteps.len(), ends_at_zero)?;
        let solver = solver_type(config)?;
        let step = |i: usize| {
            let around = [i + 1, i, i.saturating_sub(1)].map(|i| levels[i]);
            Step::new(&around, order_of(i), solver, schedule.prediction_type)
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
    config.refuse_learned_variance()
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

/// How many training timesteps are used: those with hardly any signal can be left out.
fn timesteps_with_signal(config: &SchedulerConfig, schedule: &NoiseSchedule) -> Result<usize> {
    let lambda_min = config.number("lambda_min_clipped", f64::NEG_INFINITY)?;
    let sigmas = schedule.sigmas();
    let kept = sigmas.iter().filter(|sigma| -sigma.ln() >= lambda_min);
    match kept.count() {
        0 => Err(config.refuse(
            "lambda_min_clipped",
            lambda_min,
            "less: it cuts all timesteps",
        )),
        kept => Ok(kept),
    }
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
