//! Making a photograph square, for training.

use image::RgbImage;

use super::resample::{Filter, resize, resize_part};

/// The centre of an image: the shorter side becomes `side` pixels, bicubic, and what the longer
/// one has more is cut off on both ends.
///
/// # Panics
/// When the image or `side` has no pixel.
pub fn crop(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = shortest_side(image.dimensions(), side);
    let kept = |size: u32| {
        let start = (size - side) / 2;
        start..start + side
    };
    resize_part(
        image,
        (width, height),
        kept(width),
        kept(height),
        Filter::Bicubic,
    )
}

/// The whole image with `side` pixels on its shorter side, in its proportions.
///
/// # Panics
/// When the image or `side` has no pixel.
pub fn resize_shortest_side(image: &RgbImage, side: u32, filter: Filter) -> RgbImage {
    let (width, height) = shortest_side(image.dimensions(), side);
    resize(image, width, height, filter)
}

/// The whole image, bicubic, stretched to `side` by `side` pixels.
///
/// # Panics
/// When the image or `side` has no pixel.
pub fn squash(image: &RgbImage, side: u32) -> RgbImage {
    resize(image, side, side, Filter::Bicubic)
}

/// Width and height after the shorter side became `side`; the longer one is rounded down.
pub fn shortest_side((width, height): (u32, u32), side: u32) -> (u32, u32) {
    let (short, long) = (u64::from(width.min(height)), u64::from(width.max(height)));
    let long = (u64::from(side) * long / short.max(1)).min(u64::from(u32::MAX)) as u32;
    if width <= height {
        (side, long)
    } else {
        (long, side)
    }
}

/// The values of an image from -1 to 1, channel by channel, as the autoencoder takes them:
/// [3, height, width].
pub fn channels_first(image: &RgbImage) -> Vec<f32> {
    let channel = |channel: usize| {
        let values = image.pixels().map(move |pixel| pixel.0[channel]);
        values.map(|value| f32::from(value) / 127.5 - 1.0)
    };
    (0..3).flat_map(channel).collect()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn cropping_keeps_the_middle_and_squashing_the_edges() {
        let image = RgbImage::from_fn(30, 10, |x, _| Rgb([if x < 10 { 255 } else { 0 }; 3]));
        assert!(crop(&image, 10).pixels().all(|pixel| pixel.0 == [0; 3]));
        let squashed = squash(&image, 10);
        assert_eq!(squashed.get_pixel(0, 5).0, [255; 3]);
        assert_eq!(squashed.get_pixel(9, 5).0, [0; 3]);
    }

    #[test]
    fn a_photograph_of_one_column_takes_little_memory() {
        // Resized as a whole it would have 512 by 5,120,000 pixels.
        let image = RgbImage::from_fn(1, 10_000, |_, y| Rgb([(y % 251) as u8; 3]));
        assert_eq!(crop(&image, 512).dimensions(), (512, 512));
    }

    #[test]
    fn the_longer_side_is_rounded_down() {
        assert_eq!(shortest_side((3, 7), 10), (10, 23));
        assert_eq!(shortest_side((7, 3), 10), (23, 10));
    }
}
