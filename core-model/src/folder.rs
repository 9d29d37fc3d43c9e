//! Models and encoders as they lie on disk. Only what is on disk can be loaded or hashed; what a
//! user names is a [source](crate::source).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::checkpoint::{shard_names, weight_files};
use crate::error::{Error, Result};
use crate::files::{hex, sha256};
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

    /// The SHA-256 of the weights of a part, as `unet`, whose plain file would be `name`: that of the file, or of
    /// the digests of all shards in the order of their names.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be read, [`Error::Format`] when there are no weights.
    pub fn weights_digest(&self, part: &str, name: &str) -> Result<String> {
        let folder = self.path.join(part);
        let mut candidates = weight_files(name, self.variant.as_deref())?.into_iter();
        let Some(file) = candidates.find(|file| folder.join(file).is_file()) else {
            return Err(Error::format(&folder, format!("has no weights, as {name}")));
        };
        let of_file = |file: &str| match self.digests.0.get() {
            Some(known) if known.contains_key(&format!("{part}/{file}")) => {
                Ok(known[&format!("{part}/{file}")].clone())
            }
            _ => sha256(&folder.join(file)),
        };
        if !file.ends_with(".json") {
            return of_file(&file);
        }
        let mut hasher = Sha256::new();
        for shard in shard_names(&folder.join(file))? {
            hasher.update(of_file(&shard)?);
        }
        Ok(hex(&hasher.finalize()))
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
    fn the_digest_of_weights_is_that_of_their_file_or_of_all_shards() {
        let (folder, model) = model();
        let unet = folder.path().join("unet");
        let weights = |name: &str| model.weights_digest("unet", &format!("{name}.safetensors"));
        let message = weights("w").unwrap_err().to_string();
        assert!(message.contains("has no weights"), "{message}");
        std::fs::write(unet.join("w.safetensors"), "abc").unwrap();
        let abc = sha256(&unet.join("config.json")).unwrap();
        assert_eq!(weights("w").unwrap(), abc);
        assert_eq!(model.digests().unwrap()["unet/w.safetensors"], abc);
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        std::fs::write(unet.join("x.safetensors.index.json"), index).unwrap();
        for shard in ["1.safetensors", "2.safetensors"] {
            std::fs::write(unet.join(shard), "abc").unwrap();
        }
        std::fs::write(folder.path().join("both"), abc.repeat(2)).unwrap();
        assert_eq!(
            weights("x").unwrap(),
            sha256(&folder.path().join("both")).unwrap()
        );
    }

    #[test]
    fn a_part_that_is_not_there_is_named() {
        let (folder, model) = model();
        std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
        let message = model.digests().unwrap_err().to_string();
        assert!(message.contains("vae"), "{message}");
    }
}
