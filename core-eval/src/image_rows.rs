//! `images.csv`: what is known of single images beside their scores.

use std::path::Path;

use anyhow::Result;
use image::GrayImage;
use serde::{Deserialize, Serialize};

use crate::metrics::Metric;
use crate::protocol::Protocol;
use crate::report::read_rows;
use crate::scoring::ScoredImages;

/// Squares across and down in the outline of a mask.
const OUTLINE: u32 = 32;

/// A row of `images.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRow {
    /// The file, relative to the results.
    pub image: String,
    /// The highest similarity to a photo of the concept by the instance metric.
    pub closest: Option<f64>,
    /// The index of that photo.
    pub photo: Option<usize>,
    /// The share of the image that its mask shows; under masked protocols only.
    pub foreground: Option<f64>,
    /// The mask in 32 by 32 squares, row by row, four squares to a hexadecimal digit.
    pub mask: String,
}

impl ImageRow {
    /// Reads the rows of a results folder and names images with it; an absent file has none.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read(folder: &Path, suffix: &str) -> Result<Vec<Self>> {
        let mut rows: Vec<Self> = read_rows(&folder.join(format!("images{suffix}.csv")))?;
        for row in &mut rows {
            row.image = folder.join(&row.image).to_string_lossy().replace('\\', "/");
        }
        Ok(rows)
    }
}

/// The rows of all images under a protocol.
pub fn image_rows(images: &ScoredImages<'_>, protocol: &Protocol) -> Vec<ImageRow> {
    let instances = Metric::of_instances(&images.metrics);
    let row = |image: &crate::scoring::ScoredImage| {
        let photos = &images.photos[images.cells[image.cell].concept];
        let closest = instances.and_then(|metric| {
            let feature = image.features.of(metric, protocol)?;
            let photos = photos.iter().enumerate();
            let similar = photos.filter_map(|(index, photo)| {
                let photo = photo.of(metric, protocol)?;
                Some((index, metric.definition().similarity(feature, photo)))
            });
            similar.max_by(|a, b| a.1.total_cmp(&b.1))
        });
        let outline = image.features.outline.as_ref();
        let outline = outline.filter(|_| protocol.masked);
        ImageRow {
            image: image.image.name(),
            closest: closest.map(|(_, value)| value),
            photo: closest.map(|(index, _)| index),
            foreground: outline.map(|outline| outline.share),
            mask: outline.map_or(String::new(), |outline| outline.squares.clone()),
        }
    };
    images.images.iter().map(row).collect()
}

/// How much of an image its mask shows, and roughly where.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// The share of white pixels.
    pub share: f64,
    /// 32 by 32 squares, as in the column `mask`.
    pub squares: String,
}

impl Outline {
    /// The outline of a mask. A square is set when the pixel in its middle is.
    pub fn of(mask: &GrayImage) -> Self {
        let white = mask.as_raw().iter().filter(|value| **value > 0).count();
        let (width, height) = mask.dimensions();
        let is_set = |square: u32| {
            let middle = |at: u32, length: u32| (2 * at + 1) * length / (2 * OUTLINE);
            let (x, y) = (square % OUTLINE, square / OUTLINE);
            let pixel = mask.get_pixel_checked(middle(x, width), middle(y, height));
            u32::from(pixel.is_some_and(|pixel| pixel.0[0] > 0))
        };
        let digit = |first: u32| {
            let bits = (0..4).fold(0, |bits, at| bits << 1 | is_set(first + at));
            char::from_digit(bits, 16).unwrap_or('0')
        };
        Self {
            share: white as f64 / mask.as_raw().len().max(1) as f64,
            squares: (0..OUTLINE * OUTLINE).step_by(4).map(digit).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};

    use super::Outline;

    #[test]
    fn an_outline_shows_where_a_mask_is_white() {
        let right_half = GrayImage::from_fn(64, 64, |x, _| Luma([(x / 32 * 255) as u8]));
        let outline = Outline::of(&right_half);
        assert_eq!((outline.share, outline.squares.len()), (0.5, 256));
        assert_eq!(outline.squares, "0000ffff".repeat(32));
        let none = Outline::of(&GrayImage::new(3, 5));
        assert_eq!((none.share, none.squares), (0.0, "0".repeat(256)));
    }
}
