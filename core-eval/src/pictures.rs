//! Pictures on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::image_processor::load_image;
use image::RgbImage;
use rayon::prelude::*;

/// What counts as a picture, by the end of its name.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The pictures in a folder, sorted by name.
///
/// # Errors
/// The folder is absent or holds none.
pub fn picture_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{}: expected a folder of pictures", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let extension = path
            .extension()
            .map(|end| end.to_string_lossy().to_lowercase());
        if path.is_file() && extension.is_some_and(|end| EXTENSIONS.contains(&end.as_str())) {
            files.push(path);
        }
    }
    ensure!(
        !files.is_empty(),
        "{}: holds no pictures; expected png, jpg or webp files",
        folder.display()
    );
    files.sort();
    Ok(files)
}

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
