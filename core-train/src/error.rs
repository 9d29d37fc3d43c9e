//! What can go wrong with a run.

use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names the file, key or step at fault and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    File(core_model::Error),
    /// A model or image is not what it should be.
    #[error(transparent)]
    Model(core_model::Error),
    /// A TOML file is not what it should be.
    #[error("{path}: {reason}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser says: place, key, valid names.
        reason: String,
    },
    /// A key has a value that cannot be.
    #[error("{path}: `{key}` {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Dotted path of the key.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// An image encoder that cannot be loaded or read with.
    #[error("`{key}`: {reason}")]
    Encoder {
        /// The key that names its folder.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A `--set` that does not fit the file.
    #[error("--set {argument}: {reason}")]
    Override {
        /// The argument as given.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt template that cannot be used.
    #[error("prompt {template:?} {reason}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A run folder that cannot be written to, continued or read.
    #[error("{path}: {reason}")]
    RunFolder {
        /// The folder or a file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A replay file that does not fit the run.
    #[error("{path}: {reason}")]
    Replay {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A loss or weight became NaN or infinite.
    #[error(
        "stage `{stage}`, step {step}: {what} is {value}; everything up to step {kept} is kept in \
         {folder}; lower the learning rate or the weight of that term"
    )]
    NotFinite {
        /// The stage's name.
        stage: String,
        /// The step, from 1.
        step: usize,
        /// The term.
        what: String,
        /// NaN or an infinity.
        value: f32,
        /// The last good step.
        kept: usize,
        /// Where the run's files are.
        folder: PathBuf,
    },
    /// The user stopped the run.
    #[error(
        "stopped after stage `{stage}`, step {step}; the state is in {folder}; continue with the \
         same command and --resume"
    )]
    Interrupted {
        /// The stage's name.
        stage: String,
        /// The last step done.
        step: usize,
        /// Where the run's files are.
        folder: PathBuf,
    },
}

impl From<core_model::Error> for Error {
    fn from(error: core_model::Error) -> Self {
        match error {
            core_model::Error::Io { .. } => Self::File(error),
            other => Self::Model(other),
        }
    }
}

impl Error {
    /// An input or output error about `path`, for `map_err`.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let error = core_model::Error::io(path);
        move |source| Self::File(error(source))
    }

    pub(crate) fn run_folder(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::RunFolder {
            path: path.as_ref().to_path_buf(),
            reason: reason.into(),
        }
    }
}
