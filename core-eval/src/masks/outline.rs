//! A mask in a few characters: how much of an image it shows, and roughly where.

use image::GrayImage;

/// Squares across and down in the outline of a mask.
const OUTLINE: u32 = 32;

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
