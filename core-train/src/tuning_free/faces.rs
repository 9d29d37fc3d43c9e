//! The faces of a run's photos, for encoders that read aligned faces.

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
    match IdAdapterFolder::open(&adapter.path)?.reads_aligned_faces() {
        true => landmarks(config).map(Some),
        false => Ok(None),
    }
}

fn landmarks(config: &RunConfig) -> Result<Vec<Landmarks>> {
    let photos = photo_files(config)?;
    let file = LandmarkFile::read(&config.concept.images.join(LANDMARKS))?;
    photos.iter().map(|photo| file.of_photo(photo)).collect()
}

/// The photos of a run as its encoder reads them, before they are prepared.
///
/// # Errors
/// As [`photo_landmarks`]; a photo that cannot be read.
pub(super) fn load_photos(config: &RunConfig, folder: &IdAdapterFolder) -> Result<Vec<RgbImage>> {
    let files = photo_files(config)?;
    let photos = files.iter().map(|file| load_image(file));
    let photos = photos.collect::<core_model::Result<Vec<_>>>()?;
    if !folder.reads_aligned_faces() {
        return Ok(photos);
    }
    let faces = photos.iter().zip(landmarks(config)?);
    Ok(faces
        .map(|(photo, landmarks)| aligned_face(photo, &landmarks))
        .collect())
}
