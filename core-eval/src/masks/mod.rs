//! Masks of foregrounds: files, or what the segmenter (CLIPSeg) finds.

mod outline;
mod parts;
mod runs;
mod segmenter;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::image_processor::load_image;
use image::{GrayImage, Luma, RgbImage};

pub use outline::Outline;
pub use parts::large_parts;
pub use runs::{from_runs, to_runs};
pub use segmenter::Segmenter;

/// The least brightness of a mask where the image shows the concept.
const FOREGROUND: u8 = 128;

/// The folder of masks that users keep beside their photos.
pub const MASKS: &str = "masks";

/// The mask of an image: the same name in the folder of masks, ending in `.png`.
pub fn mask_file(masks: &Path, name: &Path) -> PathBuf {
    let relative: PathBuf = name
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    masks.join(relative).with_extension("png")
}

/// Reads the mask of an image: white where it is bright, black elsewhere.
///
/// # Errors
/// An unreadable mask or one of another size.
pub fn read_mask(path: &Path, image: &RgbImage) -> Result<GrayImage> {
    let shape = load_image(path).context("every image needs a mask of the same name")?;
    ensure!(
        shape.dimensions() == image.dimensions(),
        "{}: the mask has {:?} pixels, its image {:?}; they must be of one size",
        path.display(),
        shape.dimensions(),
        image.dimensions()
    );
    let (width, height) = shape.dimensions();
    Ok(GrayImage::from_fn(width, height, |x, y| {
        // Masks are gray: all channels are equal.
        let bright = shape.get_pixel(x, y).0[0] >= FOREGROUND;
        Luma([if bright { 255 } else { 0 }])
    }))
}

/// The message when there is no word for the segmenter.
pub fn no_class_word(folder: &Path) -> String {
    format!(
        "{}: no such file; the segmenter looks for its `super_category`, so write one or give \
         the masks as files",
        folder.join("concept.toml").display()
    )
}

/// An image with black wherever its mask is black.
pub fn masked(image: &RgbImage, mask: &GrayImage) -> RgbImage {
    let mut foreground = image.clone();
    for (pixel, mask) in foreground.pixels_mut().zip(mask.pixels()) {
        if mask.0 == [0] {
            pixel.0 = [0; 3];
        }
    }
    foreground
}

/// Whether a mask has no foreground.
pub fn is_empty(mask: &GrayImage) -> bool {
    mask.as_raw().iter().all(|value| *value == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_found_under_the_name_of_the_image() {
        let mask = |name: &str| mask_file(Path::new("m"), Path::new(name));
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
        let image = RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let mask = read_mask(&path, &image).unwrap();
        assert_eq!(masked(&image, &mask).into_raw(), [1, 2, 3, 0, 0, 0]);
        let larger = RgbImage::new(3, 1);
        let message = read_mask(&path, &larger).unwrap_err().to_string();
        assert!(message.contains("mask.png") && message.contains("one size"));
    }
}
