//! Real training steps under a stopwatch, for benchmarks.

use std::time::Instant;

use core_model::device::parse_device;

use crate::config::RunConfig;
use crate::error::Result;
use crate::trainer::Learner;

/// Makes steps of one stage, from the untrained weights, and tells `on_step` the seconds of each,
/// until that says to stop or the stage is at its end.
///
/// # Errors
/// As [`run`](crate::run) before the first step.
pub fn time_steps(
    config: &RunConfig,
    stage: usize,
    on_step: &mut dyn FnMut(f64) -> bool,
) -> Result<()> {
    let device = parse_device(&config.device)?;
    let model = config.model.source().locate()?;
    let learner = Learner::load(config, model, &device, None, None)?;
    let steps = config.stages[stage].steps;
    let mut stage = learner.stage(stage);
    let mut weights = learner.first_weights();
    weights.unet = stage.choose(weights.unet);
    for step in 1..=steps {
        let start = Instant::now();
        let Ok((gradients, terms)) = stage.gradients(&weights, step) else {
            break;
        };
        weights = stage.update(weights, &gradients, step);
        // Reads the weights back, so that the device has finished.
        stage.row(&terms, &weights, step);
        if !on_step(start.elapsed().as_secs_f64()) {
            break;
        }
    }
    Ok(())
}
