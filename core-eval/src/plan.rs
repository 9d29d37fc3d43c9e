//! Which runs an experiment needs, and the address of each.

use std::path::PathBuf;

use anyhow::Result;
use core_model::alignment::Landmarks;
use core_model::files::{hex, sha256};
use core_model::folder::ModelFolder;
use core_model::id_adapter::IdAdapterFolder;
use core_model::photos::PhotoFolder;
use core_train::RunConfig;
use core_train::config::ConceptConfig;
use core_train::data::rendered::say_other_photos;
use core_train::tuning_free::{photo_files, photo_landmarks};
use sha2::{Digest, Sha256};

use crate::experiment::Experiment;
use crate::own_encoder::say_own_encoders;
pub use crate::planned_run::PlannedRun;
use crate::shared_stages::share;

/// Increased when the same configuration would train other weights, so that older runs are not reused.
pub(crate) const RUN_FORMAT: u32 = 1;

/// The number of letters of an address.
const ADDRESS_LENGTH: usize = 16;

/// One variant, one concept and one seed.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The index of the variant.
    pub variant: usize,
    /// The index of the concept.
    pub concept: usize,
    /// The seed.
    pub seed: u64,
    /// What is trained; `None` for the base model.
    pub run: Option<PlannedRun>,
}

/// All cells, ordered by variant, then concept, then seed.
///
/// # Errors
/// Unreadable photos or model files, a recipe that does not fit a concept.
pub fn plan(experiment: &Experiment, model: &ModelFolder) -> Result<Vec<Cell>> {
    say_own_encoders(experiment)?;
    let mut photos = Vec::new();
    for concept in &experiment.concepts {
        photos.push(photo_hashes(concept)?);
    }
    let mut cells = Vec::new();
    for (variant_index, variant) in experiment.variants.iter().enumerate() {
        for (concept_index, concept) in experiment.concepts.iter().enumerate() {
            for seed in &experiment.seeds {
                let config = experiment.run_config(variant, concept, *seed)?;
                let run = match config {
                    Some(config) => Some(PlannedRun {
                        address: address(&config, model, &photos[concept_index])?,
                        config,
                        earlier: None,
                    }),
                    None => None,
                };
                cells.push(Cell {
                    variant: variant_index,
                    concept: concept_index,
                    seed: *seed,
                    run,
                });
            }
        }
    }
    for (concept, photos) in photos.iter().enumerate() {
        let of_concept = cells.iter_mut().filter(|cell| cell.concept == concept);
        let runs = of_concept.filter_map(|cell| cell.run.as_mut());
        share(runs, |config| address(config, model, photos))?;
    }
    Ok(cells)
}

fn photo_hashes(concept: &ConceptConfig) -> Result<Vec<String>> {
    let photos = PhotoFolder::read(&concept.images)?;
    photos.say_skipped();
    say_other_photos(&concept.images);
    let files = photos.files.iter();
    Ok(files
        .map(|file| sha256(file))
        .collect::<core_model::Result<_>>()?)
}

/// What a tuning-free encoder adds to the address of a run.
struct EncoderHashes {
    /// The number of photos that count.
    photos: usize,
    /// Where the faces in these photos are, where that counts.
    landmarks: Option<Vec<Landmarks>>,
    /// The digests of the encoder's files.
    files: Vec<String>,
}

/// The digests of a run's encoder, whose place is forgotten.
fn encoder_hashes(config: &mut RunConfig) -> Result<EncoderHashes> {
    let mut hashes = EncoderHashes {
        photos: usize::MAX,
        landmarks: photo_landmarks(config)?,
        files: Vec::new(),
    };
    if config.adapter.is_some() {
        hashes.photos = photo_files(config)?.len();
    }
    if let Some(adapter) = &mut config.adapter {
        let path = std::mem::take(&mut adapter.path);
        hashes.files = IdAdapterFolder::open(&path)?
            .digests()?
            .into_values()
            .collect();
    }
    Ok(hashes)
}

/// The address depends on the recipe, the concept, the photos and, where an encoder reads them, the places of the
/// faces in these, the files of the model and of a tuning-free encoder, the seed and the format of runs; not on
/// where any of them lies.
fn address(config: &RunConfig, model: &ModelFolder, photos: &[String]) -> Result<String> {
    let mut config = config.clone();
    let adapter = encoder_hashes(&mut config)?;
    config.model.path = PathBuf::new();
    // Which of several cards of a machine computes does not matter.
    if let Some((kind, _)) = config.device.split_once(':') {
        config.device = kind.to_string();
    }
    // The scheduler's file in the folder says it.
    config.model.prediction_type = None;
    config.concept.images = PathBuf::new();
    config.concept.references = None;
    let validation = config.validation.iter_mut();
    for folder in validation.flat_map(|validation| validation.encoders.values_mut()) {
        *folder = PathBuf::new();
    }
    let mut hasher = Sha256::new();
    hasher.update(RUN_FORMAT.to_le_bytes());
    hasher.update(toml::to_string(&config)?);
    for (name, hash) in model.digests()? {
        hasher.update(format!("\0{name}\0{hash}"));
    }
    for hash in photos.iter().take(adapter.photos) {
        hasher.update(format!("\0{hash}"));
    }
    if let Some(landmarks) = adapter.landmarks {
        hasher.update(format!("\0{landmarks:?}"));
    }
    for hash in adapter.files {
        hasher.update(format!("\0{hash}"));
    }
    let mut address = hex(&hasher.finalize());
    address.truncate(ADDRESS_LENGTH);
    Ok(address)
}
