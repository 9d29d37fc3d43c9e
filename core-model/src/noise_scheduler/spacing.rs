//! Which training timesteps a sampler visits (<https://arxiv.org/abs/2305.08891>, table 2), with
//! numpy's rounding, half to even.

use super::SchedulerConfig;
use crate::error::Result;

/// How the inference steps are spread over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    /// Evenly, both ends included.
    Linspace,
    /// Every `num_train_timesteps / steps`-th from the start.
    Leading,
    /// The same from the end.
    Trailing,
}

impl Spacing {
    /// `timestep_spacing` of a file; `default` when it says nothing.
    pub(super) fn new(config: &SchedulerConfig, default: Self) -> Result<Self> {
        let mut options = [
            ("linspace", Self::Linspace),
            ("leading", Self::Leading),
            ("trailing", Self::Trailing),
        ];
        options.sort_by_key(|(_, spacing)| *spacing != default);
        config.choice("timestep_spacing", &options)
    }
}

/// The timesteps of DDIM and PNDM, ascending.
///
/// # Errors
/// More steps than training timesteps, or an offset beyond the last one.
pub(super) fn integer_timesteps(
    config: &SchedulerConfig,
    num_train_timesteps: usize,
    num_inference_steps: usize,
) -> Result<Vec<usize>> {
    check_steps(config, num_train_timesteps, num_inference_steps)?;
    let offset = config.count("steps_offset", 0)?;
    let timesteps: Vec<usize> = match Spacing::new(config, Spacing::Leading)? {
        Spacing::Linspace => linspace((num_train_timesteps - 1) as f64, num_inference_steps)
            .map(|t| t.round_ties_even() as usize)
            .collect(),
        Spacing::Leading => {
            let ratio = num_train_timesteps / num_inference_steps;
            (0..num_inference_steps)
                .map(|i| (i * ratio).saturating_add(offset))
                .collect()
        }
        Spacing::Trailing => {
            let mut timesteps = trailing(
                num_train_timesteps,
                num_train_timesteps as f64 / num_inference_steps as f64,
                num_inference_steps,
            );
            timesteps.reverse();
            timesteps.into_iter().map(|t| t as usize).collect()
        }
    };
    if timesteps.iter().any(|t| *t >= num_train_timesteps) {
        return Err(config.refuse(
            "steps_offset",
            offset,
            format!(
                "an offset with which {num_inference_steps} steps stay below the \
                 {num_train_timesteps} training timesteps; take fewer steps"
            ),
        ));
    }
    Ok(timesteps)
}

/// Fails when there are more inference steps than training timesteps.
pub(super) fn check_steps(
    config: &SchedulerConfig,
    num_train_timesteps: usize,
    num_inference_steps: usize,
) -> Result<()> {
    if num_inference_steps <= num_train_timesteps {
        return Ok(());
    }
    Err(config.refuse(
        "num_train_timesteps",
        num_train_timesteps,
        format!("at least the number of steps, {num_inference_steps}; take fewer steps"),
    ))
}

/// numpy.linspace(0, stop, count).
pub(super) fn linspace(stop: f64, count: usize) -> impl DoubleEndedIterator<Item = f64> {
    let step = if count > 1 {
        stop / (count - 1) as f64
    } else {
        0.0
    };
    (0..count).map(move |i| {
        if i > 0 && i == count - 1 {
            stop
        } else {
            i as f64 * step
        }
    })
}

/// round(numpy.arange(start, 0, -step)) - 1, descending, cut to `count` values: for some numbers
/// of steps numpy's rounding adds one value more, which would be timestep -1.
pub(super) fn trailing(start: usize, step: f64, count: usize) -> Vec<f64> {
    let start = start as f64;
    let delta = (start - step) - start;
    (0..count)
        .map(|i| ((start + i as f64 * delta).round_ties_even() - 1.0).max(0.0))
        .collect()
}

/// The sigmas of Karras et al. (<https://arxiv.org/abs/2206.00364>, equation 5, rho 7), from the
/// file's `sigma_max` down to its `sigma_min`; absent ones are those of the schedule.
///
/// # Errors
/// Values that are not above zero or in the wrong order.
pub(super) fn karras(
    config: &SchedulerConfig,
    [min, max]: [f64; 2],
    count: usize,
) -> Result<Vec<f64>> {
    const RHO: f64 = 7.0;
    let min = config.number("sigma_min", min)?;
    let max = config.number("sigma_max", max)?;
    if !(min > 0.0 && min <= max && max.is_finite()) {
        let expected = format!("a number above 0 and at most sigma_max, {max}");
        return Err(config.refuse("sigma_min", min, expected));
    }
    let (min, max) = (min.powf(1.0 / RHO), max.powf(1.0 / RHO));
    Ok(linspace(1.0, count)
        .map(|ramp| (max + ramp * (min - max)).powf(RHO))
        .collect())
}

/// The timestep, not rounded, at which an ascending schedule has this sigma: linear in log(sigma).
pub(super) fn timestep_of(sigma: f64, schedule: &[f64]) -> f64 {
    let log = |sigma: f64| f64::from((sigma as f32).ln());
    let wanted = sigma.max(1e-10).ln();
    let below = schedule.partition_point(|sigma| log(*sigma) <= wanted);
    let low = below.saturating_sub(1).min(schedule.len() - 2);
    let [a, b] = [schedule[low], schedule[low + 1]].map(log);
    let weight = ((a - wanted) / (a - b)).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

/// numpy.interp over the whole numbers: linear between neighbours, the end values outside.
pub(super) fn interpolate(at: f64, values: &[f64]) -> f64 {
    let last = values.len() - 1;
    if at >= last as f64 {
        return values[last];
    }
    let low = at as usize;
    (values[low + 1] - values[low]) * (at - low as f64) + values[low]
}
