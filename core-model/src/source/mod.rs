//! What a user calls a model, and the way from there to the folder that holds it.

mod hub;
mod one_file;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_kind::FileKind;
use crate::files::expand_home;
use crate::folder::{EncoderFolder, ModelFolder};
use crate::noise_scheduler::PredictionType;
use crate::params::Weights;
use crate::precision::Precision;
use hub::Content;

/// A text-to-image model as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// A folder in the layout of diffusers, a one-file checkpoint, or a repository of the hub
    /// (`owner/name`, or `owner/name@revision` with a branch, tag or commit).
    pub path: PathBuf,
    /// Which weights of several, such as `fp16`; the plain ones when absent.
    pub variant: Option<String>,
    /// What a one-file checkpoint of Stable Diffusion 2.x predicts, which the file does not tell.
    pub prediction_type: Option<PredictionType>,
    /// The number format in which frozen weights are kept in memory.
    pub precision: Precision,
}

/// The plain weights, kept in float32.
impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        Self {
            path: expand_home(&path),
            variant: None,
            prediction_type: None,
            precision: Precision::Float32,
        }
    }
}

impl ModelSource {
    /// Whether the model is on this machine, so that nothing needs to be fetched for it.
    pub fn is_present(&self) -> bool {
        is_present(&self.path, Content::Model, self.variant.as_deref())
    }

    /// Whether the model is on this machine or has the name of a repository, which can be fetched.
    pub fn is_obtainable(&self) -> bool {
        is_obtainable(&self.path)
    }

    /// The folder that holds the model. A one-file checkpoint is made into one once, in the cache
    /// (`XDG_CACHE_HOME`); a repository is fetched once.
    ///
    /// # Errors
    /// Neither a folder nor a file nor a repository; what
    /// [`import`](crate::original_layout::import) and the hub report; a prediction type for
    /// anything but a one-file checkpoint.
    pub fn locate(&self) -> Result<ModelFolder> {
        let path = match (self.path.is_file(), self.prediction_type) {
            (true, prediction_type) => one_file::folder(&self.path, prediction_type)?,
            (false, Some(_)) => {
                return Err(Error::Invalid(format!(
                    "{}: its scheduler_config.json says what it predicts; leave the prediction \
                     type out, which is for one-file checkpoints",
                    self.path.display()
                )));
            }
            (false, None) => folder(&self.path, Content::Model, self.variant.as_deref())?,
        };
        Ok(ModelFolder::new(path).with_weights(Weights {
            variant: self.variant.as_deref(),
            precision: self.precision,
        }))
    }
}

/// A CLIP, DINO or CLIPSeg network as a user names it: a folder in the layout of transformers, or a
/// repository of the hub (`owner/name` or `owner/name@revision`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderSource {
    /// Folder or repository.
    pub path: PathBuf,
}

impl<P: Into<PathBuf>> From<P> for EncoderSource {
    fn from(path: P) -> Self {
        Self {
            path: expand_home(&path.into()),
        }
    }
}

impl EncoderSource {
    /// Whether the network is on this machine, so that nothing needs to be fetched for it.
    pub fn is_present(&self) -> bool {
        is_present(&self.path, Content::Encoder, None)
    }

    /// Whether the network is on this machine or has the name of a repository.
    pub fn is_obtainable(&self) -> bool {
        is_obtainable(&self.path)
    }

    /// The folder that holds the network; a repository is fetched once.
    ///
    /// # Errors
    /// Neither a folder nor a repository; what the hub reports.
    pub fn locate(&self) -> Result<EncoderFolder> {
        Ok(EncoderFolder::new(folder(
            &self.path,
            Content::Encoder,
            None,
        )?))
    }
}

/// Whether a path, seen from the folder `base`, is the name of a repository: it has the form
/// `owner/name` or `owner/name@revision`, and nothing of that name exists there.
pub fn is_repository(base: &Path, path: &Path) -> bool {
    let path = expand_home(path);
    hub::is_id(&path) && !base.join(path).exists()
}

