//! JPEG files with exactly the pixels that Pillow gives, which are those of libjpeg-turbo.
//!
//! The inverse DCT, the upsampling of chroma and the conversion of colours are libjpeg's own: the
//! file is decoded by MozJPEG, which has them from libjpeg-turbo and is compiled with the program.
//! Other decoders round otherwise, which moves features of CLIP by up to 1e-2.

use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use image::metadata::Orientation;
use mozjpeg::{ColorSpace, Decompress};

use super::limits::{MAX_MEMORY, MAX_SIDE};

/// The most scans that are decoded; encoders write about ten.
const MOST_SCANS: usize = 500;

/// Bytes of memory per sample: the decoded one, and two of its coefficient in progressive files.
const BYTES_PER_SAMPLE: u64 = 3;

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum JpegError {
    /// A kind of JPEG that is not read.
    #[error("{0}")]
    Unsupported(String),
    /// Too many pixels or scans.
    #[error("{0}")]
    TooLarge(String),
    /// Bytes that are no JPEG, or not all of one.
    #[error("{0}")]
    Damaged(String),
}

/// What the markers of a file say before its pixels are decoded.
struct Frame<'a> {
    width: u32,
    height: u32,
    components: u8,
    orientation: Orientation,
    /// The file to its end of image, where it has one; telephones put a film behind that.
    image: &'a [u8],
}

/// Decodes a file to RGB, as Pillow's `convert("RGB")` does, upright.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, JpegError> {
    let frame = Frame::read(bytes)?;
    let pixels = catch_unwind(AssertUnwindSafe(|| frame.pixels()));
    // Errors of libjpeg unwind the stack with their text.
    let pixels = pixels.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map_or("", String::as_str);
        let text = text.trim_start_matches("libjpeg fatal error: ");
        Err(JpegError::Damaged(match text {
            // What `Bytes` says at its end.
            "" | "Input file read error" => "it ends before all rows are there".into(),
            text => text.into(),
        }))
    })?;
    let rgb = match frame.components {
        1 => pixels.iter().flat_map(|gray| [*gray; 3]).collect(),
        3 => pixels,
        _ => cmyk_to_rgb(&pixels),
    };
    let image = RgbImage::from_raw(frame.width, frame.height, rgb);
    let image = image.ok_or_else(|| JpegError::Damaged("too few pixels".into()))?;
    let mut image = image::DynamicImage::ImageRgb8(image);
    image.apply_orientation(frame.orientation);
    Ok(image.into_rgb8())
}

impl<'a> Frame<'a> {
    /// Walks over all markers, so that nothing is allocated for what cannot be decoded.
    fn read(bytes: &'a [u8]) -> Result<Self, JpegError> {
        let (mut sof, mut orientation, mut exif, mut scans) = (None, None, false, 0);
        let mut end = bytes.len();
        for (marker, segment, at) in (Markers { bytes, at: 2 }) {
            match marker {
                0xd9 => {
                    end = at;
                    break;
                }
                0xc4 | 0xc8 | 0xcc => {}
                0xc0..=0xcf if sof.is_none() => sof = Some(frame_header(marker, segment)?),
                0xda => scans += 1,
                0xe1 if !exif && segment.starts_with(b"Exif\0\0") => {
                    exif = true;
                    orientation = Orientation::from_exif_chunk(&segment[6..]).or(orientation);
                }
                0xe1 if segment.starts_with(XMP) => {
                    orientation = orientation.or_else(|| orientation_in_xmp(segment));
                }
                _ => {}
            }
        }
        let no_frame = || JpegError::Damaged("it has no start of frame".into());
        let (width, height, components) = sof.ok_or_else(no_frame)?;
        check_size(width, height, components, scans)?;
        Ok(Self {
            width,
            height,
            components,
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
            image: &bytes[..end],
        })
    }

    /// Rows of gray, RGB or inverted CMYK.
    fn pixels(&self) -> Result<Vec<u8>, JpegError> {
        let damaged = |error: io::Error| JpegError::Damaged(error.to_string());
        let color_space = match self.components {
            1 => ColorSpace::JCS_GRAYSCALE,
            3 => ColorSpace::JCS_RGB,
            _ => ColorSpace::JCS_CMYK,
        };
        let decoder = Decompress::new_reader(Bytes(self.image)).map_err(damaged)?;
        let count = usize::from(self.components);
        if decoder.size() != (self.width as usize, self.height as usize)
            || decoder.components().len() != count
        {
            return Err(JpegError::Damaged("it has two starts of frame".into()));
        }
        let mut decoder = decoder.to_colorspace(color_space).map_err(damaged)?;
        let mut pixels = vec![0_u8; self.width as usize * self.height as usize * count];
        decoder.read_scanlines_into(&mut pixels).map_err(damaged)?;
        // Some telephones write no end of image. All rows are there, so nothing is missing.
        Ok(pixels)
    }
}

