//! Thumbnails: sheets of five by five images, so that a browser decodes only what is in view.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::image_processor::{Filter, encode_jpeg, load_image, resize};
use image::imageops::overlay;
use image::{ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;

/// Images side by side on a sheet, and rows of a sheet.
pub(super) const ACROSS: usize = 5;

/// The longest side of a thumbnail, in pixels.
const LARGEST: u32 = 128;

/// Images up to this side, of mini worlds, are kept without loss, while there are at most so many.
const LOSSLESS_SIDE: u32 = 64;
const LOSSLESS_COUNT: usize = 1_500;

/// The quality of JPEG sheets.
const QUALITY: f32 = 72.0;

/// What surrounds an image that is not square.
const AROUND: Rgb<u8> = Rgb([127, 127, 127]);

/// The thumbnails of some images, in their order.
#[derive(Debug, Default)]
pub(super) struct Sheets {
    /// The side of a thumbnail, in pixels.
    pub(super) side: u32,
    /// The media type of the sheets.
    pub(super) media_type: &'static str,
    /// The files.
    pub(super) sheets: Vec<Vec<u8>>,
    /// The indices of images that could not be read.
    pub(super) absent: Vec<usize>,
}

impl Sheets {
    /// Reads the images and draws them small. An image that is absent or damaged leaves a gap.
    ///
    /// # Errors
    /// A sheet that cannot be encoded.
    pub(super) fn draw(images: &[PathBuf]) -> Result<Self> {
        let Some(first) = images.iter().rev().find_map(|path| load(path)) else {
            return Ok(Self {
                absent: (0..images.len()).collect(),
                ..Self::default()
            });
        };
        let longest = first.width().max(first.height());
        let is_lossless = longest <= LOSSLESS_SIDE && images.len() <= LOSSLESS_COUNT;
        let side = longest.clamp(1, LARGEST);
        let drawn: Vec<(Vec<u8>, Vec<usize>)> = images
            .par_chunks(ACROSS * ACROSS)
            .map(|images| sheet(images, side, is_lossless))
            .collect::<Result<_>>()?;
        let mut sheets = Self {
            side,
            media_type: if is_lossless {
                "image/png"
            } else {
                "image/jpeg"
            },
            ..Self::default()
        };
        for (index, (bytes, absent)) in drawn.into_iter().enumerate() {
            let first = index * ACROSS * ACROSS;
            sheets.absent.extend(absent.iter().map(|at| first + at));
            sheets.sheets.push(bytes);
        }
        Ok(sheets)
    }
}

/// One sheet, and the positions of images that could not be read.
fn sheet(images: &[PathBuf], side: u32, is_lossless: bool) -> Result<(Vec<u8>, Vec<usize>)> {
    let rows = images.len().div_ceil(ACROSS) as u32;
    let mut sheet = RgbImage::from_pixel(ACROSS as u32 * side, rows * side, AROUND);
    let mut absent = Vec::new();
    for (at, path) in images.iter().enumerate() {
        let Some(image) = load(path) else {
            absent.push(at);
            continue;
        };
        let small = fitted(&image, side);
        let x = (at % ACROSS) as u32 * side + (side - small.width()) / 2;
        let y = (at / ACROSS) as u32 * side + (side - small.height()) / 2;
        overlay(&mut sheet, &small, i64::from(x), i64::from(y));
    }
    let bytes = match is_lossless {
        true => {
            let mut bytes = Cursor::new(Vec::new());
            sheet.write_to(&mut bytes, ImageFormat::Png)?;
            bytes.into_inner()
        }
        false => encode_jpeg(&sheet, QUALITY).context("thumbnails")?,
    };
    Ok((bytes, absent))
}

fn load(path: &Path) -> Option<RgbImage> {
    load_image(path).ok()
}

/// The image with this as its longer side.
fn fitted(image: &RgbImage, side: u32) -> RgbImage {
    let longest = image.width().max(image.height());
    if longest == side {
        return image.clone();
    }
    let scaled = |length: u32| {
        let length = f64::from(length) * f64::from(side) / f64::from(longest);
        (length.round() as u32).clamp(1, side)
    };
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    resize(image, width, height, Filter::Bicubic)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn files(folder: &Path, sides: &[(u32, u32)]) -> Vec<PathBuf> {
        let names = sides.iter().enumerate().map(|(index, (width, height))| {
            let path = folder.join(format!("{index}.png"));
            let color = Rgb([10 * index as u8, 0, 200]);
            RgbImage::from_pixel(*width, *height, color)
                .save(&path)
                .unwrap();
            path
        });
        names.collect()
    }

    #[test]
    fn small_images_are_kept_to_the_pixel_and_gaps_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut images = files(folder.path(), &[(8, 8); 27]);
        images[3] = folder.path().join("absent.png");
        let sheets = Sheets::draw(&images).unwrap();
        assert_eq!((sheets.side, sheets.media_type), (8, "image/png"));
        assert_eq!(sheets.absent, [3]);
        let [first, second] = sheets.sheets.as_slice() else {
            panic!("{} sheets", sheets.sheets.len())
        };
        let first = image::load_from_memory(first).unwrap().into_rgb8();
        assert_eq!(first.dimensions(), (40, 40));
        assert_eq!(first.get_pixel(8, 8), &Rgb([60, 0, 200]));
        let second = image::load_from_memory(second).unwrap().into_rgb8();
        assert_eq!(second.dimensions(), (40, 8));
    }

    #[test]
    fn large_images_shrink_to_128_pixels_in_jpeg_files() {
        let folder = tempfile::tempdir().unwrap();
        let images = files(folder.path(), &[(200, 100), (300, 300)]);
        let sheets = Sheets::draw(&images).unwrap();
        assert_eq!((sheets.side, sheets.media_type), (128, "image/jpeg"));
        assert!(sheets.sheets[0].starts_with(&[0xff, 0xd8]));
    }

    #[test]
    fn without_any_image_there_is_no_sheet() {
        let sheets = Sheets::draw(&[PathBuf::from("absent.png")]).unwrap();
        assert!(sheets.sheets.is_empty());
        assert_eq!(sheets.absent, [0]);
    }
}
