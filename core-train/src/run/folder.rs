//! The files of a run folder, and how it is created.
//!
//! | file | |
//! |---|---|
//! | `config.toml` | resolved; `core-train train` runs it again as it is |
//! | `metrics.csv` | one row per optimiser step |
//! | `metrics.jsonl`, `tensorboard/` | the same for other programs, when `report_to` names them |
//! | `learned_embeds.safetensors` | the concept, one key, the placeholder token; none with a rare token |
//! | `id_embeds.safetensors` | what a tuning-free encoder made of the photos, in the place of all results and of `metrics.csv` |
//! | `unet/` | diffusers layout, when a stage trained all of it; [`changed_weights.safetensors`](core_model::changed_weights) when some |
//! | `text_encoder/` | transformers layout, when a stage trained it |
//! | `removed.json` | what was [removed](super::removed) to make room, with its digests |
//! | `validation/` | validation images, when asked for |
//! | `checkpoints/` | a run folder for every `checkpoint_every` steps: the run as if it had ended there |
//! | `environment.json` | versions, device, instruction set, GPU, revision of the program, SHA-256 of every model file |
//! | `state/` | for `--resume`; removed when the run is complete |
//!
//! A run goes to `NAME.partial` beside `NAME` and is renamed when complete, so a folder without
//! that ending is a complete run. Where several processes may train one run, each has a scratch folder of
//! its own ([`scratch`](super::scratch)), and the first that is complete gives the run its name.

use std::path::{Path, PathBuf};

use core_model::files::{read_to_string, write_atomically};

use crate::config::RunConfig;
use crate::error::{Error, Result};
pub use crate::logging::METRICS;
use crate::run::position::Position;
use crate::run::state::StateFolder;

/// The resolved configuration.
pub const CONFIG: &str = "config.toml";
/// The run after some of its steps.
pub const CHECKPOINTS: &str = "checkpoints";
/// Validation images.
pub const VALIDATION: &str = "validation";
/// Versions, device, model files.
pub const ENVIRONMENT: &str = "environment.json";

/// A run folder that is being filled.
#[derive(Debug)]
pub struct RunDir {
    output: PathBuf,
    scratch: PathBuf,
    /// Whether everything in the folder is from this process.
    is_new: bool,
    /// Whether other processes may train the same run in scratch folders of their own.
    is_shared: bool,
}

/// What is to be done about an unfinished run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Refuse, and say so.
    Refuse,
    /// Continue it, when it has the same configuration; else refuse.
    Resume,
}

impl RunDir {
    /// Where the run `output` lies until it is complete.
    pub fn scratch_of(output: &Path) -> PathBuf {
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        output.with_file_name(name)
    }

    /// Makes the folder and writes `config.toml`, or finds an unfinished run with the same
    /// configuration; then also how far that is. `scratch` names a folder for this process alone; what lies
    /// there is the same run, perhaps begun on another machine.
    ///
    /// # Errors
    /// [`Error::RunFolder`] when a complete run, or an unfinished one that may not be continued,
    /// is in the way; [`Error::File`] when the folder cannot be written to.
    pub fn open(
        output: &Path,
        scratch: Option<&Path>,
        config: &RunConfig,
        unfinished: Unfinished,
    ) -> Result<(Self, Option<Position>)> {
        if output.exists() {
            let reason = "is there already; choose another --output or remove it";
            return Err(Error::run_folder(output, reason));
        }
        let is_shared = scratch.is_some();
        let scratch = scratch.map_or_else(|| Self::scratch_of(output), Path::to_path_buf);
        let path = scratch.join(CONFIG);
        let dir = Self {
            output: output.to_path_buf(),
            is_new: is_absent_or_empty(&scratch),
            scratch,
            is_shared,
        };
        let was_begun = path.exists();
        // Device and paths may be those of another machine.
        if !was_begun || is_shared {
            std::fs::create_dir_all(&dir.scratch).map_err(Error::io(&dir.scratch))?;
            let text = config.to_toml(&dir.scratch);
            let written = text.and_then(|text| Ok(write_atomically(&path, text.as_bytes())?));
            if let Err(error) = written {
                dir.abandon();
                return Err(error);
            }
        }
        if !was_begun {
            return Ok((dir, None));
        }
        if unfinished == Unfinished::Refuse {
            let reason = "is an unfinished run; continue it with --resume or remove it";
            return Err(Error::run_folder(&dir.scratch, reason));
        }
        dir.check_same(config, &path)?;
        let position = StateFolder::of(&dir.scratch).position()?;
        Ok((dir, position))
    }

