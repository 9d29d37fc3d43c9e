//! PNG files that say how they were made.

use std::path::Path;

use image::RgbImage;
use png::{BitDepth, ColorType, Compression, Encoder, Filter};

use crate::error::{Error, Result};
use crate::files::write_atomically;

/// The keyword under which programs that draw images keep their settings.
const PARAMETERS: &str = "parameters";

/// Writes an image as PNG with a text chunk `parameters`, which AUTOMATIC1111's web UI, ComfyUI and
/// others read. It is a `tEXt` chunk for text in ASCII and an `iTXt` chunk, which is UTF-8, for all other
/// text.
///
/// # Errors
/// [`Error::Io`] naming `path`; [`Error::Format`] when the image has no pixels or the text holds the
/// character 0.
pub fn write_png_with_parameters(path: &Path, image: &RgbImage, parameters: &str) -> Result<()> {
    if parameters.contains('\0') {
        let reason = "the character 0 cannot stand in the text of a PNG file";
        return Err(Error::format(path, reason));
    }
    let bytes = encode(image, parameters).map_err(|error| Error::format(path, error))?;
    write_atomically(path, &bytes)
}

fn encode(image: &RgbImage, parameters: &str) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    let (keyword, text) = (PARAMETERS.to_string(), parameters.to_string());
    match parameters.is_ascii() {
        true => encoder.add_text_chunk(keyword, text)?,
        false => encoder.add_itxt_chunk(keyword, text)?,
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn image() -> RgbImage {
        RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 80, 7]))
    }

    fn written(text: &str) -> (Vec<u8>, png::Reader<std::io::Cursor<Vec<u8>>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_png_with_parameters(&path, &image(), text).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), image());
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes.clone()));
        (bytes, decoder.read_info().unwrap())
    }

    #[test]
    fn ascii_text_is_a_text_chunk_before_the_pixels() {
        let text = "a <tom>\nNegative prompt: \nSteps: 2";
        let (bytes, reader) = written(text);
        let chunks = &reader.info().uncompressed_latin1_text;
        assert_eq!(chunks.len(), 1);
        assert_eq!((&*chunks[0].keyword, &*chunks[0].text), (PARAMETERS, text));
        let at = |name: &[u8]| bytes.windows(4).position(|four| four == name);
        assert!(at(b"tEXt").unwrap() < at(b"IDAT").unwrap());
    }

    #[test]
    fn other_text_is_kept_as_utf_8() {
        let (_, reader) = written("ein Hündchen, 雪");
        let chunks = &reader.info().utf8_text;
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].get_text().unwrap(), "ein Hündchen, 雪");
    }

    #[test]
    fn a_text_that_png_cannot_hold_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let error = write_png_with_parameters(&path, &image(), "a\0b").unwrap_err();
        assert!(error.to_string().contains("a.png"), "{error}");
        assert!(!path.exists());
    }
}
