//! The last step of rendering: light, pencil strokes or brush strokes, depending on the style.

use core_model::rng::rng;
use image::{GrayImage, Rgb, RgbImage};
use rand::RngExt;

use super::canvas::Canvas;
use super::{Rendering, SIDE, Style, View};

/// Turns a canvas into image and mask.
pub(super) fn finish(canvas: Canvas, view: &View) -> Rendering {
    let flat = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let pixel = canvas.scene.pixels()[(y * SIDE + x) as usize];
        Rgb([pixel.red(), pixel.green(), pixel.blue()])
    });
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, y| {
        image::Luma([canvas.mask.pixels()[(y * SIDE + x) as usize].alpha()])
    });
    let image = match view.style {
        Style::Photo => photo(&flat, view),
        Style::Cartoon => flat,
        Style::Sketch => sketch(&flat, view),
        Style::Painting => painting(&flat, view),
    };
    Rendering { image, mask }
}

fn byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// Photo: brightness and warmth of the light, darker corners, a little grain.
fn photo(flat: &RgbImage, view: &View) -> RgbImage {
    let mut generator = rng(view.seed, "grain", 0);
    let [bright, warm] = view.light;
    let tint = [bright + warm, bright, bright - warm];
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let [dx, dy] = [x, y].map(|v| (v as f32 + 0.5) / SIDE as f32 - 0.5);
        let corner = 1.0 - 0.35 * (dx * dx + dy * dy);
        let grain = generator.random_range(-3.0..3.0);
        let source = flat.get_pixel(x, y).0;
        Rgb(std::array::from_fn(|c| {
            byte(f32::from(source[c]) * tint[c] * corner + grain)
        }))
    })
}

/// Pencil: little colour, paper, hatching where it is dark.
fn sketch(flat: &RgbImage, view: &View) -> RgbImage {
    let mut generator = rng(view.seed, "pencil", 0);
    let paper = [246.0, 243.0, 234.0];
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let source = flat.get_pixel(x, y).0.map(f32::from);
        let gray = 0.3 * source[0] + 0.59 * source[1] + 0.11 * source[2];
        let light = 105.0 + 0.59 * gray;
        let hatch = match gray {
            g if g < 90.0 => (x + y).is_multiple_of(3),
            g if g < 165.0 => (x + y).is_multiple_of(4),
            _ => false,
        };
        let line = if hatch { 26.0 } else { 0.0 };
        let grain = generator.random_range(-4.0..4.0);
        Rgb(std::array::from_fn(|c| {
            let hint = 0.42 * (source[c] - gray);
            byte((light - line + grain + hint) * paper[c] / 250.0)
        }))
    })
}

/// Oil: slanted dabs, each in the colour of a nearby pixel, with fewer tones.
fn painting(flat: &RgbImage, view: &View) -> RgbImage {
    let mut generator = rng(view.seed, "brush", 0);
    let dabs = SIDE as usize;
    let strokes: Vec<[f32; 3]> = (0..dabs * dabs / 3)
        .map(|_| {
            [
                generator.random_range(-1.0..1.0),
                generator.random_range(-1.0..1.0),
                generator.random_range(-11.0..11.0),
            ]
        })
        .collect();
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        // Dabs lie along the diagonal, twice as long as wide.
        let (along, across) = ((x + y) / 6, (x + SIDE - y) / 3);
        let [dx, dy, tone] = strokes[(along * 131 + across * 17) as usize % strokes.len()];
        let at = |v: u32, d: f32| (v as f32 + d).clamp(0.0, SIDE as f32 - 1.0) as u32;
        let source = flat.get_pixel(at(x, dx), at(y, dy)).0;
        let mean = source.iter().map(|c| f32::from(*c)).sum::<f32>() / 3.0;
        Rgb(std::array::from_fn(|c| {
            let vivid = mean + 1.15 * (f32::from(source[c]) - mean);
            byte(((vivid + tone) / 24.0).round() * 24.0)
        }))
    })
}
