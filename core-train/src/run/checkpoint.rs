//! `checkpoints/`: the run after some of its steps, as a run folder that everything opens which opens
//! runs.

use std::path::Path;

use core_model::files::write_atomically;
use core_model::folder::ModelFolder;

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::run::folder::{CHECKPOINTS, CONFIG, RunDir};
use crate::run::save_results;
use crate::stepper::Stepper;

/// Writes `checkpoints/STAGE-00050/` when the step is one after which the run wants a checkpoint: what
/// was trained so far, and a configuration that ends there.
///
/// # Errors
/// An unwritable folder; a checkpoint is there whole or not at all.
pub(crate) fn write(stepper: &Stepper<'_>, base: &ModelFolder, run: &Path) -> Result<()> {
    let position = stepper.position();
    let every = stepper.config().checkpoint_every;
    if !every.is_some_and(|every| position.step.is_multiple_of(every)) {
        return Ok(());
    }
    let folder = run.join(CHECKPOINTS);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let name = format!("{}-{:05}", stepper.stage_config().name, position.step);
    let place = folder.join(name);
    let scratch = RunDir::scratch_of(&place);
    remove(&scratch)?;
    std::fs::create_dir(&scratch).map_err(Error::io(&scratch))?;
    let config = up_to(stepper.config(), position.stage, position.step);
    save_results(&config, base, stepper.model(), &scratch)?;
    // Its paths are relative to where it will lie.
    let text = config.to_toml(&place)?;
    write_atomically(&scratch.join(CONFIG), text.as_bytes())?;
    // A run that was resumed from before this step writes the same bits again.
    remove(&place)?;
    std::fs::rename(&scratch, &place).map_err(Error::io(&place))
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => std::fs::remove_dir_all(folder).map_err(Error::io(folder)),
        false => Ok(()),
    }
}

/// The run as if it ended after `steps` of a stage.
fn up_to(config: &RunConfig, stage: usize, steps: usize) -> RunConfig {
    let mut config = config.clone();
    config.stages.truncate(stage + 1);
    config.stages[stage].steps = steps;
    config.checkpoint_every = None;
    config
}
