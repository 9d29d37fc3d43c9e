//! The base model of an experiment, loaded once for all its workers.

use std::sync::{Mutex, OnceLock};

use anyhow::{Result, anyhow};
use core_model::folder::ModelFolder;
use core_train::BaseModel;

/// A model on disk, loaded when it is first needed. All workers share its tensors.
#[derive(Debug)]
pub struct Base {
    folder: ModelFolder,
    device: String,
    loaded: OnceLock<BaseModel>,
    loading: Mutex<()>,
}

impl Base {
    /// A model that is to be loaded on a device.
    pub fn new(folder: ModelFolder, device: &str) -> Self {
        Self {
            folder,
            device: device.to_string(),
            loaded: OnceLock::new(),
            loading: Mutex::default(),
        }
    }

    /// Its folder, with the digests of its files.
    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// The networks, loaded on the first call.
    ///
    /// # Errors
    /// A model that cannot be read.
    pub fn get(&self) -> Result<&BaseModel> {
        let lock = self.loading.lock();
        let _loading = lock.map_err(|_| anyhow!("a worker panicked while it loaded the model"))?;
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = BaseModel::open(self.folder.clone(), &self.device)?;
        Ok(self.loaded.get_or_init(|| loaded))
    }
}
