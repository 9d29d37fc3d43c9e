//! What masked protocols compare: photos and images of the first concept, black outside the mask, with the
//! area of each mask.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{GrayImage, RgbImage};

use super::FIGURES;
use super::canvas::Figure;
use super::grid::{Block, Cell, Sheet};
use crate::masks::Outline;
use crate::masks::masked;
use crate::report::font;

/// Masks with a smaller share of an image are called attention to.
const SMALL: f64 = 0.03;

/// An image and its mask.
#[derive(Debug, Clone)]
pub struct Foreground {
    /// The image.
    pub image: RgbImage,
    /// Its mask, white where the concept is.
    pub mask: GrayImage,
}

impl Foreground {
    fn cell(&self) -> Cell {
        let share = Outline::of(&self.mask).share;
        Cell {
            image: Some(masked(&self.image, &self.mask)),
            caption: format!("{:.0} %", 100.0 * share),
            framed: share < SMALL,
        }
    }
}

/// Draws `foregrounds` into the figures of a results folder.
///
/// # Errors
/// An unwritable folder.
pub fn draw_foregrounds(
    results: &Path,
    concept: &str,
    photos: &[Foreground],
    columns: &[(String, Vec<Foreground>)],
    rows: &[String],
) -> Result<Vec<PathBuf>> {
    font::register()?;
    let folder = results.join(FIGURES);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let columns = columns
        .iter()
        .map(|(name, images)| (name.clone(), images.iter().map(Foreground::cell).collect()));
    let shown = photos.iter().map(|photo| masked(&photo.image, &photo.mask));
    let sheet = Sheet {
        blocks: vec![Block {
            title: concept.to_string(),
            photos: shown.collect(),
            columns: columns.collect(),
        }],
        rows: rows.to_vec(),
        cell: 128,
        prompts: 230,
        note: "below each image: the share of it that the mask shows; framed where under 3 %"
            .into(),
    };
    sheet.draw(Figure {
        folder: &folder,
        name: "foregrounds",
        size: (1, 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_masks_are_framed_and_their_share_is_written() {
        let mut mask = GrayImage::new(10, 10);
        let foreground = |mask: &GrayImage| Foreground {
            image: RgbImage::new(10, 10),
            mask: mask.clone(),
        };
        mask.put_pixel(0, 0, image::Luma([255]));
        let small = foreground(&mask).cell();
        assert_eq!((small.caption.as_str(), small.framed), ("1 %", true));
        for x in 0..5 {
            mask.put_pixel(x, 1, image::Luma([255]));
        }
        let larger = foreground(&mask).cell();
        assert_eq!((larger.caption.as_str(), larger.framed), ("6 %", false));
    }
}
