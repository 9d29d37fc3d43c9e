//! References after the autoencoder: the most that an image of the model can score.

use std::path::Path;

use anyhow::Result;
use core_model::alignment::Landmarks;
use core_model::files::{sha256, write_png};
use core_model::image_processor::load_image;
use core_model::photos::PhotoFolder;
use core_train::config::{ConceptConfig, Resize};
use core_train::data::landmarks::{LANDMARKS, LandmarkFile};

use crate::base::Base;
use crate::gallery::{ImageFile, Key, MaskSource};
use crate::metrics::FaceInput;

/// The references of a concept as the model's autoencoder gives them back, as files in `folder`, where
/// those that are there already are kept. A concept without references has none. Where faces are aligned, they
/// are where they were before: the autoencoder moves nothing.
///
/// # Errors
/// A photo or a model that cannot be read, an unwritable folder; a face that is needed and not known.
pub(crate) fn decoded_references(
    base: &Base,
    concept: &ConceptConfig,
    faces: Option<FaceInput>,
    folder: &Path,
) -> Result<Vec<ImageFile>> {
    let Some(references) = &concept.references else {
        return Ok(Vec::new());
    };
    let digests = base.folder().digests()?.iter();
    let autoencoder =
        digests.filter(|(name, _)| name.starts_with("vae/") || name.starts_with("unet/"));
    let autoencoder: Vec<&str> = autoencoder
        .flat_map(|(name, digest)| [name.as_str(), digest])
        .collect();
    let resize = format!("{:?}", concept.resize);
    let landmarks = match faces {
        Some(FaceInput::Aligned) => Some(LandmarkFile::read(&references.join(LANDMARKS))?),
        _ => None,
    };
    let mut files = Vec::new();
    for photo in PhotoFolder::read(references)?.files {
        let digest = sha256(&photo)?;
        let parts = [&autoencoder[..], &[&digest, &resize]].concat();
        let path = folder.join(format!("{}.png", Key::of(&parts).hex()));
        if !path.is_file() {
            let base = base.get()?;
            let photo = concept
                .resize
                .square(&load_image(&photo)?, base.photo_side()?);
            std::fs::create_dir_all(folder)?;
            write_png(&path, &base.decoded(&photo))?;
        }
        let landmarks = match &landmarks {
            Some(file) => Some(moved(
                file.of_photo(&photo)?,
                &photo,
                concept.resize,
                &path,
            )?),
            None => None,
        };
        let mask = Some(MaskSource::Word(concept.super_category.clone()));
        files.push(ImageFile {
            mask,
            landmarks,
            ..ImageFile::from(path)
        });
    }
    Ok(files)
}

/// The landmarks of a photo in the square that was made of it.
fn moved(landmarks: Landmarks, photo: &Path, resize: Resize, square: &Path) -> Result<Landmarks> {
    let (photo, square) = (load_image(photo)?, load_image(square)?);
    Ok(landmarks.map(|point| resize.place(point, photo.dimensions(), square.width())))
}
