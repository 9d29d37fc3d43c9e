//! Images on disk, and where their masks come from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::alignment::Landmarks;
use core_model::image_processor::load_image;
use core_model::photos::PhotoFolder;
use image::RgbImage;
use rayon::prelude::*;

use crate::masks::{MASKS, mask_file, no_class_word};

/// An image to be scored, or a photo.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// The source of its mask; `None` where foregrounds are not compared.
    pub mask: Option<MaskSource>,
    /// Where its face is; `None` where none was found, or none is looked for.
    pub landmarks: Option<Landmarks>,
}

impl From<PathBuf> for ImageFile {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            mask: None,
            landmarks: None,
        }
    }
}

/// The source of a mask.
#[derive(Debug, Clone)]
pub enum MaskSource {
    /// A file, white where the concept is.
    File(PathBuf),
    /// The segmenter, with the word that it looks for.
    Word(String),
}

/// The photos of a folder without masks, in the order of their names.
///
/// # Errors
/// The folder is absent or holds no photos.
pub fn photos(folder: &Path) -> Result<Vec<ImageFile>> {
    let files = PhotoFolder::read(folder)?.files.into_iter();
    Ok(files.map(ImageFile::from).collect())
}

/// The same with the sources of their masks: the files in `given`, or else those in `masks/` beside the
/// photos, or else the segmenter, which looks for `word`.
///
/// # Errors
/// As [`photos`]; no source of masks.
pub fn masked_photos(
    folder: &Path,
    given: Option<&Path>,
    word: Option<&str>,
) -> Result<Vec<ImageFile>> {
    let beside = folder.join(MASKS);
    let masks = given.or(beside.is_dir().then_some(beside.as_path()));
    let with_mask = |photo: ImageFile| -> Result<ImageFile> {
        let name = Path::new(photo.path.file_name().unwrap_or_default());
        let mask = match masks {
            Some(masks) => MaskSource::File(mask_file(masks, name)),
            None => MaskSource::Word(word.with_context(|| no_class_word(folder))?.to_string()),
        };
        let mask = Some(mask);
        Ok(ImageFile { mask, ..photo })
    };
    photos(folder)?.into_iter().map(with_mask).collect()
}

/// Reads images, several at a time, in their order.
///
/// # Errors
/// The first that cannot be read.
pub fn load_images<'a>(files: impl Iterator<Item = &'a Path>) -> Result<Vec<RgbImage>> {
    let files: Vec<&Path> = files.collect();
    let images: Vec<_> = files.par_iter().map(|file| load_image(file)).collect();
    let images = images.into_iter().collect::<core_model::Result<_>>();
    Ok(images?)
}

/// Whether an image is all black.
pub(super) fn is_black(image: &RgbImage) -> bool {
    image.as_raw().iter().all(|value| *value == 0)
}
