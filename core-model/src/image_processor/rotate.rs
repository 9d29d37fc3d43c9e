//! Rotation of a photograph, with Pillow's pixels.

use image::RgbImage;

/// The image turned counter-clockwise by `degrees` about its centre, on a canvas that holds all of
/// it, black outside: `Image.rotate(degrees, NEAREST, expand=True)` of Pillow, pixel for pixel.
///
/// # Panics
/// When the rotated image is larger than 32,767 pixels on a side.
pub fn rotate(image: &RgbImage, degrees: f64) -> RgbImage {
    let (width, height) = image.dimensions();
    let [w, h] = [width, height].map(f64::from);
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos) = (rounded(angle.sin()), rounded(angle.cos()));
    // From the output to the input: x' = a x + b y + c, y' = d x + e y + f.
    let matrix = Affine([cos, sin, 0.0, -sin, cos, 0.0]);
    let (c, f) = matrix.apply(-w / 2.0, -h / 2.0);
    let matrix = Affine([cos, sin, c + w / 2.0, -sin, cos, f + h / 2.0]);
    let corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| matrix.apply(x, y));
    let span = |values: [f64; 4]| {
        let high = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let low = values.into_iter().fold(f64::INFINITY, f64::min);
        high.ceil() - low.floor()
    };
    let (new_w, new_h) = (span(corners.map(|c| c.0)), span(corners.map(|c| c.1)));
    let (c, f) = matrix.apply(-(new_w - w) / 2.0, -(new_h - h) / 2.0);
    let matrix = Affine([cos, sin, c, -sin, cos, f]);
    assert!(
        new_w.max(new_h) < 32768.0,
        "{new_w} x {new_h} pixels are too many to rotate"
    );
    matrix.nearest(image, new_w as u32, new_h as u32)
}

/// Fifteen decimal places, as Pillow rounds sines and cosines.
fn rounded(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// a, b, c, d, e, f.
struct Affine([f64; 6]);

impl Affine {
    fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        let [a, b, c, d, e, f] = self.0;
        (a * x + b * y + c, d * x + e * y + f)
    }

    /// The pixel below the centre of every output pixel, in 16.16 fixed point as in Pillow.
    fn nearest(&self, image: &RgbImage, width: u32, height: u32) -> RgbImage {
        let [a, b, c, d, e, f] = self.0;
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
        let [x_step, x_line, y_step, y_line] = [a, b, d, e].map(fixed);
        let [x_start, y_start] = [c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5].map(fixed);
        let (in_width, in_height) = image.dimensions();
        RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (i64::from(x), i64::from(y));
            let source_x = (x_start + x * x_step + y * x_line) >> 16;
            let source_y = (y_start + x * y_step + y * y_line) >> 16;
            let inside = |at: i64, size: u32| u32::try_from(at).ok().filter(|at| *at < size);
            match (inside(source_x, in_width), inside(source_y, in_height)) {
                (Some(x), Some(y)) => *image.get_pixel(x, y),
                _ => image::Rgb([0; 3]),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::files::hex;

    #[test]
    fn rotated_images_have_pillows_size_and_pixels() {
        let image = RgbImage::from_fn(37, 23, |x, y| {
            let value = |channel: u32| ((x * 7 + y * 11 + channel * 50) % 256) as u8;
            image::Rgb([value(0), value(1), value(2)])
        });
        // Pillow 13: Image.fromarray(..).rotate(degrees, Image.NEAREST, expand=True), SHA-256 of
        // tobytes().
        for (degrees, size, digest) in [
            (0.0, (37, 23), "2705e3ceee262bb4"),
            (45.0, (43, 43), "b48cf97876e030eb"),
            (-45.0, (43, 43), "3741b9d878151061"),
            (13.37, (43, 31), "3ad5549484265dd2"),
            (-29.125, (45, 39), "9e894054ba8f915b"),
            (44.9, (43, 43), "d02d64a3915c838e"),
        ] {
            let rotated = rotate(&image, degrees);
            assert_eq!(rotated.dimensions(), size, "{degrees}");
            let found = hex(&Sha256::digest(rotated.as_raw()));
            assert_eq!(&found[..16], digest, "{degrees}");
        }
    }
}
