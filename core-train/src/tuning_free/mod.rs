//! Tuning-free encoders: what stands for a concept is made from its photos by an encoder that was trained
//! once, on many people.
//!
//! | module | |
//! |---|---|
//! | `encoded` | `id_embeds.safetensors`, what an encoder makes of photos |
//! | `faces` | photos aligned by their landmarks |
//! | `person` | the base model with it |

mod encoded;
mod faces;
mod person;

use std::path::PathBuf;

use core_model::face2diffusion::VECTORS;
use core_model::id_adapter::{IdAdapterConfig, IdAdapterFolder};
use core_model::photomaker::ClassWord;
use core_model::photos::PhotoFolder;
use core_model::tokenizer::Tokenizer;

pub use encoded::ID_EMBEDS;
pub use faces::photo_landmarks;
pub(crate) use person::with_person;

use crate::base_model::BaseModel;
use crate::config::{RunConfig, TuningFree};
use crate::error::{Error, Result};
use crate::phrase::{CLASS, TOKEN};
use crate::run::environment;
use crate::run::folder::{ENVIRONMENT, RunDir};
use crate::trainer::RunOptions;
use encoded::Encoded;

/// A run's encoder, read and checked.
struct Opened<'a> {
    config: &'a RunConfig,
    adapter: &'a TuningFree,
    folder: IdAdapterFolder,
}

impl<'a> Opened<'a> {
    /// Opens the encoder that a run names.
    ///
    /// # Errors
    /// A folder that is none of an encoder, keys that do not fit its kind, another base model.
    fn new(config: &'a RunConfig, adapter: &'a TuningFree, base: &BaseModel) -> Result<Self> {
        let folder = IdAdapterFolder::open(&adapter.path)?;
        check_keys(config, adapter, folder.config())?;
        folder.check_base(&base.pipeline.model)?;
        Ok(Self {
            config,
            adapter,
            folder,
        })
    }
}

/// Refuses keys of a run that do not fit the kind of its encoder.
fn check_keys(config: &RunConfig, adapter: &TuningFree, kind: &IdAdapterConfig) -> Result<()> {
    let refuse = |key: &str, reason: String| {
        Err(Error::Config {
            path: adapter.path.clone(),
            key: key.into(),
            reason,
        })
    };
    let phrase = config.phrase.as_deref().unwrap_or(TOKEN);
    let vectors = config.concept.num_vectors();
    match kind {
        IdAdapterConfig::PhotoMaker(_) if phrase.contains(TOKEN) => refuse(
            "phrase",
            format!(
                "is {phrase:?}, but PhotoMaker's photos stand for the class word and need no token; write \
                 phrase = \"{CLASS}\""
            ),
        ),
        IdAdapterConfig::PhotoMaker(_) if vectors != 1 => refuse(
            "num_vectors",
            format!("is {vectors}, but PhotoMaker learns no vectors; leave it out"),
        ),
        IdAdapterConfig::Face2Diffusion(_) if !phrase.contains(TOKEN) => refuse(
            "phrase",
            format!(
                "is {phrase:?}, but Face2Diffusion's vectors stand for a token; write phrase = \"{TOKEN}\""
            ),
        ),
        IdAdapterConfig::Face2Diffusion(_) if vectors != VECTORS => refuse(
            "num_vectors",
            format!(
                "is {vectors}, but Face2Diffusion makes {VECTORS} vectors; write num_vectors = {VECTORS}"
            ),
        ),
        IdAdapterConfig::Face2Diffusion(_) if adapter.start_merge.is_some() => refuse(
            "adapter.start_merge",
            "has no effect: only PhotoMaker begins with the text alone; leave it out".into(),
        ),
        _ => Ok(()),
    }
}

/// The photos that a run's encoder reads, first to last.
///
/// # Errors
/// A folder without photos, or with fewer than `adapter.photos` asks for.
pub fn photo_files(config: &RunConfig) -> Result<Vec<PathBuf>> {
    let images = &config.concept.images;
    let mut files = PhotoFolder::read(images)?.files;
    let Some(wanted) = config.adapter.as_ref().and_then(|adapter| adapter.photos) else {
        return Ok(files);
    };
    if files.len() < wanted {
        return Err(Error::Config {
            path: images.clone(),
            key: "adapter.photos".into(),
            reason: format!(
                "is {wanted}, but there are {} photos; ask for as many at the most, or leave the key out \
                 to use all",
                files.len()
            ),
        });
    }
    files.truncate(wanted);
    Ok(files)
}

/// The class word of a run whose photos stand for it, and for how many; `None` where a token stands for the
/// concept.
///
/// # Errors
/// As [`photo_files`].
pub fn class_word(config: &RunConfig, tokenizer: &Tokenizer) -> Result<Option<ClassWord>> {
    let phrase = config.phrase.as_deref().unwrap_or(TOKEN);
    if phrase.contains(TOKEN) {
        return Ok(None);
    }
    let photos = photo_files(config)?.len();
    let word = &config.concept.super_category;
    Ok(Some(ClassWord::new(word, photos, tokenizer)))
}

/// Encodes the concept's photos and writes the complete run folder.
///
/// # Errors
/// Everything that can be wrong with encoder, model, photos and folder; the folder is there whole or not at
/// all.
pub(crate) fn run_on(
    base: &BaseModel,
    config: &RunConfig,
    adapter: &TuningFree,
    options: &RunOptions<'_>,
) -> Result<PathBuf> {
    if let Some(replay) = options.replay {
        return Err(Error::Replay {
            path: replay.to_path_buf(),
            reason: "has no effect: with [adapter] nothing is random; leave it out".into(),
        });
    }
    let opened = Opened::new(config, adapter, base)?;
    let encoded = Encoded::of_photos(&opened, base)?;
    let (dir, _) = RunDir::open(options.output, options.scratch, config, options.unfinished)?;
    let folder = dir.folder();
    let written = environment::write(&folder.join(ENVIRONMENT), config, &base.folder)
        .and_then(|()| encoded.save(&opened, &folder.join(ID_EMBEDS)));
    match written {
        Ok(()) => dir.complete(false),
        Err(error) => {
            dir.abandon();
            Err(error)
        }
    }
}

/// What a run says of its encoder, for readers.
///
/// # Errors
/// A folder that is none of an encoder, too few photos, faces that are not known and have to be.
pub(crate) fn describe(config: &RunConfig, adapter: &TuningFree) -> Result<String> {
    let folder = IdAdapterFolder::open(&adapter.path)?;
    let photos = photo_files(config)?;
    let aligned = match faces::landmarks(config, &folder, &photos)? {
        Some(_) => ", aligned by landmarks.csv",
        None => "",
    };
    let photos = photos.len();
    Ok(format!(
        "adapter: {} of {photos} photos{aligned}; nothing is trained\n",
        folder.config().name()
    ))
}

/// Why a run cannot become a file of another program; `None` for runs with stages.
///
/// # Errors
/// A folder that is none of an encoder.
pub fn why_no_export(config: &RunConfig) -> Result<Option<String>> {
    let Some(adapter) = &config.adapter else {
        return Ok(None);
    };
    let folder = IdAdapterFolder::open(&adapter.path)?;
    Ok(Some(match folder.config() {
        IdAdapterConfig::PhotoMaker(_) => {
            "uses PhotoMaker, whose photos are fused with every prompt, and only after the first steps of \
             sampling; a folder of diffusers cannot hold that"
        }
        IdAdapterConfig::Face2Diffusion(_) => {
            "uses Face2Diffusion, whose vectors get no position embedding in a prompt; no file of an \
             embedding can say that"
        }
    }
    .into()))
}
