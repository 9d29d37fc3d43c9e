//! Pictures and masks on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::image_processor::load_image;
use image::{Rgb, RgbImage};

/// What counts as a picture, by the end of its name.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Where a mask is at least this bright, the picture shows the concept.
const FOREGROUND: u8 = 128;

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

/// The mask of a picture: the same name in the folder of masks, ending in `.png`.
pub fn mask_of(masks: &Path, name: &Path) -> PathBuf {
    let relative: PathBuf = name
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    masks.join(relative).with_extension("png")
}

/// A picture with black wherever its mask is dark.
///
/// # Errors
/// An unreadable mask or one of another size.
pub fn masked(picture: &RgbImage, mask: &Path) -> Result<RgbImage> {
    let shape = load_image(mask).context("every picture needs a mask of the same name")?;
    ensure!(
        shape.dimensions() == picture.dimensions(),
        "{}: the mask has {:?} pixels, its picture {:?}; they must be of one size",
        mask.display(),
        shape.dimensions(),
        picture.dimensions()
    );
    let pixel = |x, y| {
        // Masks are gray: all channels are equal.
        if shape.get_pixel(x, y).0[0] >= FOREGROUND {
            *picture.get_pixel(x, y)
        } else {
            Rgb([0; 3])
        }
    };
    let (width, height) = picture.dimensions();
    Ok(RgbImage::from_fn(width, height, pixel))
}

/// Whether a picture is all black.
pub fn is_black(picture: &RgbImage) -> bool {
    picture.as_raw().iter().all(|value| *value == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_found_under_the_name_of_the_picture() {
        let mask = |name: &str| mask_of(Path::new("m"), Path::new(name));
        assert_eq!(mask("a.jpg"), Path::new("m/a.png"));
        assert_eq!(mask("x/00001.png"), Path::new("m/x/00001.png"));
        assert_eq!(mask("../x/1.png"), Path::new("m/x/1.png"));
    }

    #[test]
    fn what_the_mask_leaves_out_is_black() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        image::GrayImage::from_raw(2, 1, vec![255, 10])
            .unwrap()
            .save(&path)
            .unwrap();
        let picture = RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(
            masked(&picture, &path).unwrap().into_raw(),
            [1, 2, 3, 0, 0, 0]
        );
        let larger = RgbImage::new(3, 1);
        let message = masked(&larger, &path).unwrap_err().to_string();
        assert!(message.contains("mask.png") && message.contains("one size"));
    }
}
