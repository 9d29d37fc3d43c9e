//! Models and encoders as they lie on disk. Only what is on disk can be loaded or hashed; what a
//! user names is a [source](crate::source).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::files::sha256;
use crate::params::Weights;
use crate::precision::Precision;

/// The parts of a text-to-image model, each a folder.
const PARTS: [&str; 5] = ["scheduler", "text_encoder", "tokenizer", "unet", "vae"];

/// The SHA-256 of files by their path in the folder, computed once for all clones.
#[derive(Debug, Clone, Default)]
struct Digests(Arc<OnceLock<BTreeMap<String, String>>>);

impl Digests {
    /// The digests of `files`, which are read the first time only.
    fn of(
        &self,
        folder: &Path,
        files: impl FnOnce() -> Result<Vec<PathBuf>>,
    ) -> Result<&BTreeMap<String, String>> {
        if let Some(known) = self.0.get() {
            return Ok(known);
        }
        let mut digests = BTreeMap::new();
        for path in files()? {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy();
            digests.insert(name.replace('\\', "/"), sha256(&path)?);
        }
        Ok(self.0.get_or_init(|| digests))
    }
}

/// A text-to-image model in the layout of diffusers, and which of its weights are used.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    variant: Option<String>,
    precision: Precision,
    digests: Digests,
}

impl ModelFolder {
    /// The plain weights of a folder, kept in float32.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            variant: None,
            precision: Precision::Float32,
            digests: Digests::default(),
        }
    }

    /// The same folder with these of its weights.
    #[must_use]
    pub fn with_weights(self, weights: Weights<'_>) -> Self {
        Self {
            variant: weights.variant.map(str::to_string),
            precision: weights.precision,
            ..self
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which weights of several, and how they are kept in memory.
    pub fn weights(&self) -> Weights<'_> {
        Weights {
            variant: self.variant.as_deref(),
            precision: self.precision,
        }
    }

    /// The SHA-256 of every file of the model by its path in the folder, computed on the first
    /// call. Images and texts about the model, at the top of the folder, are no part of it.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be read.
    pub fn digests(&self) -> Result<&BTreeMap<String, String>> {
        self.digests.of(&self.path, || {
            let mut files = vec![self.path.join("model_index.json")];
            for part in PARTS {
                files.extend(files_in(&self.path.join(part))?);
            }
            Ok(files)
        })
    }
}

/// A CLIP, DINO or CLIPSeg network with its preprocessing, in the layout of transformers.
#[derive(Debug, Clone)]
pub struct EncoderFolder {
    path: PathBuf,
    digests: Digests,
}

impl EncoderFolder {
    /// The network in a folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            digests: Digests::default(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of every file in the folder by its name, computed on the first call.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be read.
    pub fn digests(&self) -> Result<&BTreeMap<String, String>> {
        self.digests.of(&self.path, || files_in(&self.path))
    }
}

/// The files directly in a folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn model() -> (tempfile::TempDir, ModelFolder) {
        let folder = tempfile::tempdir().unwrap();
        for part in PARTS {
            std::fs::create_dir(folder.path().join(part)).unwrap();
        }
        for file in ["model_index.json", "unet/config.json", "sample.png"] {
            std::fs::write(folder.path().join(file), "abc").unwrap();
        }
        let model = ModelFolder::new(folder.path());
        (folder, model)
    }

    #[test]
    fn the_digests_cover_the_parts_and_the_index_and_no_image_beside_them() {
        let (_folder, model) = model();
        let digests = model.digests().unwrap();
        let names: Vec<&str> = digests.keys().map(String::as_str).collect();
        assert_eq!(names, ["model_index.json", "unet/config.json"]);
        assert_eq!(
            digests["unet/config.json"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn clones_share_the_digests_and_read_no_file_again() {
        let (folder, model) = model();
        let clone = model.clone();
        let first = model.digests().unwrap().clone();
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(clone.digests().unwrap(), &first);
    }

    #[test]
    fn a_part_that_is_not_there_is_named() {
        let (folder, model) = model();
        std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
        let message = model.digests().unwrap_err().to_string();
        assert!(message.contains("vae"), "{message}");
    }
}
