//! `--dry-run`: what would run, and what it would cost, measured on real steps.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use core_model::device::parse_device;

use crate::config::{RunConfig, StageConfig};
use crate::error::Result;
use crate::trainer::Learner;

/// The cost of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Seconds of one step of each stage.
    pub step_seconds: Vec<f64>,
    /// Seconds of all steps of all stages.
    pub seconds: f64,
    /// Peak resident memory of this process in bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

/// Takes two steps of every stage and times the second.
///
/// # Errors
/// As [`run`](crate::run) before the first step.
pub fn measure(config: &RunConfig, replay: Option<&Path>) -> Result<Estimate> {
    let device = parse_device(&config.device)?;
    let model = config.model.source().locate()?;
    let learner = Learner::load(config, model, &device, replay, None)?;
    let mut step_seconds = Vec::new();
    for (index, stage_config) in config.stages.iter().enumerate() {
        let mut stage = learner.stage(index);
        let mut weights = learner.first_weights();
        weights.unet = stage.choose(weights.unet);
        let mut seconds = 0.0;
        for step in 1..=stage_config.steps.min(2) {
            let start = Instant::now();
            let Ok((gradients, terms)) = stage.gradients(&weights, step) else {
                break;
            };
            weights = stage.update(weights, &gradients, step);
            // Reads the weights back, so that the device has finished.
            stage.row(&terms, &weights, step);
            seconds = start.elapsed().as_secs_f64();
        }
        step_seconds.push(seconds);
    }
    let steps = config.stages.iter().map(|stage| stage.steps as f64);
    let seconds = steps
        .zip(&step_seconds)
        .map(|(steps, seconds)| steps * seconds)
        .sum();
    Ok(Estimate {
        step_seconds,
        seconds,
        peak_memory: peak_memory(),
    })
}

/// The text of `--dry-run`.
///
/// # Errors
/// As [`measure`], where model and photos are present.
pub fn describe(config: &RunConfig, replay: Option<&Path>) -> Result<String> {
    let concept = &config.concept;
    let mut text = format!(
        "{} ({}), {} vector(s), on {} with {}\n",
        concept.placeholder_token(),
        concept.super_category,
        concept.num_vectors,
        config.device,
        config.model.path.display(),
    );
    let estimate = if !config.model.source().is_present() {
        text.push_str("no estimate: model not present\n");
        None
    } else if replay.is_none() && !concept.images.exists() {
        text.push_str("no estimate: concept folder not present\n");
        None
    } else {
        Some(measure(config, replay)?)
    };
    for (index, stage) in config.stages.iter().enumerate() {
        let _ = write!(text, "{}", line(stage));
        if let Some(estimate) = &estimate {
            let seconds = estimate.step_seconds[index];
            let whole = duration(seconds * stage.steps as f64);
            let _ = write!(text, ", {seconds:.3} s a step, {whole}");
        }
        text.push('\n');
    }
    if let Some(estimate) = estimate {
        let _ = writeln!(text, "time: about {}", duration(estimate.seconds));
        match estimate.peak_memory {
            Some(bytes) => {
                let mib = bytes.div_ceil(1 << 20);
                let _ = writeln!(text, "peak memory: about {mib} MiB");
            }
            None => text.push_str("peak memory: not known on this system\n"),
        }
    }
    Ok(text)
}

fn line(stage: &StageConfig) -> String {
    let train: Vec<&str> = stage.train.iter().map(|set| set.name()).collect();
    let terms: Vec<&str> = stage.regularizers.iter().map(|term| term.kind()).collect();
    let mut line = format!(
        "stage {}: trains {}, {} steps of {} x {} samples, learning rate {:?}",
        stage.name,
        train.join(" and "),
        stage.steps,
        stage.gradient_accumulation_steps,
        stage.batch_size,
        stage.learning_rate,
    );
    if !terms.is_empty() {
        let _ = write!(line, ", with {}", terms.join(" and "));
    }
    if let Some(window) = stage.rescale_window() {
        let _ = write!(
            line,
            ", rescaling after steps {} to {}",
            window.from + 1,
            window.to
        );
        if window.from >= stage.steps {
            line.push_str(" (never: the stage ends before)");
        }
    }
    line
}

/// A time for readers.
pub fn duration(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// The largest resident memory so far, in bytes: `VmHWM` of Linux.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
