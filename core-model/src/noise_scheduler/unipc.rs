//! UniPC (<https://arxiv.org/abs/2302.04867>, algorithms 5 to 8 with predicted x_0): a multistep
//! predictor, and a corrector that uses the next model call to improve the sample it was made for.

use burn::tensor::Tensor;

use super::multistep::{Course, Level};
use super::{NoiseSchedule, PredictionType, Sampler, SchedulerConfig, TerminalSnr, mix};
use crate::error::Result;

/// The highest order that is computed.
const HIGHEST_ORDER: usize = 3;

/// The numbers of one call.
#[derive(Debug)]
struct Step {
    /// Factors of (sample, model output) in the predicted x_0.
    to_original: [f64; 2],
    /// From the sample before to this one, now that x_0 is predicted here too.
    corrector: Option<Update>,
    /// From this sample to the next.
    predictor: Update,
}

/// A step from one noise level to the next along predictions of x_0.
#[derive(Debug)]
struct Update {
    /// Factor of the sample at the level before.
    sample: f64,
    /// Factor of x_0 as predicted there.
    original: f64,
    /// Factors of (other x_0 - that one): those before it, then the one after it if it is known.
    differences: Vec<f64>,
}

/// The predictor UniP and the corrector UniC of one order.
#[derive(Debug)]
pub(super) struct UniPc {
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    /// The last predictions of x_0, newest first.
    originals: Vec<Tensor<4>>,
    last_sample: Option<Tensor<4>>,
}

/// The function B(h) of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SolverType {
    Bh1,
    Bh2,
}

impl UniPc {
    /// Defaults of diffusers' `UniPCMultistepScheduler`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self> {
        refuse_variants(config)?;
        let schedule = NoiseSchedule::new(config, TerminalSnr::AlmostZero)?;
        let Course {
            timesteps,
            levels,
            ends_at_zero,
        } = Course::new(
            config,
            &schedule,
            schedule.num_train_timesteps(),
            num_inference_steps,
            f64::round_ties_even,
        )?;
        let solver = solver_type(config)?;
        let uncorrected = config.numbers("disable_corrector")?.unwrap_or_default();
        let orders = orders(config, timesteps.len(), ends_at_zero)?;
        let step = |i: usize| Step {
            to_original: match (levels[i], schedule.prediction_type) {
                (at, PredictionType::Epsilon) => [1.0 / at.alpha, -at.sigma / at.alpha],
                (at, PredictionType::VPrediction) => [at.alpha, -at.sigma],
            },
            corrector: (i > 0 && !uncorrected.contains(&(i as f64 - 1.0)))
                .then(|| Update::corrector(&levels[..=i], orders[i - 1], solver)),
            predictor: Update::predictor(&levels[..=i + 1], orders[i], solver),
        };
        Ok(Self {
            steps: (0..timesteps.len()).map(step).collect(),
            timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
            originals: Vec::new(),
            last_sample: None,
        })
    }
}

fn refuse_variants(config: &SchedulerConfig) -> Result<()> {
    config.refuse_switches(&[
        "thresholding",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ])?;
    config.choice("solver_p", &[("null", ())])?;
    if !config.flag("predict_x0", true)? {
        return Err(config.refuse("predict_x0", "false", "true: noise is not integrated here"));
    }
    let ends = config.choice("final_sigmas_type", &[("zero", true), ("sigma_min", false)])?;
    if config.flag("use_karras_sigmas", false)? && !ends {
        let expected = "zero: the last two of Karras' sigmas would be the same";
        return Err(config.refuse("final_sigmas_type", "sigma_min", expected));
    }
    Ok(())
}

/// diffusers reads the names of other classes' solvers as `bh2`.
fn solver_type(config: &SchedulerConfig) -> Result<SolverType> {
    config.choice(
        "solver_type",
        &[
            ("bh2", SolverType::Bh2),
            ("bh1", SolverType::Bh1),
            ("midpoint", SolverType::Bh2),
            ("heun", SolverType::Bh2),
            ("logrho", SolverType::Bh2),
        ],
    )
}

/// The order of each predictor: rising from 1 at the start and, usually, falling to 1 at the end.
fn orders(config: &SchedulerConfig, count: usize, ends_at_zero: bool) -> Result<Vec<usize>> {
    let highest = config.count("solver_order", 2)?;
    if !(1..=HIGHEST_ORDER).contains(&highest) {
        return Err(config.refuse("solver_order", highest, "1, 2 or 3"));
    }
    let lower_at_end = config.flag("lower_order_final", true)?;
    if !lower_at_end && ends_at_zero && highest > 1 && count > 1 {
        let expected = "true, or final_sigmas_type sigma_min: the step to no noise is of order 1";
        return Err(config.refuse("lower_order_final", "false", expected));
    }
    Ok((0..count)
        .map(|i| {
            let left = if lower_at_end { count - i } else { highest };
            highest.min(left).min(i + 1)
        })
        .collect())
}

impl Update {
    /// The step to the last of `levels`, before x_0 is predicted there.
    fn predictor(levels: &[Level], order: usize, solver: SolverType) -> Self {
        let ratios = ratios(levels, order);
        Self::new(levels, solver, &ratios, |b| match order {
            // diffusers takes the limit of small steps.
            2 => vec![0.5],
            _ => solve(&ratios, b),
        })
    }

    /// The same step with the x_0 that is predicted at its end.
    fn corrector(levels: &[Level], order: usize, solver: SolverType) -> Self {
        let mut ratios = ratios(levels, order);
        ratios.push(1.0);
        Self::new(levels, solver, &ratios, |b| match order {
            1 => vec![0.5],
            _ => solve(&ratios, b),
        })
    }

