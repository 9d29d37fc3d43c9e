//! `rotation`: the augmentation of photos in the public code of CoRe and AttnDreamBooth.

use core_model::image_processor::{Filter, resize_shortest_side, rotate};
use image::RgbImage;
use image::imageops::{crop_imm, flip_horizontal};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Augmentation, Augmented, Frame};

/// The probability of a rotation, and the largest angle to either side in degrees.
const ROTATED: f64 = 0.75;
const DEGREES: f64 = 45.0;

/// The probability of mirroring.
const MIRRORED: f64 = 0.25;

/// Rotates a photo by a random angle on a canvas that grows to hold it, black outside; resizes the
/// shorter side to that of the model, bilinearly; mirrors it or not; cuts out a random square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation;

impl Augmentation for Rotation {
    fn apply(&self, photo: &RgbImage, frame: Frame, rng: &mut ChaCha8Rng) -> Augmented {
        let side = frame.side;
        let angle = match rng.random_bool(ROTATED) {
            true => rng.random_range(-DEGREES..=DEGREES),
            false => 0.0,
        };
        let resized = resize_shortest_side(&rotate(photo, angle), side, Filter::Bilinear);
        let turned = match rng.random_bool(MIRRORED) {
            true => flip_horizontal(&resized),
            false => resized,
        };
        let (width, height) = turned.dimensions();
        let left = rng.random_range(0..=width - side);
        let top = rng.random_range(0..=height - side);
        crop_imm(&turned, left, top, side, side).to_image().into()
    }
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;

    use super::*;

    #[test]
    fn a_photo_becomes_another_square_in_every_draw_and_the_same_from_the_same_numbers() {
        let photo = RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 200]));
        let frame = Frame { side: 16, cell: 8 };
        let draw = |index: u64| Rotation.apply(&photo, frame, &mut rng(3, "augmentation", index));
        let first = draw(0);
        assert_eq!(first.pixels.len(), 3 * 16 * 16);
        assert_eq!(first, draw(0));
        assert_ne!(first, draw(1));
    }
}
