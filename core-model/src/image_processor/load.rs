//! Reading image files as eight-bit RGB.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::jpeg::{self, JpegError};
use super::limits::{MAX_MEMORY, MAX_SIDE};
use crate::error::{Error, Result};
use crate::file_kind::FileKind;
use crate::files;

/// What `load_image` reads, for messages.
pub(crate) const FORMATS: &str = "PNG, JPEG, WebP, GIF, BMP or TIFF";

/// Reads a PNG, JPEG, WebP, GIF, BMP or TIFF file; what it is, its content decides, not its name.
///
/// * The EXIF orientation is applied.
/// * The pixels of a JPEG file are those of libjpeg-turbo, as Pillow gives them.
/// * Transparency is composed on white, rounded as Pillow's `paste` does it.
/// * JPEG compression inside of a TIFF file, and lossy WebP, are rounded otherwise than by Pillow.
/// * 16-bit values are divided by 257 and rounded; gray, palettes and CMYK become RGB.
/// * Colour profiles and gamma are ignored; of an animation the first picture counts.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is cut off, damaged, of
/// another kind, or more than 32768 pixels on a side or 1 GiB when decoded.
pub fn load_image(path: &Path) -> Result<RgbImage> {
    let bytes = files::read(path)?;
    decode_image(&bytes).map_err(|reason| Error::format(path, reason))
}

/// The image in `bytes`, or why there is none.
pub(crate) fn decode_image(bytes: &[u8]) -> Result<RgbImage, String> {
    let format = match FileKind::of(bytes) {
        Some(FileKind::Jpeg) => return jpeg::decode(bytes).map_err(explain_jpeg),
        Some(FileKind::Png) => ImageFormat::Png,
        Some(FileKind::WebP) => ImageFormat::WebP,
        Some(FileKind::Gif) => ImageFormat::Gif,
        Some(FileKind::Bmp) => ImageFormat::Bmp,
        Some(FileKind::Tiff) => ImageFormat::Tiff,
        Some(kind) if kind.is_image() => {
            return Err(format!(
                "is {kind}, which is not read here; convert it to one of {FORMATS}"
            ));
        }
        Some(kind) => return Err(format!("is {kind}; expected an image: {FORMATS}")),
        None => return Err(format!("is no image; expected {FORMATS}")),
    };
    let decoded = decode(bytes, format).map_err(|error| explain(&error))?;
    Ok(to_rgb(decoded))
}

fn decode(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    limits.check_dimensions(width, height)?;
    limits.reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn explain(error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => {
            format!("is an image of a kind that is not read here ({error}); convert it to PNG")
        }
        ImageError::Limits(_) => format!("the image is too large: {error}"),
        _ => format!("the image is damaged or cut off ({error}); save or fetch it again"),
    }
}

fn explain_jpeg(error: JpegError) -> String {
    match error {
        JpegError::Unsupported(what) => format!("{what}, which is not read; convert it to PNG"),
        JpegError::TooLarge(what) => format!("the image is too large: {what}"),
        JpegError::Damaged(what) => {
            format!("the image is damaged or cut off ({what}); save or fetch it again")
        }
    }
}

fn to_rgb(image: DynamicImage) -> RgbImage {
    let on_white = |[r, g, b, a]: [u8; 4]| {
        [r, g, b].map(|value| {
            let (value, alpha) = (u32::from(value), u32::from(a));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        })
    };
    match image {
        DynamicImage::ImageRgb8(image) => image,
        image if image.color().has_alpha() => {
            let image = if image.color().bytes_per_pixel() > 4 || is_gray_16(&image) {
                let wide = image.to_rgba16();
                image::RgbaImage::from_fn(wide.width(), wide.height(), |x, y| {
                    image::Rgba(wide.get_pixel(x, y).0.map(from_16_bits))
                })
            } else {
                image.to_rgba8()
            };
            RgbImage::from_fn(image.width(), image.height(), |x, y| {
                image::Rgb(on_white(image.get_pixel(x, y).0))
            })
        }
        image @ (DynamicImage::ImageLuma16(_) | DynamicImage::ImageRgb16(_)) => {
            let wide = image.to_rgb16();
            RgbImage::from_fn(wide.width(), wide.height(), |x, y| {
                image::Rgb(wide.get_pixel(x, y).0.map(from_16_bits))
            })
        }
        image => image.to_rgb8(),
    }
}

fn is_gray_16(image: &DynamicImage) -> bool {
    matches!(image, DynamicImage::ImageLumaA16(_))
}

fn from_16_bits(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_become_eight_by_division_through_257() {
        for (wide, narrow) in [
            (0, 0),
            (128, 0),
            (129, 1),
            (257, 1),
            (65535, 255),
            (32768, 128),
        ] {
            assert_eq!(from_16_bits(wide), narrow, "{wide}");
        }
    }

    #[test]
    fn half_transparent_black_on_white_is_gray() {
        let pixel = image::RgbaImage::from_pixel(1, 1, image::Rgba([0, 0, 0, 128]));
        assert_eq!(to_rgb(pixel.into()).get_pixel(0, 0).0, [127, 127, 127]);
    }
}