/// The file of a learned concept: a file, a folder that holds one, or a repository of the hub such
/// as `sd-concepts-library/cat-toy`.
///
/// # Errors
/// A folder without such a file or with several; what the hub reports; [`Error::Io`] when nothing
/// of that name is there.
pub fn embedding_file(path: &Path) -> Result<PathBuf> {
    let path = expand_home(path);
    if path.is_dir() {
        return embedding_in(&path);
    }
    match path.to_str() {
        Some(id) if !path.exists() && hub::is_id(&path) => hub::embedding(id),
        _ => Ok(path),
    }
}

fn embedding_in(folder: &Path) -> Result<PathBuf> {
    let named = hub::EMBEDDINGS.map(|name| folder.join(name));
    if let Some(file) = named.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let end = path.extension().unwrap_or_default().to_string_lossy();
        if path.is_file() && ["safetensors", "bin", "pt"].contains(&&*end) {
            files.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(files) => {
            let reason = format!(
                "is a folder with {} files of tensors; name the file of the learned embedding in \
                 it, as {}",
                files.len(),
                hub::EMBEDDINGS.join(" or ")
            );
            Err(Error::format(folder, reason))
        }
    }
}

fn folder(path: &Path, content: Content, variant: Option<&str>) -> Result<PathBuf> {
    match path.to_str() {
        _ if path.is_file() => Err(Error::format(path, is_a_file(path, content))),
        _ if path.exists() => Ok(path.to_path_buf()),
        Some(id) if hub::is_id(path) => hub::snapshot(id, content, variant),
        _ => Err(Error::format(
            path,
            format!("no such file or folder; {}", content.expected()),
        )),
    }
}

/// What is said of a file where a folder is expected.
fn is_a_file(path: &Path, content: Content) -> String {
    let kind = FileKind::of_file(path).map_or("a file".to_string(), |kind| kind.to_string());
    format!("is {kind}; {}", content.expected())
}

fn is_present(path: &Path, content: Content, variant: Option<&str>) -> bool {
    let cached = |id| hub::cached_snapshot(id, content, variant).is_some();
    path.exists() || hub::is_id(path) && path.to_str().is_some_and(cached)
}

fn is_obtainable(path: &Path) -> bool {
    path.exists() || hub::is_id(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_no_repository_whatever_its_form() {
        let base = tempfile::tempdir().unwrap();
        let path = Path::new("owner/name");
        assert!(is_repository(base.path(), path));
        std::fs::create_dir_all(base.path().join(path)).unwrap();
        assert!(!is_repository(base.path(), path));
    }

    #[test]
    fn a_folder_keeps_the_weights_that_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let source = ModelSource {
            variant: Some("fp16".into()),
            precision: Precision::Float16,
            ..ModelSource::from(folder.path().to_path_buf())
        };
        assert!(source.is_present());
        let model = source.locate().unwrap();
        assert_eq!(model.path(), folder.path());
        assert_eq!(model.weights().variant, Some("fp16"));
        assert_eq!(model.weights().precision, Precision::Float16);
    }

    #[test]
    fn a_folder_refuses_a_prediction_type() {
        let folder = tempfile::tempdir().unwrap();
        let source = ModelSource {
            prediction_type: Some(PredictionType::Epsilon),
            ..ModelSource::from(folder.path().to_path_buf())
        };
        let message = source.locate().unwrap_err().to_string();
        assert!(message.contains("scheduler_config.json"), "{message}");
    }

    #[test]
    fn what_is_nowhere_is_refused_with_what_a_model_is() {
        let model = ModelSource::from(PathBuf::from("/absent/model"));
        assert!(!model.is_present() && !model.is_obtainable());
        let message = model.locate().unwrap_err().to_string();
        assert!(message.contains("model_index.json"), "{message}");
        let encoder = EncoderSource::from("/absent/encoder");
        let message = encoder.locate().unwrap_err().to_string();
        assert!(message.contains("transformers"), "{message}");
    }
}
