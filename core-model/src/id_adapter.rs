//! Folders of tuning-free encoders: `adapter.json` beside weights, published or trained here.
//!
//! | kind | files |
//! |---|---|
//! | `photomaker` | `photomaker.safetensors`, or `photomaker-v1.safetensors` or `photomaker-v1.bin` as published |
//! | `face2diffusion` | `msid.safetensors`, `msid.pt` as published or `msid/model.safetensors`; `mapping.safetensors`, or `mapping.pt` as published |
//!
//! `adapter.json` names the kind and the sizes that differ from the published ones. With
//! `preprocessor_config.json` photos are prepared as that says. Without it, the published encoder of
//! Face2Diffusion reads faces that were aligned by landmarks, and all others whole photos.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, save_tensors};
use crate::config::{read_config, write_json};
use crate::error::{Error, Result};
use crate::face2diffusion::{Face2Diffusion, Face2DiffusionConfig, Mapping, canonical_msid_key};
use crate::files::sha256;
use crate::image_processor::ImageProcessor;
use crate::iresnet::FACE_SIDE;
use crate::lora::{LayerNames, Lora, LoraForm};
use crate::network::Network;
use crate::personalized::PersonalizedModel;
use crate::photomaker::{PhotoMaker, PhotoMakerConfig};
use crate::precision::Precision;

/// The file that names kind and sizes.
pub const ADAPTER: &str = "adapter.json";

const PHOTOMAKER: [&str; 3] = [
    "photomaker.safetensors",
    "photomaker-v1.safetensors",
    "photomaker-v1.bin",
];
const MSID: [&str; 3] = ["msid.safetensors", "msid.pt", "msid/model.safetensors"];
const MAPPING: [&str; 2] = ["mapping.safetensors", "mapping.pt"];
const PROCESSOR: &str = "preprocessor_config.json";

/// Where PhotoMaker's file holds its LoRA.
const LORA: &str = "lora_weights.";

/// Which encoder, and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum IdAdapterConfig {
    /// PhotoMaker.
    PhotoMaker(PhotoMakerConfig),
    /// Face2Diffusion.
    Face2Diffusion(Face2DiffusionConfig),
}

impl IdAdapterConfig {
    /// The name of the method.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PhotoMaker(_) => "PhotoMaker",
            Self::Face2Diffusion(_) => "Face2Diffusion",
        }
    }

    /// Channels of what it makes: those of a text encoder's states or inputs.
    pub fn width(&self) -> usize {
        match self {
            Self::PhotoMaker(config) => config.width(),
            Self::Face2Diffusion(config) => config.text_width,
        }
    }

    /// Whether its encoder was trained on aligned faces: with the norm heads and the image size of the
    /// published Face2Diffusion.
    fn is_of_aligned_faces(&self) -> bool {
        match self {
            Self::PhotoMaker(_) => false,
            Self::Face2Diffusion(config) => {
                config.msid.norm_heads && config.msid.image_size == FACE_SIDE
            }
        }
    }

    /// Side of the images that its encoder takes, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::PhotoMaker(config) => config.vision.image_size(),
            Self::Face2Diffusion(config) => config.msid.image_size,
        }
    }
}

impl fmt::Display for IdAdapterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, width, side) = (self.name(), self.width(), self.image_size());
        write!(
            f,
            "tuning-free encoder of {name}, for text encoders of width {width} and photos of {side} x {side} \
             pixels"
        )
    }
}

/// The folder of a tuning-free encoder.
#[derive(Debug, Clone)]
pub struct IdAdapterFolder {
    path: PathBuf,
    config: IdAdapterConfig,
}

