//! `id_embeds.safetensors`: what an encoder makes of photos.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::face2diffusion::VECTORS;
use core_model::files::hex;
use core_model::id_adapter::{IdAdapterConfig, IdAdapterFolder};
use core_model::lora::LayerNames;
use core_model::params::to_vec;
use sha2::{Digest, Sha256};

use super::faces::load_photos;
use super::{Opened, photo_files};
use crate::base_model::BaseModel;
use crate::error::{Error, Result};

/// The file in a run folder.
pub const ID_EMBEDS: &str = "id_embeds.safetensors";

/// The key of its tensor.
const KEY: &str = "id_embeds";

/// The key of the encoder's digest in its metadata.
const ENCODER: &str = "adapter_sha256";

/// Rows of numbers: one for each photo (PhotoMaker), or the vectors for a prompt (Face2Diffusion).
pub(super) struct Encoded(Tensor<2>);

impl Encoded {
    /// Encodes the photos of a run.
    ///
    /// # Errors
    /// Too few photos, one that cannot be read or whose face is not known where it has to be; weights that do not
    /// fit.
    pub(super) fn of_photos(opened: &Opened<'_>, base: &BaseModel) -> Result<Self> {
        let folder = &opened.folder;
        let photos = load_photos(opened.config, folder)?;
        let pixels = folder.processor()?.preprocess(&photos, &base.device)?;
        Ok(Self(match folder.config() {
            IdAdapterConfig::PhotoMaker(_) => {
                // A LoRA that does not fit is found before the run folder is made.
                folder.lora(&LayerNames::of_model(&base.pipeline.model))?;
                folder.photomaker(&base.device)?.embed(pixels)
            }
            IdAdapterConfig::Face2Diffusion(_) => {
                folder.face2diffusion(&base.device)?.vectors(pixels)
            }
        }))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// An unwritable folder.
    pub(super) fn save(&self, opened: &Opened<'_>, path: &Path) -> Result<()> {
        let tensor = TensorToWrite {
            name: KEY.into(),
            shape: self.0.dims().to_vec(),
            values: to_vec(self.0.clone()),
        };
        let digest = digest(&opened.folder)?;
        let metadata = [
            ("method", opened.folder.config().name()),
            (
                "super_category",
                opened.config.concept.super_category.as_str(),
            ),
            (ENCODER, digest.as_str()),
        ];
        Ok(save_tensors(
            path,
            vec![tensor],
            Precision::Float32,
            &metadata,
        )?)
    }

    /// Reads the file of a run, which has to be of its encoder: rows [rows, width].
    ///
    /// # Errors
    /// A missing or damaged file, or one of other weights of the encoder.
    pub(super) fn load(opened: &Opened<'_>, path: &Path, device: &Device) -> Result<Tensor<2>> {
        let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
        let rows = match opened.folder.config() {
            IdAdapterConfig::PhotoMaker(_) => photo_files(opened.config)?.len(),
            IdAdapterConfig::Face2Diffusion(_) => VECTORS,
        };
        let width = opened.folder.config().width();
        if file.metadata().get(ENCODER) != Some(&digest(&opened.folder)?) {
            let reason = format!(
                "was made by other weights than those in {}; train the run again",
                opened.folder.path().display()
            );
            return Err(Error::run_folder(path, reason));
        }
        match file.read_f32(KEY)? {
            Some((values, shape))
                if shape == [rows, width] && values.iter().all(|value| value.is_finite()) =>
            {
                Ok(Tensor::from_data(TensorData::new(values, shape), device))
            }
            _ => {
                let reason = format!(
                    "holds no finite `{KEY}` of {rows} rows of {width} values, as the encoder makes for \
                     this run's photos; train the run again"
                );
                Err(Error::run_folder(path, reason))
            }
        }
    }
}

/// The digest of an encoder: of the digests of all its files.
fn digest(folder: &IdAdapterFolder) -> Result<String> {
    let mut hasher = Sha256::new();
    for (name, hash) in folder.digests()? {
        hasher.update(format!("\0{name}\0{hash}"));
    }
    Ok(hex(&hasher.finalize()))
}
