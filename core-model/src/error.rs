//! What can go wrong with model files, tokenizers, images and devices.

use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names the file, key or value at fault and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A file was read, but its content is not what its name promises.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected and what to do next.
        reason: String,
    },
    /// A tensor of the network is not in the checkpoint.
    #[error(
        "{path}: tensor `{key}` with shape {expected:?} is missing; \
         the file does not fit the config.json beside it"
    )]
    MissingTensor {
        /// The checkpoint file or folder.
        path: PathBuf,
        /// The key that was looked for.
        key: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },
    /// A tensor of the checkpoint belongs to no part of the network.
    #[error(
        "{path}: tensor `{key}` with shape {found:?} belongs to no part of the network{more}; \
         the file does not fit the config.json beside it"
    )]
    UnexpectedTensor {
        /// The checkpoint file or folder.
        path: PathBuf,
        /// The first key that nothing asked for.
        key: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// " (and N more)" or nothing.
        more: String,
    },
    /// A tensor has another shape than the network.
    #[error(
        "{path}: tensor `{key}` has shape {found:?} but the network needs {expected:?}; \
         the file does not fit the config.json beside it"
    )]
    Shape {
        /// The checkpoint file or folder.
        path: PathBuf,
        /// The key.
        key: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },
    /// A configuration value that this project cannot honour.
    #[error("{path}: `{key}` is {value}, expected {expected}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What is supported.
        expected: String,
    },
    /// A prompt, placeholder or option value that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A repository of a hub that cannot be had.
    #[error("hub repository `{id}`: {reason}")]
    Hub {
        /// `owner/name`.
        id: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A device that does not exist here.
    #[error("device `{name}`: {reason}")]
    Device {
        /// The name as the user wrote it.
        name: String,
        /// Why it cannot be used and what can.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |cause| Self::Io { path, cause }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl AsRef<Path>, reason: impl std::fmt::Display) -> Self {
        Self::Format {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }
}
