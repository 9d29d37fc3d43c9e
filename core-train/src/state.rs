//! What a killed run needs to go on: `state/` in the run folder.
//!
//! `state/00000150/` is the run after 150 steps of all stages together. It is written under a
//! scratch name and renamed when complete, then its predecessor is removed, so that at every
//! moment there is a whole one.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::checkpoint::{Checkpoint, Precision, TensorToWrite, save_module, save_tensors};
use core_model::files::{read_to_string, write_atomically};
use core_model::params::{ParamBuilder, to_vec};
use core_model::unet::UNet2DConditionModel;
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;

const EMBEDDING: &str = "embedding";
const NORM: &str = "recorded_norm";

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the stage, from 0.
    pub stage: usize,
    /// Steps done in it.
    pub step: usize,
    /// Steps done in all stages.
    pub total: usize,
}

/// What training moves.
#[derive(Debug)]
pub struct Weights {
    /// The concept's input embeddings, [num_vectors, d], off the tape.
    pub rows: Tensor<2>,
    /// The norm that rescaling restores, once it was recorded.
    pub recorded_norm: Option<f32>,
    /// The U-Net.
    pub unet: UNet2DConditionModel,
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
            folder: run.join("state"),
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`Error::Model`] naming the folder.
    pub fn remove(&self) -> Result<()> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        }
        Ok(())
    }

    /// Saves a run; `trained_unet` says whether any step so far moved the U-Net.
    ///
    /// # Errors
    /// [`Error::Model`]; an earlier state is then still there.
    pub fn save(
        &self,
        position: Position,
        weights: &Weights,
        optimizer: &Optimizer,
        trained_unet: bool,
    ) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let scratch = tempfile::Builder::new()
            .prefix(".scratch-")
            .tempdir_in(&self.folder)
            .map_err(Error::io(&self.folder))?;
        let at = |name: &str| scratch.path().join(name);
        let mut tensors = vec![TensorToWrite {
            name: EMBEDDING.into(),
            shape: weights.rows.dims().to_vec(),
            values: to_vec(weights.rows.clone()),
        }];
        tensors.extend(weights.recorded_norm.map(|norm| TensorToWrite {
            name: NORM.into(),
            shape: vec![1],
            values: vec![norm],
        }));
        save_tensors(&at("embedding.safetensors"), tensors, Precision::Full, &[])?;
        save_tensors(
            &at("optimizer.safetensors"),
            optimizer.state(),
            Precision::Full,
            &[],
        )?;
        if trained_unet {
            let unet = &weights.unet;
            save_module(&at("unet.safetensors"), unet, unet.names(), Precision::Full)?;
        }
        let text = serde_json::to_string(&position)
            .map_err(|error| Error::run_folder(&self.folder, error.to_string()))?;
        write_atomically(&at("position.json"), text.as_bytes())?;

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
    /// [`Error::Model`], or [`Error::RunFolder`] when it is damaged.
    pub fn position(&self) -> Result<Option<Position>> {
        let Some(folder) = self.saved()?.pop() else {
            return Ok(None);
        };
        let path = folder.join("position.json");
        let text = read_to_string(&path)?;
        let position = serde_json::from_str(&text);
        position
            .map(Some)
            .map_err(|error| Error::run_folder(&path, error.to_string()))
    }

    /// Puts the latest state into `weights` and returns the optimiser of its stage.
    ///
    /// # Errors
    /// [`Error::Model`] when a file is missing or does not fit.
    pub fn restore(
        &self,
        config: &RunConfig,
        position: Position,
        weights: &mut Weights,
        device: &Device,
    ) -> Result<Optimizer> {
        let folder = self.folder.join(format!("{:08}", position.total));
        let open = |name: &str| Checkpoint::open(&folder.join(name), |key| Some(key.to_string()));
        let damaged = |what: &str| Error::run_folder(&folder, format!("{what} is damaged"));

        let file = open("embedding.safetensors")?;
        let shape = weights.rows.dims();
        match file.read_f32(EMBEDDING)? {
            Some((values, found)) if found == shape => {
                weights.rows = Tensor::from_data(TensorData::new(values, shape), device);
            }
            _ => return Err(damaged("the saved embedding")),
        }
        weights.recorded_norm = file
            .read_f32(NORM)?
            .and_then(|(norm, _)| norm.first().copied());
        if folder.join("unet.safetensors").exists() {
            let params = ParamBuilder::from_checkpoint(open("unet.safetensors")?, device);
            weights.unet = UNet2DConditionModel::new(weights.unet.config(), &params)?;
        }
        let stage = config
            .stages
            .get(position.stage)
            .ok_or_else(|| damaged("the position"))?;
        let file = open("optimizer.safetensors")?;
        let adamw = stage.optimizer.adamw();
        Ok(Optimizer::restore(
            adamw,
            position.step as u64,
            &file,
            device,
        )?)
    }
}
