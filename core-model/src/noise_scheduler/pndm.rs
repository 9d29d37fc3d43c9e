//! Pseudo numerical methods: linear multistep of fourth order, warmed up by Runge-Kutta calls or
//! by one repeated call (<https://arxiv.org/abs/2202.09778>, algorithm 2 and equation 9).

use burn::tensor::Tensor;

use super::spacing::integer_timesteps;
use super::{NoiseSchedule, PredictionType, Sampler, SchedulerConfig, TerminalSnr, mix};
use crate::error::{Error, Result};

/// Runge-Kutta calls: three steps of four.
const WARM_UP_CALLS: usize = 12;

/// The numbers of one move of equation 9.
#[derive(Debug, Clone, Copy)]
struct Move {
    /// Factors of (sample, model output) in the predicted noise.
    to_noise: [f64; 2],
    /// Factors of (sample, noise) in the sample after the move.
    to_previous: [f64; 2],
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pndm {
    timesteps: Vec<f32>,
    moves: Vec<Move>,
    warm_up_calls: usize,
    /// The last model outputs, oldest first, at most four.
    outputs: Vec<Tensor<4>>,
    /// The weighted sum of a Runge-Kutta step so far.
    average: Option<Tensor<4>>,
    /// The sample that a step of several calls started from.
    start: Option<Tensor<4>>,
}

impl Pndm {
    /// Defaults of diffusers' `PNDMScheduler`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self> {
        let schedule = NoiseSchedule::new(config, TerminalSnr::Ignored)?;
        let count = schedule.num_train_timesteps();
        let ascending = integer_timesteps(config, count, num_inference_steps)?;
        let warm_up = !config.flag("skip_prk_steps", false)?;
        if warm_up && num_inference_steps < 4 {
            return Err(config.refuse(
                "skip_prk_steps",
                "false",
                format!(
                    "true, or at least 4 steps: {num_inference_steps} leave no room for \
                     the Runge-Kutta warm-up"
                ),
            ));
        }
        let stride = count / num_inference_steps;
        let moves = if warm_up {
            warm_up_moves(&ascending, stride)
        } else {
            plain_moves(&ascending, stride)
        };
        let alphas = &schedule.alphas_cumprod;
        let final_alpha = if config.flag("set_alpha_to_one", false)? {
            1.0
        } else {
            alphas[0]
        };
        let level = |t: i64| match usize::try_from(t) {
            Ok(t) => alphas.get(t).copied().ok_or_else(|| beyond(t, count)),
            Err(_) => Ok(final_alpha),
        };
        let build = |m: &Endpoints| {
            Ok(Move::new(
                level(m.from)?,
                level(m.to)?,
                schedule.prediction_type,
            ))
        };
        Ok(Self {
            timesteps: moves.iter().map(|m| m.call as f32).collect(),
            moves: moves.iter().map(build).collect::<Result<_>>()?,
            warm_up_calls: if warm_up { WARM_UP_CALLS } else { 0 },
            outputs: Vec::new(),
            average: None,
            start: None,
        })
    }
}

fn beyond(timestep: usize, count: usize) -> Error {
    Error::Invalid(format!(
        "the first step starts at timestep {timestep}, beyond the {count} of the schedule; \
         take another number of steps"
    ))
}

/// The timestep of a model call, and between which two the sample then moves.
struct Endpoints {
    call: i64,
    from: i64,
    to: i64,
}

/// The second call repeats the first move with the average of both outputs.
fn plain_moves(ascending: &[usize], stride: usize) -> Vec<Endpoints> {
    let stride = stride as i64;
    let mut calls: Vec<i64> = ascending.iter().rev().map(|t| *t as i64).collect();
    if calls.len() > 1 {
        calls.insert(1, calls[1]);
    }
    let endpoints = |(index, &call): (usize, &i64)| match index {
        1 => Endpoints {
            call,
            from: call + stride,
            to: call,
        },
        _ => Endpoints {
            call,
            from: call,
            to: call - stride,
        },
    };
    calls.iter().enumerate().map(endpoints).collect()
}

