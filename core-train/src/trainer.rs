//! Training, top to bottom.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use core_model::folder::ModelFolder;

use crate::base_model::BaseModel;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::logging::{Log, Logged};
use crate::progress::Progress;
use crate::run::folder::{ENVIRONMENT, RunDir, Unfinished, VALIDATION};
use crate::run::position::Position;
use crate::run::state::StateFolder;
use crate::run::{checkpoint, environment, save_concept, save_results};
use crate::stepper::{Step, Stepper};
use crate::tuning_free;
use crate::validation::Validation;

/// Where a run goes and how.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// The run folder; it lies beside under a scratch name until the run is complete.
    pub output: &'a Path,
    /// The scratch folder of this process, where others may train the same run in theirs. Absent:
    /// `NAME.partial`.
    pub scratch: Option<&'a Path>,
    /// What to do about an unfinished run there.
    pub unfinished: Unfinished,
    /// Randomness of the first stage.
    pub replay: Option<&'a Path>,
    /// Becomes true when the run is to stop after the step it is at.
    pub stop: &'a AtomicBool,
    /// Whether the finished run keeps the state of its last step, so that others can go on from it
    /// ([`first_stages`](crate::run::first_stages)).
    pub keep_state: bool,
    /// Whether progress is shown on standard error.
    pub show_progress: bool,
}

/// Trains what `config` says and returns the complete run folder.
///
/// # Errors
/// Everything that can be wrong with model, photos, prompts and folder, found before the first
/// step; [`Error::NotFinite`] and [`Error::Interrupted`] later, with the state saved.
pub fn run(config: &RunConfig, options: &RunOptions<'_>) -> Result<PathBuf> {
    let base = BaseModel::load(&config.model, &config.device)?;
    run_on(base, config, options)
}

/// The same on a base model that is loaded already: that of `config`. Who needs it afterwards passes a
/// clone, with which weights that are trained are in memory twice.
///
/// # Errors
/// As [`run`].
pub fn run_on(base: BaseModel, config: &RunConfig, options: &RunOptions<'_>) -> Result<PathBuf> {
    if let Some(adapter) = &config.adapter {
        return tuning_free::run_on(&base, config, adapter, options);
    }
    // 1. model, data, prompts; nothing of them can fail once the folder is made
    let base_folder = base.folder.clone();
    let mut stepper = Stepper::new(config, base, options.replay)?;
    let validation = Validation::new(&stepper)?;
    base_folder.digests()?;
    warn_of_idle_windows(config);
    let (dir, position) =
        RunDir::open(options.output, options.scratch, config, options.unfinished)?;
    let states = StateFolder::of(dir.folder());
    let begun = begin(&base_folder, dir.folder(), &states, position, &mut stepper);
    let mut log = match begun {
        Ok(log) => log,
        Err(error) => {
            dir.abandon();
            return Err(error);
        }
    };
    let mut progress = StageProgress::new(options.show_progress);
    loop {
        // 2. one optimiser step of the current stage
        let mut step = match stepper.next_step() {
            None => break,
            Some(Ok(step)) => step,
            Some(Err(fault)) => {
                log.sync()?;
                let kept = keep(&base_folder, &states, &stepper, dir.folder())?;
                let (stage, step) = (&stepper.stage_config().name, stepper.position().step + 1);
                return Err(fault.at(stage, step, kept, dir.folder()));
            }
        };
        // 3. validation images
        let drawn = validation.draw(&stepper, &step, &dir.folder().join(VALIDATION))?;
        step.row.scores = drawn.scores;
        // 4. log
        log.write(&Logged {
            row: &step.row,
            total_step: step.position.total,
            images: &drawn.images,
        })?;
        progress.show(&step, stepper.stage_config().steps);
        // 5. save
        checkpoint::write(&stepper, &base_folder, dir.folder())?;
        let stopping = options.stop.load(Ordering::Relaxed);
        if stepper.is_save_point() || stopping {
            log.sync()?;
            save(&base_folder, &states, &stepper, dir.folder())?;
        }
        if stopping {
            return Err(Error::Interrupted {
                stage: step.row.stage,
                step: step.position.step,
                folder: dir.folder().to_path_buf(),
            });
        }
    }
    // 6. results
    save_results(config, &base_folder, stepper.model(), dir.folder())?;
    dir.complete(options.keep_state)
}

/// Writes what a run folder holds before the first step, and goes to the saved one, if any.
fn begin(
    base: &ModelFolder,
    folder: &Path,
    states: &StateFolder,
    position: Option<Position>,
    stepper: &mut Stepper<'_>,
) -> Result<Log> {
    let config = stepper.config();
    environment::write(&folder.join(ENVIRONMENT), config, base)?;
    if let Some(position) = position {
        states.restore(position, stepper)?;
    }
    let rows = stepper.position().total;
    Log::open(folder, config.log(), rows)
}

/// Saves the state, and the concept as it is now in the file where it will be at the end.
fn save(
    base: &ModelFolder,
    states: &StateFolder,
    stepper: &Stepper<'_>,
    folder: &Path,
) -> Result<()> {
    save_concept(stepper.config(), base, stepper.model(), folder)?;
    states.save(stepper)
}

/// Saves the state before a step that failed; up to which step of the stage everything is kept.
/// Weights that are NaN or infinite already are not saved over good ones.
fn keep(
    base: &ModelFolder,
    states: &StateFolder,
    stepper: &Stepper<'_>,
    folder: &Path,
) -> Result<usize> {
    let position = stepper.position();
    if stepper.is_finite() {
        save(base, states, stepper, folder)?;
        return Ok(position.step);
    }
    let saved = states.position()?;
    let saved = saved.filter(|saved| saved.stage == position.stage);
    Ok(saved.map_or(0, |saved| saved.step))
}

/// A window after the last step is most likely left over from a longer stage.
fn warn_of_idle_windows(config: &RunConfig) {
    for stage in &config.stages {
        if let Some(window) = stage.rescale_window().filter(|w| w.from >= stage.steps) {
            tracing::warn!(
                "stage `{}` ends at step {} and never rescales, which would begin after step {}",
                stage.name,
                stage.steps,
                window.from
            );
        }
    }
}

/// A progress bar for the current stage.
struct StageProgress {
    wanted: bool,
    stage: Option<(usize, Progress)>,
}

impl StageProgress {
    fn new(wanted: bool) -> Self {
        Self {
            wanted,
            stage: None,
        }
    }

    fn show(&mut self, step: &Step, steps: usize) {
        if !self.wanted {
            return;
        }
        let stage = step.position.stage;
        if self.stage.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            let done = step.position.step as u64 - 1;
            let progress = Progress::new(&step.row.stage, done, steps as u64);
            self.stage = Some((stage, progress));
        }
        if let Some((_, progress)) = &mut self.stage {
            progress.advance(&format!("loss {:.4}", step.row.loss));
            if step.position.step == steps {
                progress.finish();
            }
        }
    }
}
