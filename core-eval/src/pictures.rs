//! Pictures on disk.

use std::path::Path;

use anyhow::Result;
use core_model::image_processor::load_image;
use image::RgbImage;
use rayon::prelude::*;

/// Reads pictures, several at a time, in their order.
///
/// # Errors
/// The first that cannot be read.
pub fn load_images<'a>(files: impl Iterator<Item = &'a Path>) -> Result<Vec<RgbImage>> {
    let files: Vec<&Path> = files.collect();
    let pictures: Vec<_> = files.par_iter().map(|file| load_image(file)).collect();
    let pictures = pictures.into_iter().collect::<core_model::Result<_>>();
    Ok(pictures?)
}

/// Whether a picture is all black.
pub fn is_black(picture: &RgbImage) -> bool {
    picture.as_raw().iter().all(|value| *value == 0)
}
