//! From what a user calls a model to the folder that holds it: a folder, a one-file checkpoint or
//! a repository of the hub.

mod hub;
mod one_file;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::original_layout::Prediction;
pub use hub::{Content, is_hub_id};

/// The folder of a text-to-image model. A one-file checkpoint is made into one once, in the cache
/// (`XDG_CACHE_HOME`); a repository (`owner/name`) is fetched once.
///
/// # Errors
/// Neither a folder nor a file nor a repository; what
/// [`import`](crate::original_layout::import) and the hub report; `prediction` for anything but a
/// one-file checkpoint.
pub fn model_folder(
    path: &Path,
    variant: Option<&str>,
    prediction: Option<Prediction>,
) -> Result<PathBuf> {
    if path.is_file() {
        return one_file::folder(path, prediction);
    }
    if prediction.is_some() {
        return Err(Error::Invalid(format!(
            "{}: its scheduler_config.json says what it predicts; leave the prediction type out, \
             which is for one-file checkpoints",
            path.display()
        )));
    }
    folder(path, Content::Model, variant)
}

/// The folder of a CLIP, DINO or CLIPSeg network.
///
/// # Errors
/// Neither a folder nor a repository; what the hub reports.
pub fn encoder_folder(path: &Path) -> Result<PathBuf> {
    folder(path, Content::Encoder, None)
}

fn folder(path: &Path, content: Content, variant: Option<&str>) -> Result<PathBuf> {
    match path.to_str() {
        _ if path.exists() => Ok(path.to_path_buf()),
        Some(id) if is_hub_id(path) => hub::snapshot(id, content, variant),
        _ => Err(Error::format(
            path,
            match content {
                Content::Model => {
                    "no such file or folder; a model is a folder with model_index.json as \
                     diffusers writes it, a one-file checkpoint (safetensors or ckpt), or a \
                     repository of the hub as owner/name"
                }
                Content::Encoder => {
                    "no such folder; an encoder is a folder with config.json and weights as \
                     transformers writes it, or a repository of the hub as owner/name"
                }
            },
        )),
    }
}

/// Whether a model is on this machine, so that nothing needs to be fetched for it.
pub fn is_present(path: &Path, content: Content, variant: Option<&str>) -> bool {
    let cached = |id| hub::cached_snapshot(id, content, variant).is_some();
    path.exists() || is_hub_id(path) && path.to_str().is_some_and(cached)
}
