//! What a run costs: measured on real steps, or computed from the sizes of the networks.

pub mod disk;
pub mod memory;

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use crate::base_model::BaseModel;
use crate::config::{RunConfig, StageConfig};
use crate::error::Result;
use crate::stepper::Stepper;
use crate::tuning_free;
use disk::ModelShapes;

/// The measured cost of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
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
/// As [`run`](crate::run()) before the first step.
pub fn measure(base: BaseModel, config: &RunConfig, replay: Option<&Path>) -> Result<Cost> {
    let mut step_seconds = Vec::new();
    if config.adapter.is_some() {
        return Ok(Cost {
            step_seconds,
            seconds: 0.0,
            peak_memory: peak_memory(),
        });
    }
    let mut stepper = Stepper::to_measure(config, base, replay)?;
    for stage in 0..config.stages.len() {
        stepper.begin_stage(stage);
        let mut last = 0.0;
        let mut steps = 0;
        time_steps_of(&mut stepper, stage, &mut |seconds| {
            last = seconds;
            steps += 1;
            steps < 2
        });
        step_seconds.push(last);
    }
    let steps = config.stages.iter().map(|stage| stage.steps as f64);
    let each = steps.zip(&step_seconds);
    Ok(Cost {
        seconds: each.map(|(steps, seconds)| steps * seconds).sum(),
        step_seconds,
        peak_memory: peak_memory(),
    })
}

/// Makes steps of one stage, from the untrained weights, and tells `on_step` the seconds of each,
/// until that says to stop or the stage is at its end.
///
/// # Errors
/// As [`run`](crate::run()) before the first step.
pub fn time_steps(
    config: &RunConfig,
    stage: usize,
    on_step: &mut dyn FnMut(f64) -> bool,
) -> Result<()> {
    let base = BaseModel::load(&config.model, &config.device)?;
    let mut stepper = Stepper::to_measure(config, base, None)?;
    stepper.begin_stage(stage);
    time_steps_of(&mut stepper, stage, on_step);
    Ok(())
}

fn time_steps_of(stepper: &mut Stepper<'_>, stage: usize, on_step: &mut dyn FnMut(f64) -> bool) {
    let mut start = Instant::now();
    // A step ends by reading the loss and the norm back, so the device has finished then.
    while let Some(Ok(step)) = stepper.next_step() {
        if step.position.stage != stage || !on_step(start.elapsed().as_secs_f64()) {
            return;
        }
        start = Instant::now();
    }
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
        concept.num_vectors(),
        config.device,
        config.model.path.display(),
    );
    if let Some(adapter) = &config.adapter {
        text.push_str(&tuning_free::describe(config, adapter)?);
        return Ok(text);
    }
    let (mut cost, mut disk) = (None, None);
    if !config.model.source().is_present() {
        text.push_str("no estimate: model not present\n");
    } else if replay.is_none() && !concept.images.exists() {
        text.push_str("no estimate: concept folder not present\n");
    } else {
        let base = BaseModel::load(&config.model, &config.device)?;
        disk = Some(ModelShapes::read(&base.folder)?.run(config)?);
        cost = Some(measure(base, config, replay)?);
    }
    for (index, stage) in config.stages.iter().enumerate() {
        let _ = write!(text, "{}", line(stage));
        if let Some(cost) = &cost {
            let seconds = cost.step_seconds[index];
            let whole = duration(seconds * stage.steps as f64);
            let _ = write!(text, ", {seconds:.3} s per step, {whole}");
        }
        text.push('\n');
    }
    if let Some(cost) = cost {
        let _ = writeln!(text, "time: about {}", duration(cost.seconds));
        match cost.peak_memory {
            Some(bytes) => {
                let mib = bytes.div_ceil(1 << 20);
                let _ = writeln!(text, "peak memory: about {mib} MiB");
            }
            None => text.push_str("peak memory: not known on this system\n"),
        }
    }
    if let Some(disk) = disk {
        let [end, peak] =
            [disk.weights + disk.rest, disk.peak()].map(|bytes| bytes.div_ceil(1 << 20));
        let _ = writeln!(text, "disk: about {end} MiB, {peak} MiB while it trains");
    }
    Ok(text)
}

fn line(stage: &StageConfig) -> String {
    let train = stage.train.iter().map(|entry| entry.adapter.kind());
    let train: Vec<&str> = train.collect();
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
    // A sum of nothing is -0.0.
    let seconds = seconds + 0.0;
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