impl IdAdapterFolder {
    /// Reads `adapter.json`.
    ///
    /// # Errors
    /// [`Error::Format`] for a folder without it, or with unknown kinds and keys.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(ADAPTER);
        if !file.is_file() {
            let reason = "holds no adapter.json, so it is not the folder of a tuning-free encoder; for \
                          published files write one beside them: {\"kind\": \"photomaker\"} or \
                          {\"kind\": \"face2diffusion\"}";
            return Err(Error::format(path, reason));
        }
        Ok(Self {
            path: path.to_path_buf(),
            config: read_config(&file)?,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kind and sizes.
    pub fn config(&self) -> &IdAdapterConfig {
        &self.config
    }

    /// The SHA-256 of every file that is used, by its path in the folder.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be read; weights that are missing.
    pub fn digests(&self) -> Result<BTreeMap<String, String>> {
        let mut files = vec![self.path.join(ADAPTER)];
        files.extend(self.weights()?);
        let processor = self.path.join(PROCESSOR);
        files.extend(processor.is_file().then_some(processor));
        let digest = |file: &PathBuf| {
            let name = file.strip_prefix(&self.path).unwrap_or(file);
            let name = name.to_string_lossy().replace('\\', "/");
            Ok((name, sha256(file)?))
        };
        files.iter().map(digest).collect()
    }

    /// The files that hold its tensors.
    ///
    /// # Errors
    /// [`Error::Format`] naming those that were looked for.
    pub fn weights(&self) -> Result<Vec<PathBuf>> {
        Ok(match &self.config {
            IdAdapterConfig::PhotoMaker(_) => vec![self.find(&PHOTOMAKER)?],
            IdAdapterConfig::Face2Diffusion(_) => vec![self.find(&MSID)?, self.find(&MAPPING)?],
        })
    }

    fn find(&self, names: &[&str]) -> Result<PathBuf> {
        let mut files = names.iter().map(|name| self.path.join(name));
        files.find(|file| file.is_file()).ok_or_else(|| {
            let reason = format!("has no weights; expected one of {}", names.join(", "));
            Error::format(&self.path, reason)
        })
    }

    /// Whether photos have to be aligned by landmarks before they are prepared.
    pub fn reads_aligned_faces(&self) -> bool {
        self.config.is_of_aligned_faces() && !self.path.join(PROCESSOR).is_file()
    }

    /// How photos are prepared.
    ///
    /// # Errors
    /// A damaged file, or one that makes images of another size.
    pub fn processor(&self) -> Result<ImageProcessor> {
        let side = self.config.image_size();
        let processor = match (&self.config, self.path.join(PROCESSOR).is_file()) {
            (_, true) => ImageProcessor::from_dir(&self.path)?,
            (IdAdapterConfig::PhotoMaker(_), false) => ImageProcessor::clip(side as u32),
            (IdAdapterConfig::Face2Diffusion(_), false) => ImageProcessor::vit(side as u32),
        };
        processor.check_side(side)?;
        Ok(processor)
    }

    /// Fails unless the encoder was trained for this model.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the widths of both.
    pub fn check_base(&self, model: &PersonalizedModel) -> Result<()> {
        let width = model.text_encoder().config().hidden_size;
        let folder = self.path.display();
        let reason = match &self.config {
            IdAdapterConfig::PhotoMaker(config) if config.projections.len() > 1 => format!(
                "{folder}: this PhotoMaker has projections for {} text encoders ({:?}), as SDXL has; \
                 PhotoMaker v1 needs SDXL to generate, which is not implemented, so its files can be \
                 inspected only; take an adapter with one projection of {width}, as `core-train pretrain` \
                 trains it",
                config.projections.len(),
                config.projections
            ),
            IdAdapterConfig::PhotoMaker(config) if config.width() != width => format!(
                "{folder}: this PhotoMaker makes vectors of {} values, but text states of the model have \
                 {width}; it was trained for another base model",
                config.width()
            ),
            IdAdapterConfig::Face2Diffusion(config) if config.text_width != width => format!(
                "{folder}: this Face2Diffusion makes vectors of {} values, but the model's text encoder \
                 takes {width}; it was trained for another base model",
                config.text_width
            ),
            _ => return Ok(()),
        };
        Err(Error::Invalid(reason))
    }

    /// PhotoMaker's encoder.
    ///
    /// # Errors
    /// Another kind; weights that are missing, damaged or do not fit `adapter.json`.
    pub fn photomaker(&self, device: &Device) -> Result<PhotoMaker> {
        let IdAdapterConfig::PhotoMaker(config) = &self.config else {
            return Err(self.other_kind("photomaker"));
        };
        let path = self.find(&PHOTOMAKER)?;
        let file = Checkpoint::open(&path, PhotoMaker::canonical_key)?;
        file.say_skipped_objects();
        PhotoMaker::of_file(config, file, device)
    }

    /// PhotoMaker's LoRA.
    ///
    /// # Errors
    /// A key of no layer of the model, a file without a LoRA.
    pub fn lora(&self, names: &LayerNames) -> Result<Lora> {
        let rule = |key: &str| key.strip_prefix(LORA).map(String::from);
        Lora::of_file(&Checkpoint::open(&self.find(&PHOTOMAKER)?, rule)?, names)
    }

    /// Face2Diffusion's networks.
    ///
    /// # Errors
    /// As [`photomaker`](Self::photomaker).
    pub fn face2diffusion(&self, device: &Device) -> Result<Face2Diffusion> {
        let IdAdapterConfig::Face2Diffusion(config) = &self.config else {
            return Err(self.other_kind("face2diffusion"));
        };
        let msid = Checkpoint::open(&self.find(&MSID)?, canonical_msid_key)?;
        let mapping = Checkpoint::open(&self.find(&MAPPING)?, |key| Some(key.to_string()))?;
        Face2Diffusion::of_files(config, msid, mapping, device)
    }

    fn other_kind(&self, kind: &str) -> Error {
        let reason = format!("is the folder of {}, expected {kind}", self.config.name());
        Error::format(&self.path, reason)
    }
}

/// Writes the folder of a PhotoMaker with its LoRA, in float16.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn save_photomaker(folder: &Path, photomaker: &PhotoMaker, lora: &Lora) -> Result<()> {
    let config = IdAdapterConfig::PhotoMaker(photomaker.config().clone());
    write_json(&folder.join(ADAPTER), &config)?;
    ImageProcessor::vit(config.image_size() as u32).save(folder)?;
    let mut tensors = photomaker.tensors();
    for mut tensor in lora.tensors(LoraForm::Diffusers)? {
        tensor.name = format!("{LORA}{}", tensor.name);
        tensors.push(tensor);
    }
    save_tensors(
        &folder.join(PHOTOMAKER[0]),
        tensors,
        Precision::Float16,
        &[],
    )
}

/// Writes `adapter.json` and the mapping of a Face2Diffusion, in float16; its encoder lies in the folder
/// already.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn save_face2diffusion(
    folder: &Path,
    config: &Face2DiffusionConfig,
    mapping: &Mapping,
) -> Result<()> {
    let adapter = IdAdapterConfig::Face2Diffusion(config.clone());
    write_json(&folder.join(ADAPTER), &adapter)?;
    let mut tensors = Vec::new();
    mapping
        .names()
        .read(mapping, |param| tensors.push(param.into()));
    save_tensors(&folder.join(MAPPING[0]), tensors, Precision::Float16, &[])
}
