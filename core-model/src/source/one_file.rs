//! One-file checkpoints as model folders in the cache.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use burn::tensor::Device;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::files::{cache_folder, hex};
use crate::noise_scheduler::PredictionType;
use crate::original_layout::import;
use crate::precision::Precision;

/// Counted up when the same file would become another folder, so that older ones are not used.
const IMPORT_FORMAT: u32 = 2;

/// The folder of a one-file checkpoint, made when it is not there or the file has changed.
///
/// # Errors
/// What [`import`] reports; no place for a cache.
pub(super) fn folder(file: &Path, prediction: Option<PredictionType>) -> Result<PathBuf> {
    let folder = place(file, prediction)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let precision = precision(file)?;
    match import(file, &folder, prediction, precision, &Device::flex()) {
        // Another process may have made it meanwhile.
        Err(_) if folder.is_dir() => Ok(folder),
        Err(error) => Err(error),
        Ok(()) => Ok(folder),
    }
}

/// Where the folder of this state of the file is.
fn place(file: &Path, prediction: Option<PredictionType>) -> Result<PathBuf> {
    let path = file.canonicalize().map_err(Error::io(file))?;
    let found = path.metadata().map_err(Error::io(file))?;
    let changed = found.modified().map_err(Error::io(file))?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(format!(
        "\n{} {} {} {IMPORT_FORMAT}",
        found.len(),
        changed.as_nanos(),
        prediction.map_or("default", PredictionType::name)
    ));
    let digest = hex(&hasher.finalize());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(cache_folder()?.join(format!("core/checkpoints/{stem}-{}", &digest[..16])))
}

/// What holds every number of the file.
fn precision(file: &Path) -> Result<Precision> {
    let whole = Checkpoint::open(file, |key| Some(key.to_string()))?;
    let mut dtypes = whole.keys().filter_map(|key| whole.info(key));
    Ok(
        match dtypes.any(|info| !matches!(info.dtype, Dtype::F16 | Dtype::I64)) {
            true => Precision::Float32,
            false => Precision::Float16,
        },
    )
}