    /// `weights` makes the factors of x_0's differences from the right-hand side b of the paper's
    /// equation 9, for as many as there are ratios.
    fn new(
        levels: &[Level],
        solver: SolverType,
        ratios: &[f64],
        weights: impl Fn(Vec<f64>) -> Vec<f64>,
    ) -> Self {
        let [before, at] = [levels[levels.len() - 2], levels[levels.len() - 1]];
        let h = before.lambda - at.lambda;
        let growth = h.exp_m1();
        let scale = match solver {
            SolverType::Bh1 => h,
            SolverType::Bh2 => growth,
        };
        let mut phi = growth / h - 1.0;
        let mut factorial = 1.0;
        let mut b = Vec::with_capacity(ratios.len());
        for i in 1..=ratios.len() {
            b.push(phi * factorial / scale);
            factorial *= (i + 1) as f64;
            phi = phi / h - 1.0 / factorial;
        }
        let differences = weights(b).into_iter().zip(ratios);
        Self {
            sample: at.sigma / before.sigma,
            original: -at.alpha * growth,
            differences: differences
                .map(|(weight, ratio)| -at.alpha * scale * weight / ratio)
                .collect(),
        }
    }

    /// `newest` is x_0 as predicted at the level before, `others` what `differences` are about.
    fn apply<'a>(
        &self,
        sample: Tensor<4>,
        newest: &Tensor<4>,
        others: impl Iterator<Item = &'a Tensor<4>>,
    ) -> Tensor<4> {
        let start = mix(self.sample, sample, self.original, newest.clone());
        self.differences
            .iter()
            .zip(others)
            .fold(start, |sum, (factor, other)| {
                sum + (other.clone() - newest.clone()).mul_scalar(*factor)
            })
    }
}

/// How far the levels of older predictions are from the one before, in steps; one fewer than the
/// order.
fn ratios(levels: &[Level], order: usize) -> Vec<f64> {
    let last = levels.len() - 1;
    let before = levels[last - 1].lambda;
    let h = levels[last].lambda - before;
    (1..order)
        .map(|k| (levels[last - 1 - k].lambda - before) / h)
        .collect()
}

/// The weights w with sum over k of w_k r_k^i = b_i for i from 0 (Golub and Van Loan, Matrix
/// Computations, algorithm 4.6.2).
fn solve(ratios: &[f64], mut b: Vec<f64>) -> Vec<f64> {
    let n = ratios.len();
    for (k, ratio) in ratios.iter().enumerate() {
        for i in (k + 1..n).rev() {
            b[i] -= ratio * b[i - 1];
        }
    }
    for k in (0..n.saturating_sub(1)).rev() {
        for i in k + 1..n {
            b[i] /= ratios[i] - ratios[i - k - 1];
        }
        for i in k..n - 1 {
            b[i] -= b[i + 1];
        }
    }
    b
}

impl Sampler for UniPc {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4> {
        let Step {
            to_original,
            corrector,
            predictor,
        } = &self.steps[index];
        let original = mix(to_original[0], sample.clone(), to_original[1], model_output);
        let sample = match (corrector, self.last_sample.take(), &self.originals[..]) {
            (Some(corrector), Some(last), [newest, older @ ..]) => {
                let older = older.iter().take(corrector.differences.len() - 1);
                corrector.apply(last, newest, older.chain([&original]))
            }
            _ => sample,
        };
        let next = predictor.apply(sample.clone(), &original, self.originals.iter());
        self.last_sample = Some(sample);
        self.originals.insert(0, original);
        self.originals.truncate(HIGHEST_ORDER);
        next
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<UniPc> {
        UniPc::new(
            &SchedulerConfig::from_json("scheduler_config.json", json)?,
            10,
        )
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, key) in [
            (r#"{"thresholding": true}"#, "thresholding"),
            (r#"{"use_flow_sigmas": true}"#, "use_flow_sigmas"),
            (r#"{"predict_x0": false}"#, "predict_x0"),
            (r#"{"solver_order": 4}"#, "solver_order"),
            (r#"{"solver_type": "euler"}"#, "solver_type"),
            (r#"{"solver_p": {"order": 1}}"#, "solver_p"),
            (r#"{"disable_corrector": "none"}"#, "disable_corrector"),
            (r#"{"lower_order_final": false}"#, "lower_order_final"),
            (
                r#"{"use_karras_sigmas": true, "final_sigmas_type": "sigma_min"}"#,
                "final_sigmas_type",
            ),
        ] {
            let text = build(json).unwrap_err().to_string();
            assert!(text.contains(&format!("`{key}`")), "{key}: {text}");
        }
    }

    #[test]
    fn the_step_to_no_noise_ends_at_the_last_x_0() {
        // diffusers multiplies infinity by zero for bh1.
        for solver in ["bh1", "bh2"] {
            let sampler = build(&format!(r#"{{"solver_type": "{solver}"}}"#)).unwrap();
            let Update {
                sample,
                original,
                differences,
            } = &sampler.steps[9].predictor;
            assert_eq!((*sample, *original, differences.len()), (0.0, 1.0, 0));
        }
    }

    #[test]
    fn the_weights_solve_the_vandermonde_system() {
        // 2 + 3 - 1 = 4; 2 (-2) + 3 (-1) - 1 = -8; 2 (4) + 3 (1) - 1 = 10.
        assert_eq!(
            solve(&[-2.0, -1.0, 1.0], vec![4.0, -8.0, 10.0]),
            [2.0, 3.0, -1.0]
        );
        assert_eq!(solve(&[], vec![]), [0.0; 0]);
    }
}