/// Three Runge-Kutta steps over the four highest timesteps, then single calls.
fn warm_up_moves(ascending: &[usize], stride: usize) -> Vec<Endpoints> {
    let (stride, half) = (stride as i64, stride as i64 / 2);
    let (low, high) = ascending.split_at(ascending.len() - 3);
    let top = |i: usize| {
        high.iter()
            .rev()
            .chain(low.last())
            .nth(i)
            .map_or(0, |t| *t as i64)
    };
    let mut moves = Vec::new();
    for step in 0..3 {
        let (from, next) = (top(step), top(step + 1));
        let middle = next + half;
        moves.push(Endpoints {
            call: from,
            from,
            to: from - half,
        });
        moves.push(Endpoints {
            call: middle,
            from,
            to: middle,
        });
        moves.push(Endpoints {
            call: middle,
            from,
            to: middle - half,
        });
        moves.push(Endpoints {
            call: next,
            from,
            to: next,
        });
    }
    let single = |t: &usize| {
        let call = *t as i64;
        Endpoints {
            call,
            from: call,
            to: call - stride,
        }
    };
    moves.extend(low.iter().rev().map(single));
    moves
}

impl Move {
    /// Equation 9 from the level `alpha` to the level `next`.
    fn new(alpha: f64, next: f64, prediction_type: PredictionType) -> Self {
        let to_noise = match prediction_type {
            PredictionType::Epsilon => [0.0, 1.0],
            PredictionType::VPrediction => [(1.0 - alpha).sqrt(), alpha.sqrt()],
        };
        let denominator = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        Self {
            to_noise,
            to_previous: [(next / alpha).sqrt(), -(next - alpha) / denominator],
        }
    }

    fn apply(&self, sample: Tensor<4>, output: Tensor<4>) -> Tensor<4> {
        let noise = mix(self.to_noise[0], sample.clone(), self.to_noise[1], output);
        mix(self.to_previous[0], sample, self.to_previous[1], noise)
    }
}

impl Pndm {
    /// One of the four calls of a Runge-Kutta step, weighted 1/6, 1/3, 1/3, 1/6.
    fn warm_up_output(&mut self, output: Tensor<4>, index: usize, sample: &Tensor<4>) -> Tensor<4> {
        let part = index % 4;
        if part == 0 {
            self.outputs.push(output.clone());
            self.start = Some(sample.clone());
        }
        let weight = if matches!(part, 0 | 3) {
            1.0 / 6.0
        } else {
            1.0 / 3.0
        };
        let weighted = output.clone().mul_scalar(weight);
        let sum = match self.average.take() {
            Some(average) => average + weighted,
            None => weighted,
        };
        if part == 3 {
            return sum;
        }
        self.average = Some(sum);
        output
    }

    /// Adams-Bashforth over the outputs so far, of order four as soon as there are four.
    fn multistep_output(&mut self, output: Tensor<4>, repeats_first: bool) -> Tensor<4> {
        if repeats_first {
            return (output + self.outputs[0].clone()).mul_scalar(0.5);
        }
        if self.outputs.len() == 4 {
            self.outputs.remove(0);
        }
        self.outputs.push(output);
        let weights: &[f64] = match self.outputs.len() {
            1 => &[1.0],
            2 => &[-1.0 / 2.0, 3.0 / 2.0],
            3 => &[5.0 / 12.0, -16.0 / 12.0, 23.0 / 12.0],
            _ => &[-9.0 / 24.0, 37.0 / 24.0, -59.0 / 24.0, 55.0 / 24.0],
        };
        let weighted = self
            .outputs
            .iter()
            .zip(weights)
            .map(|(o, w)| o.clone().mul_scalar(*w));
        weighted
            .reduce(|sum, term| sum + term)
            .unwrap_or_else(|| self.outputs[0].clone())
    }
}

impl Sampler for Pndm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4> {
        let (output, start) = if index < self.warm_up_calls {
            let output = self.warm_up_output(model_output, index, &sample);
            (output, self.start.clone().unwrap_or(sample))
        } else {
            let repeats_first = self.warm_up_calls == 0 && index == 1;
            let output = self.multistep_output(model_output, repeats_first);
            if self.warm_up_calls == 0 && index == 0 {
                self.start = Some(sample.clone());
            }
            let start = if repeats_first {
                self.start.take().unwrap_or(sample)
            } else {
                sample
            };
            (output, start)
        };
        self.moves[index].apply(start, output)
    }
}
