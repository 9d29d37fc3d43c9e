//! JPEG files for thumbnails.

use std::io;

use image::RgbImage;
use mozjpeg::{ColorSpace, Compress};

/// The bytes of a baseline JPEG file; the same image and quality give the same bytes. Quality is 1 to 100.
///
/// # Errors
/// An image without pixels.
pub fn encode_jpeg(image: &RgbImage, quality: f32) -> io::Result<Vec<u8>> {
    if image.is_empty() {
        return Err(io::Error::other("an image without pixels"));
    }
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(image.width() as usize, image.height() as usize);
    encoder.set_quality(quality);
    let mut encoder = encoder.start_compress(Vec::new())?;
    encoder.write_scanlines(image.as_raw())?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::encode_jpeg;
    use crate::image_processor::load_image;

    #[test]
    fn a_file_shows_nearly_the_same_image_and_is_the_same_every_time() {
        let image = RgbImage::from_fn(40, 24, |x, y| Rgb([6 * x as u8, 10 * y as u8, 90]));
        let bytes = encode_jpeg(&image, 90.0).expect("a file");
        assert_eq!(bytes, encode_jpeg(&image, 90.0).expect("a file"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.jpg");
        std::fs::write(&path, bytes).expect("a file");
        let read = load_image(&path).expect("an image");
        assert_eq!(read.dimensions(), (40, 24));
        let pairs = read.as_raw().iter().zip(image.as_raw());
        let difference: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(difference < 4 * 3 * 40 * 24, "{difference}");
    }

    #[test]
    fn an_image_without_pixels_is_refused() {
        assert!(encode_jpeg(&RgbImage::new(0, 3), 90.0).is_err());
    }
}
