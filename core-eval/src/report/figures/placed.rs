//! Images in figures.

use std::io::Cursor;

use anyhow::Result;
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};

use crate::base64::base64;

/// How many pixels of an image an SVG file keeps for each pixel that shows it.
const KEPT: u32 = 2;

/// An image in a square of a figure.
pub(super) struct Placed {
    image: RgbImage,
    /// The upper left corner of the square.
    at: (u32, u32),
    /// The side of the square.
    cell: u32,
}

impl Placed {
    /// An image that fills a square as far as its proportions allow.
    pub(super) fn new(image: RgbImage, at: (u32, u32), cell: u32) -> Self {
        Self { image, at, cell }
    }

    /// Width and height in the figure.
    fn size(&self) -> (u32, u32) {
        let (width, height) = self.image.dimensions();
        let side = width.max(height).max(1);
        let scaled = |length: u32| (length * self.cell / side).max(1);
        (scaled(width), scaled(height))
    }

    /// The image as the figure shows it, and where. Whole factors enlarge without smoothing.
    pub(super) fn pixels(&self) -> (RgbImage, (u32, u32)) {
        let (width, height) = self.size();
        let whole = width.is_multiple_of(self.image.width().max(1));
        let filter = match (whole, width < self.image.width()) {
            (true, _) => FilterType::Nearest,
            (false, true) => FilterType::Lanczos3,
            (false, false) => FilterType::CatmullRom,
        };
        let (x, y) = self.corner((width, height));
        (resize(&self.image, width, height, filter), (x, y))
    }

    fn corner(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let (x, y) = self.at;
        (x + (self.cell - width) / 2, y + (self.cell - height) / 2)
    }

    /// The same as an element of an SVG file.
    pub(super) fn element(&self) -> Result<String> {
        let (width, height) = self.size();
        let (x, y) = self.corner((width, height));
        let most = (KEPT * width, KEPT * height);
        let shown = match self.image.width() > most.0 {
            true => resize(&self.image, most.0, most.1, FilterType::Lanczos3),
            false => self.image.clone(),
        };
        let mut bytes = Cursor::new(Vec::new());
        shown.write_to(&mut bytes, ImageFormat::Png)?;
        let style = match shown.width() < width {
            true => " style=\"image-rendering:pixelated\"",
            false => "",
        };
        let data = base64(bytes.get_ref());
        Ok(format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{style} \
             href=\"data:image/png;base64,{data}\"/>\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_keep_their_proportions_and_are_centred_in_their_square() {
        let placed = Placed::new(RgbImage::new(50, 40), (10, 20), 100);
        let (image, at) = placed.pixels();
        assert_eq!(image.dimensions(), (100, 80));
        assert_eq!(at, (10, 30));
        let element = placed.element().expect("an element");
        assert!(
            element.starts_with("<image x=\"10\" y=\"30\" width=\"100\" height=\"80\""),
            "{element}"
        );
    }
}
