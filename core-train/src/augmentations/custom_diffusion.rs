//! `custom_diffusion`: the augmentation of Custom Diffusion (Kumari et al., CVPR 2023), as diffusers'
//! `train_custom_diffusion.py` has it: photos at random scales, a mask for the loss, and words about
//! the scale in front of the prompt.

use std::ops::Range;

use core_model::image_processor::{Filter, channels_first, resize};
use image::RgbImage;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Augmentation, Augmented, Frame};

/// The probability that a photo is made no larger than the frame.
const SHRUNK: f64 = 0.66;

/// Sides of the frame below which a photo is said to be small.
const SMALL: f64 = 0.6;

/// What is said of photos that are small, and of those that are larger than the frame.
const WORDS: [&str; 4] = ["a far away ", "very small ", "zoomed in ", "close up "];

/// Squashes a photo to a random square. One that is smaller than the frame is put anywhere on mid-grey,
/// and the mask holds the cells of the latents inside of it, without those at its edge; of a larger
/// one a random square is cut out, and the mask holds everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomDiffusion;

impl Augmentation for CustomDiffusion {
    fn apply(&self, photo: &RgbImage, frame: Frame, rng: &mut ChaCha8Rng) -> Augmented {
        let side = frame.side;
        let times = |factor: f64| (factor * f64::from(side)) as u32;
        let scale = match rng.random_bool(SHRUNK) {
            true => rng.random_range((side / 3).max(1)..=side),
            false => rng.random_range(times(1.2)..times(1.4).max(times(1.2) + 1)),
        };
        let mut anywhere = || rng.random_range(0..=side.abs_diff(scale));
        let place = Placement {
            scale,
            top: anywhere(),
            left: anywhere(),
        };
        let photo = resize(photo, scale, scale, Filter::Bilinear);
        Augmented {
            pixels: place.on_canvas(&channels_first(&photo), side),
            mask: Some(place.mask(frame)),
            words: place.words(side).choose(rng).copied(),
        }
    }

    fn words(&self) -> &'static [&'static str] {
        &WORDS
    }

    fn has_mask(&self) -> bool {
        true
    }
}

/// Where a square photo lies on a frame, or the frame on a photo that is larger.
#[derive(Debug, Clone, Copy)]
struct Placement {
    /// Side of the photo in pixels.
    scale: u32,
    top: u32,
    left: u32,
}

impl Placement {
    /// The photo's pixels [3, scale, scale] as [3, side, side]; where it does not reach, 0 (mid-grey).
    fn on_canvas(&self, photo: &[f32], side: u32) -> Vec<f32> {
        let (scale, side) = (self.scale as usize, side as usize);
        let (top, left) = (self.top as usize, self.left as usize);
        let shown = scale.min(side);
        let mut canvas = vec![0.0; 3 * side * side];
        // What is cut off lies above and left of the frame, or what is left free of the photo.
        let (from, to) = match scale > side {
            true => ((top, left), (0, 0)),
            false => ((0, 0), (top, left)),
        };
        for channel in 0..3 {
            for row in 0..shown {
                let source = (channel * scale + from.0 + row) * scale + from.1;
                let target = (channel * side + to.0 + row) * side + to.1;
                canvas[target..target + shown].copy_from_slice(&photo[source..source + shown]);
            }
        }
        canvas
    }

    /// Rows and columns of latent cells that the mask holds.
    fn cells(&self, frame: Frame) -> [Range<usize>; 2] {
        let count = frame.cells();
        if self.scale > frame.side {
            return [0..count, 0..count];
        }
        let (scale, cell) = (self.scale as usize, frame.cell as usize);
        let starts = [self.top as usize, self.left as usize];
        let inside =
            starts.map(|start| start / cell + 1..((start + scale) / cell).saturating_sub(1));
        match inside.iter().any(Range::is_empty) {
            // With latents this small nothing may be taken away at the edges.
            true => starts.map(|start| start / cell..(start + scale).div_ceil(cell).min(count)),
            false => inside,
        }
    }

    /// 1 in the cells that the mask holds, 0 elsewhere, row by row.
    fn mask(&self, frame: Frame) -> Vec<f32> {
        let count = frame.cells();
        let [rows, columns] = self.cells(frame);
        let holds =
            |cell: usize| rows.contains(&(cell / count)) && columns.contains(&(cell % count));
        let value = |cell: usize| f32::from(u8::from(holds(cell)));
        (0..count * count).map(value).collect()
    }

    /// What may be said about the scale; nothing of one near the frame's.
    fn words(&self, side: u32) -> &'static [&'static str] {
        if f64::from(self.scale) < SMALL * f64::from(side) {
            &WORDS[..2]
        } else if self.scale > side {
            &WORDS[2..]
        } else {
            &[]
        }
    }
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;

    use super::*;

    const FRAME: Frame = Frame { side: 128, cell: 8 };

    #[test]
    fn masks_are_those_of_diffusers() {
        for (scale, top, left, rows, columns, ones) in [
            (82, 9, 40, 2..=9, 6..=13, 64.0),
            (118, 7, 10, 1..=13, 2..=14, 169.0),
            (48, 45, 12, 6..=9, 2..=5, 16.0),
            (127, 1, 0, 1..=14, 1..=13, 182.0),
            (172, 33, 39, 0..=15, 0..=15, 256.0),
        ] {
            let place = Placement { scale, top, left };
            let cells = place.cells(FRAME);
            assert_eq!(cells, [rows, columns].map(|c| *c.start()..c.end() + 1));
            assert_eq!(place.mask(FRAME).iter().sum::<f32>(), ones);
        }
    }

    #[test]
    fn a_mask_is_never_empty_however_small_the_latents_are() {
        for cells in 1..9 {
            let frame = Frame {
                side: 4 * cells,
                cell: 4,
            };
            for scale in (frame.side / 3).max(1)..=frame.side {
                for top in 0..=frame.side - scale {
                    let place = Placement {
                        scale,
                        top,
                        left: frame.side - scale - top,
                    };
                    assert!(place.mask(frame).contains(&1.0), "{frame:?} {place:?}");
                }
            }
        }
    }

    #[test]
    fn a_small_photo_lies_on_mid_grey_and_of_a_large_one_a_part_is_shown() {
        let photo: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let small = Placement {
            scale: 2,
            top: 1,
            left: 0,
        };
        let canvas = small.on_canvas(&photo, 3);
        assert_eq!(canvas[..9], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 3.0, 0.0]);
        let large = Placement {
            scale: 2,
            top: 0,
            left: 1,
        };
        assert_eq!(large.on_canvas(&photo, 1), [1.0, 5.0, 9.0]);
    }

    #[test]
    fn words_follow_the_scale_and_two_of_three_photos_are_shrunk() {
        let photo = RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 200]));
        let mut shrunk = 0;
        for index in 0..600 {
            let shown = CustomDiffusion.apply(&photo, FRAME, &mut rng(3, "augmentation", index));
            let mask = shown.mask.unwrap_or_default();
            let whole = mask.iter().all(|cell| *cell == 1.0);
            shrunk += usize::from(!whole);
            match shown.words {
                Some("zoomed in " | "close up ") => assert!(whole),
                Some("a far away " | "very small ") => {
                    assert!(mask.iter().sum::<f32>() < 0.36 * 256.0);
                    assert!(shown.pixels.contains(&0.0));
                }
                Some(other) => panic!("{other}"),
                None => assert!(!whole),
            }
        }
        assert!((360..430).contains(&shrunk), "{shrunk}");
    }
}