/// The markers of a file with their segments and where these end, as far as they are whole.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Markers<'a> {
    type Item = (u8, &'a [u8], usize);

    fn next(&mut self) -> Option<Self::Item> {
        let marker = self.marker()?;
        let mut segment = &self.bytes[..0];
        if !matches!(marker, 0x01 | 0xd0..=0xd9) {
            let length = self.bytes.get(self.at..self.at + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            segment = self.bytes.get(self.at + 2..self.at + length)?;
            self.at += length;
        }
        Some((marker, segment, self.at))
    }
}

impl Markers<'_> {
    /// Goes behind the next marker.
    fn marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|byte| *byte == 0xff)?;
            match *self.bytes.get(self.at + 1)? {
                // A byte of compressed data.
                0x00 => self.at += 2,
                // A fill byte.
                0xff => self.at += 1,
                marker => {
                    self.at += 2;
                    return Some(marker);
                }
            }
        }
    }
}

/// Width, height and components of a start of frame that can be decoded.
fn frame_header(marker: u8, segment: &[u8]) -> Result<(u32, u32, u8), JpegError> {
    let process = match marker {
        0xc0..=0xc2 | 0xc9 | 0xca => None,
        0xc3 | 0xcb => Some("lossless"),
        _ => Some("hierarchical"),
    };
    if let Some(process) = process {
        let reason = format!("it is a {process} JPEG");
        return Err(JpegError::Unsupported(reason));
    }
    let [bits, h1, h0, w1, w0, components, ..] = *segment else {
        return Err(JpegError::Damaged("its start of frame is too short".into()));
    };
    if bits != 8 {
        let reason = format!("it is a JPEG with {bits} bits per channel");
        return Err(JpegError::Unsupported(reason));
    }
    if !matches!(components, 1 | 3 | 4) {
        let reason = format!("it is a JPEG with {components} channels");
        return Err(JpegError::Unsupported(reason));
    }
    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Ok((side(w1, w0), side(h1, h0), components))
}

fn check_size(width: u32, height: u32, components: u8, scans: usize) -> Result<(), JpegError> {
    if width == 0 || height == 0 {
        return Err(JpegError::Damaged("it has no pixels".into()));
    }
    let samples = u64::from(width) * u64::from(height) * u64::from(components);
    if width > MAX_SIDE || height > MAX_SIDE || samples * BYTES_PER_SAMPLE > MAX_MEMORY {
        let reason = format!("{width} by {height} pixels in {components} channels");
        return Err(JpegError::TooLarge(reason));
    }
    if scans > MOST_SCANS {
        let reason = format!("{scans} scans, of at most {MOST_SCANS}");
        return Err(JpegError::TooLarge(reason));
    }
    Ok(())
}

const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Editors leave the orientation here when a photograph has no EXIF data.
fn orientation_in_xmp(segment: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = segment
        .windows(NAME.len())
        .position(|place| place == NAME)?;
    let rest = &segment[at + NAME.len()..];
    let digits = rest
        .strip_prefix(b"=\"")
        .or_else(|| rest.strip_prefix(b">"))?;
    let digit = digits.first().filter(|digit| digit.is_ascii_digit())?;
    Orientation::from_exif(digit - b'0')
}

/// Pillow's conversion of CMYK, of which JPEG files hold the inverse.
fn cmyk_to_rgb(inverted: &[u8]) -> Vec<u8> {
    let pixel = |[c, m, y, k]: &[u8; 4]| {
        [c, m, y].map(|ink| {
            let (ink, light) = (u32::from(255 - ink), u32::from(*k));
            let product = ink * light + 128;
            (light - (((product >> 8) + product) >> 8)) as u8
        })
    };
    inverted.as_chunks::<4>().0.iter().flat_map(pixel).collect()
}

/// Bytes that end with an error: libjpeg would make up what is missing.
struct Bytes<'a>(&'a [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for Bytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.0 {
            [] => Err(io::Error::other("the image is cut off")),
            bytes => Ok(bytes),
        }
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count.min(self.0.len())..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end_of_the_photograph() {
        let app = [0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xda];
        let frame = [0xff, 0xc0, 0, 11, 8, 0, 1, 0, 2, 1, 0, 0, 0];
        let scan = [0xff, 0xda, 0, 2, 1, 0xff, 0x00, 0xff, 0xd3, 2];
        let cut_off = [&[0xff, 0xd8][..], &app, &frame, &scan].concat();
        let whole = [&cut_off[..], &[0xff, 0xd9]].concat();
        let film = [&whole[..], &[0xff, 0xda, 1, 2, 3]].concat();
        for (file, image) in [(&cut_off, &cut_off), (&whole, &whole), (&film, &whole)] {
            let read = Frame::read(file).ok();
            assert_eq!(read.map(|frame| frame.image), Some(&image[..]));
        }
    }

    #[test]
    fn black_ink_of_cmyk_is_black_and_no_ink_is_white() {
        let inverted = [255, 255, 255, 255, 255, 255, 255, 0, 0, 255, 255, 128];
        let rgb = [255, 255, 255, 0, 0, 0, 0, 128, 128];
        assert_eq!(cmyk_to_rgb(&inverted), rgb);
    }

    #[test]
    fn orientation_is_found_in_xmp_too() {
        let xmp = |text: &str| [XMP, text.as_bytes()].concat();
        for text in [
            "<rdf tiff:Orientation=\"6\"/>",
            "<tiff:Orientation>6</tiff:Orientation>",
        ] {
            let found = orientation_in_xmp(&xmp(text));
            assert_eq!(found, Some(Orientation::Rotate90));
        }
        assert_eq!(orientation_in_xmp(&xmp("nothing")), None);
    }
}
