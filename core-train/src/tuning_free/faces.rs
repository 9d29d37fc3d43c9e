//! The faces of a run's photos, for encoders that read aligned faces.

use std::path::PathBuf;

use core_model::alignment::{Landmarks, aligned_face};
use core_model::id_adapter::IdAdapterFolder;
use core_model::image_processor::load_image;
use image::RgbImage;

use super::photo_files;
use crate::config::RunConfig;
use crate::data::landmarks::{LANDMARKS, LandmarkFile};
use crate::error::Result;

/// Where the faces in the photos of a run are, from the file beside them; `None` where the encoder reads whole
/// photos.
///
/// # Errors
/// As [`photo_files`]; a folder that is none of an encoder; an absent or damaged file, a photo without a row.
pub fn photo_landmarks(config: &RunConfig) -> Result<Option<Vec<Landmarks>>> {
    let Some(adapter) = &config.adapter else {
        return Ok(None);
    };
    let folder = IdAdapterFolder::open(&adapter.path)?;
    landmarks(config, &folder, &photo_files(config)?)
}

/// The same of these photos and this encoder.
///
/// # Errors
/// An absent or damaged file, a photo without a row.
pub(super) fn landmarks(
    config: &RunConfig,
    folder: &IdAdapterFolder,
    photos: &[PathBuf],
) -> Result<Option<Vec<Landmarks>>> {
    if !folder.reads_aligned_faces() {
        return Ok(None);
    }
    let file = LandmarkFile::read(&config.concept.images.join(LANDMARKS))?;
    let faces = photos.iter().map(|photo| file.of_photo(photo));
    faces.collect::<Result<_>>().map(Some)
}

/// The photos of a run as its encoder reads them, before they are prepared.
///
/// # Errors
/// As [`photo_landmarks`]; a photo that cannot be read.
pub(super) fn load_photos(config: &RunConfig, folder: &IdAdapterFolder) -> Result<Vec<RgbImage>> {
    let files = photo_files(config)?;
    let photos = files.iter().map(|file| load_image(file));
    let photos = photos.collect::<core_model::Result<Vec<_>>>()?;
    let Some(landmarks) = landmarks(config, folder, &files)? else {
        return Ok(photos);
    };
    let faces = photos.iter().zip(&landmarks);
    Ok(faces
        .map(|(photo, landmarks)| aligned_face(photo, landmarks))
        .collect())
}
