//! What a killed run needs to go on: `state/` in the run folder.
//!
//! `state/00000150/` is the run after 150 steps of all stages together. It is written under a
//! scratch name and renamed when complete, then its predecessor is removed, so that at every
//! moment there is a whole one.
//!
//! | file | |
//! |---|---|
//! | `model.safetensors` | every tensor that a stage so far may have moved, by its name; the norm that rescaling restores; the loss scale |
//! | `optimizer.safetensors` | what the optimiser keeps in the current stage, by name |
//! | `position.json` | stage and steps, and the number of this format |

use std::path::{Path, PathBuf};

use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::files::{read_to_string, write_atomically};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::loss_scale::LossScale;
use crate::optimizer::Optimizer;
use crate::run::position::Position;
use crate::stepper::Stepper;

/// Counted up when the files of a state change, so that an older one is refused instead of
/// misread.
const FORMAT: u32 = 2;

/// The folder of the states in a run folder.
pub const STATE: &str = "state";

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const POSITION: &str = "position.json";

/// The norm that rescaling restores, beside the tensors of the model.
const NORM: &str = "rescale.recorded_norm";

/// The loss scale of a run in float16, likewise.
const LOSS_SCALE: &str = "loss_scale";

/// The number of steps between two states: what is written grows with what is trained.
pub(crate) fn save_interval(trains_network: bool) -> usize {
    match trains_network {
        true => 100,
        false => 50,
    }
}

#[derive(Serialize, Deserialize)]
struct SavedPosition {
    /// Absent in the first format.
    #[serde(default)]
    format: u32,
    #[serde(flatten)]
    position: Position,
}

/// The state folder of a run.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
}

impl StateFolder {
    /// The one in a run folder.
    pub fn of(run: &Path) -> Self {
        Self {
            folder: run.join(STATE),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder.
    pub fn remove(&self) -> Result<()> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        }
        Ok(())
    }

    /// Saves a run where it is.
    ///
    /// # Errors
    /// [`Error::File`]; an earlier state is then still there.
    pub fn save(&self, stepper: &Stepper<'_>) -> Result<()> {
        let (config, position) = (stepper.config(), stepper.position());
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let scratch = tempfile::Builder::new()
            .prefix(".scratch-")
            .tempdir_in(&self.folder)
            .map_err(Error::io(&self.folder))?;
        let at = |name: &str| scratch.path().join(name);
        let stages = &config.stages[..=position.stage];
        let moved = |name: &str| stages.iter().any(|stage| stage.moves(name));
        let mut tensors = stepper.model().tensors(moved);
        let (optimizer, norm) = stepper.optimizer();
        tensors.extend(norm.map(|norm| TensorToWrite {
            name: NORM.into(),
            shape: vec![1],
            values: vec![norm],
        }));
        tensors.extend(stepper.loss_scale().map(|scale| {
            let values = scale.state();
            TensorToWrite {
                name: LOSS_SCALE.into(),
                shape: vec![values.len()],
                values,
            }
        }));
        save_tensors(&at(MODEL), tensors, Precision::Float32, &[])?;
        save_tensors(&at(OPTIMIZER), optimizer.state(), Precision::Float32, &[])?;
        let saved = SavedPosition {
            format: FORMAT,
            position,
        };
        let text = serde_json::to_string(&saved)
            .map_err(|error| Error::run_folder(&self.folder, error.to_string()))?;
        write_atomically(&at(POSITION), text.as_bytes())?;

        let old = self.saved()?;
        let place = self.folder.join(format!("{:08}", position.total));
        if place.exists() {
            // The same step saved again, as when a stage ends where the interval does.
            return Ok(());
        }
        let scratch = scratch.keep();
        std::fs::rename(&scratch, &place).map_err(Error::io(&place))?;
        for folder in old {
            std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        Ok(())
    }

    /// The complete states, oldest first.
    fn saved(&self) -> Result<Vec<PathBuf>> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Ok(Vec::new());
        };
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io(&self.folder))?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// How far the latest state is; `None` when none was saved yet.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::RunFolder`] when it is damaged or of another version.
    pub fn position(&self) -> Result<Option<Position>> {
        let Some(folder) = self.saved()?.pop() else {
            return Ok(None);
        };
        let path = folder.join(POSITION);
        let saved: SavedPosition = serde_json::from_str(&read_to_string(&path)?)
            .map_err(|error| Error::run_folder(&path, error.to_string()))?;
        if saved.format != FORMAT {
            let reason = "was saved by another version of this program; finish the run with that \
                          version, or remove the run folder and start again";
            return Err(Error::run_folder(&path, reason));
        }
        Ok(Some(saved.position))
    }

    /// Puts a run where the latest state is.
    ///
    /// # Errors
    /// [`Error::Model`] when a file is missing or does not fit.
    pub fn restore(&self, position: Position, stepper: &mut Stepper<'_>) -> Result<()> {
        let folder = self.folder.join(format!("{:08}", position.total));
        let device = stepper.device().clone();
        let stage = stepper.config().stages.get(position.stage).ok_or_else(|| {
            Error::run_folder(
                &folder,
                "names a stage that the run does not have; it is damaged",
            )
        })?;
        let of_model = |key: &str| (![NORM, LOSS_SCALE].contains(&key)).then(|| key.to_string());
        stepper.begin_stage(position.stage);
        let model = Checkpoint::open(&folder.join(MODEL), of_model)?;
        let model = stepper.model().clone().with_tensors(&model, &device)?;
        let others = Checkpoint::open(&folder.join(MODEL), |key| Some(key.to_string()))?;
        let norm = others.read_f32(NORM)?;
        let scale = others.read_f32(LOSS_SCALE)?;
        let file = Checkpoint::open(&folder.join(OPTIMIZER), |key| Some(key.to_string()))?;
        let rule = stage.optimizer.rule();
        let optimizer = Optimizer::restore(rule, position.step as u64, &file, &device)?;
        let norm = norm.and_then(|(norm, _)| norm.first().copied());
        stepper.resume(position, model, optimizer, norm);
        if let Some(scale) = scale.and_then(|(state, _)| LossScale::restored(&state)) {
            stepper.set_loss_scale(scale);
        }
        Ok(())
    }
}