    fn check_same(&self, config: &RunConfig, path: &Path) -> Result<()> {
        let (old, new) = (read_to_string(path)?, config.to_toml(&self.scratch)?);
        let lines = old.lines().zip(new.lines());
        let Some((old, new)) = lines.into_iter().find(|(old, new)| old != new) else {
            if old.len() == new.len() {
                return Ok(());
            }
            let reason = "has stages or keys that differ from those asked for; an unfinished run \
                          can only be continued as it was begun";
            return Err(Error::run_folder(path, reason));
        };
        let reason = format!(
            "says `{old}` where `{new}` is asked for; an unfinished run can only be continued as \
             it was begun; remove {} to start again",
            self.scratch.display()
        );
        Err(Error::run_folder(path, reason))
    }

    /// Where the files go.
    pub fn folder(&self) -> &Path {
        &self.scratch
    }

    /// Removes the folder of a run that could not begin, unless it was there before.
    pub fn abandon(self) {
        if self.is_new {
            // The error that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.scratch);
        }
    }

    /// Gives the folder its name and removes the state, in this order: a state that a kill leaves
    /// half removed must not lie in an unfinished run, which would be continued from it. With `keep_state`
    /// the state stays. Where another process was first, this process removes its scratch folder.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder; [`Error::RunFolder`] when another process has taken the scratch
    /// folder over.
    pub fn complete(self, keep_state: bool) -> Result<PathBuf> {
        // A folder that was taken over and made again by a late write holds a part of the run only.
        if self.is_shared && !self.scratch.join(CONFIG).exists() && !self.output.exists() {
            let reason = "was taken over by another process, which took this one for dead";
            return Err(Error::run_folder(&self.scratch, reason));
        }
        match std::fs::rename(&self.scratch, &self.output) {
            Ok(()) if keep_state => {}
            Ok(()) => StateFolder::of(&self.output).remove()?,
            Err(_) if self.is_shared && self.output.exists() => {
                // It may be gone already: the first process removes what others have left.
                let _ = std::fs::remove_dir_all(&self.scratch);
            }
            Err(error) => return Err(Error::io(&self.output)(error)),
        }
        Ok(self.output)
    }
}

fn is_absent_or_empty(folder: &Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A run with a saved state, and the file that says how far it is.
    fn unfinished(folder: &Path) -> (RunDir, PathBuf) {
        let output = folder.join("run");
        let scratch = RunDir::scratch_of(&output);
        let state = scratch.join("state/00000018");
        std::fs::create_dir_all(&state).unwrap();
        let position = state.join("position.json");
        std::fs::write(&position, "{}").unwrap();
        let dir = RunDir {
            output,
            scratch,
            is_new: false,
            is_shared: false,
        };
        (dir, position)
    }

    #[test]
    fn the_state_is_whole_as_long_as_the_run_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, position) = unfinished(folder.path());
        // Something in the way makes giving the name fail, as a kill would stop it.
        std::fs::create_dir(&dir.output).unwrap();
        std::fs::write(dir.output.join("other"), "").unwrap();
        assert!(dir.complete(false).is_err());
        assert!(position.exists());
    }

    #[test]
    fn a_run_that_cannot_begin_leaves_no_folder_but_one_that_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("run");
        let scratch = RunDir::scratch_of(&output);
        let dir = |is_new| RunDir {
            output: output.clone(),
            scratch: scratch.clone(),
            is_new,
            is_shared: false,
        };
        std::fs::create_dir(&scratch).unwrap();
        assert!(is_absent_or_empty(&scratch));
        std::fs::write(scratch.join(CONFIG), "seed = 1").unwrap();
        assert!(!is_absent_or_empty(&scratch));
        dir(false).abandon();
        assert!(scratch.join(CONFIG).exists());
        dir(true).abandon();
        assert!(!scratch.exists() && is_absent_or_empty(&scratch));
    }

    #[test]
    fn a_complete_run_has_its_name_and_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, _) = unfinished(folder.path());
        let output = dir.complete(false).unwrap();
        assert!(output.exists() && !output.join("state").exists());
        assert!(!RunDir::scratch_of(&output).exists());
    }

    #[test]
    fn the_second_of_two_processes_removes_its_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("run");
        let dir = |name: &str| {
            let scratch = folder.path().join(name);
            std::fs::create_dir(&scratch).unwrap();
            std::fs::write(scratch.join(CONFIG), name).unwrap();
            RunDir {
                output: output.clone(),
                scratch,
                is_new: true,
                is_shared: true,
            }
        };
        let (first, second) = (dir("run.partial-a"), dir("run.partial-b"));
        let taken_over = dir("run.partial-c");
        std::fs::remove_file(taken_over.scratch.join(CONFIG)).unwrap();
        let error = taken_over.complete(false).unwrap_err().to_string();
        assert!(error.contains("taken over"), "{error}");
        first.complete(false).unwrap();
        second.complete(false).unwrap();
        assert_eq!(
            read_to_string(&output.join(CONFIG)).unwrap(),
            "run.partial-a"
        );
        assert!(!folder.path().join("run.partial-b").exists());
    }
}
