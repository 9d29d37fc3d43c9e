//! The files of a concept's photos: those that images are compared with, and those that are learned from.

use std::path::Path;

use anyhow::{Context, Result};
use core_train::config::ConceptConfig;

use crate::gallery::{ImageFile, Needs, masked_photos, photos};
use crate::landmarks::{with_known_landmarks, with_landmarks};
use crate::metrics::FaceInput;

/// The photos that images of a concept are compared with, with the sources of their masks and the places
/// of their faces where these are needed.
///
/// # Errors
/// The folder is absent or holds no photos; a face that is needed and not known.
pub(crate) fn photo_files(concept: &ConceptConfig, needs: &Needs) -> Result<Vec<ImageFile>> {
    let folder = concept.reference_photos();
    let photos = files(folder, concept, needs).and_then(|photos| {
        match needs.finds_faces(FaceInput::Aligned) {
            true => with_landmarks(photos, folder),
            false => Ok(photos),
        }
    });
    photos.with_context(|| {
        let key = match concept.references {
            Some(_) => "references",
            None => "images",
        };
        format!(
            "concept `{}`: `{key}` in its concept.toml names the photos that images are compared with",
            concept.name
        )
    })
}

/// The photos that are learned from, where images are compared with others. No face has to be found in them:
/// a detector may miss one from the side.
///
/// # Errors
/// The folder is absent or holds no photos.
pub(crate) fn learned_files(
    concept: &ConceptConfig,
    needs: &Needs,
) -> Result<Option<Vec<ImageFile>>> {
    if concept.references.is_none() {
        return Ok(None);
    }
    let photos = files(&concept.images, concept, needs)?;
    Ok(Some(match needs.finds_faces(FaceInput::Aligned) {
        true => with_known_landmarks(photos, &concept.images)?,
        false => photos,
    }))
}

fn files(folder: &Path, concept: &ConceptConfig, needs: &Needs) -> Result<Vec<ImageFile>> {
    match needs.masks() {
        true => masked_photos(folder, None, Some(&concept.super_category)),
        false => photos(folder),
    }
}
