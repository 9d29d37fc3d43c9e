//! Resizing with exactly the bytes of Pillow's `Image.resize`.
//!
//! Two passes, along rows and along columns, each with 8-bit results. The weights of an output
//! pixel are computed in double precision, widened by the scale when shrinking (so that no input
//! pixel is skipped), and rounded to 22-bit fixed point. Other resamplers differ from this by one
//! level in an eighth of all bytes, which moves published scores.
//!
//! Rows come first, as in every version of Pillow, but for images that lose more than twice as
//! many rows as columns: from version 13 on, Pillow starts with the columns there.

use std::f64::consts::PI;
use std::ops::Range;

use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bits after the point of a weight: 32 less 8 for the pixel and 2 for the sign and the sum.
const PRECISION_BITS: u32 = 22;

/// How output pixels are computed, by Pillow's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Filter {
    /// 0: the input pixel below the centre.
    Nearest,
    /// 1: three lobes of a windowed sinc.
    Lanczos,
    /// 2: a triangle.
    Bilinear,
    /// 3: Catmull-Rom's cubic, a = -1/2.
    Bicubic,
    /// 4: the mean.
    Box,
    /// 5: one lobe of a sinc under Hamming's window.
    Hamming,
}

impl TryFrom<u8> for Filter {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Ok(match number {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => {
                return Err(format!(
                    "`resample` is {number}, expected Pillow's numbers 0 to 5"
                ));
            }
        })
    }
}

impl From<Filter> for u8 {
    fn from(filter: Filter) -> Self {
        match filter {
            Filter::Nearest => 0,
            Filter::Lanczos => 1,
            Filter::Bilinear => 2,
            Filter::Bicubic => 3,
            Filter::Box => 4,
            Filter::Hamming => 5,
        }
    }
}

impl Filter {
    /// Pixels on either side of the centre that count, at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => bicubic(x.abs()),
            Self::Hamming => hamming(x.abs()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn hamming(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    let x = x * PI;
    // Pillow's constants are single precision.
    x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// The input pixels from `start` that make one output pixel, with their weights in fixed point.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(input: usize, output: &Side, filter: Filter) -> Vec<Window> {
    let scale = input as f64 / output.size as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    output
        .kept
        .clone()
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // Casts cut off below zero, as in C.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let mut weights: Vec<f64> = (start..end)
                .map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / widening)))
                .collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            Window {
                start,
                weights: weights.into_iter().map(fixed_point).collect(),
            }
        })
        .collect()
}

fn fixed_point(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (half + weight * f64::from(1 << PRECISION_BITS)) as i32
}

/// The sum of products, rounded and clipped to a byte.
fn weighted(window: &Window, pixel: impl Fn(usize) -> u8) -> u8 {
    let half = 1 << (PRECISION_BITS - 1);
    let sum = window
        .weights
        .iter()
        .enumerate()
        .fold(half, |sum, (i, weight)| {
            sum + i32::from(pixel(window.start + i)) * weight
        });
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// One side of the output, in pixels, and the part of it that is wanted: what is cut off is never
/// computed, so that thin images do not fill the memory.
#[derive(Debug, Clone)]
struct Side {
    size: usize,
    kept: Range<usize>,
}

impl Side {
    fn new(size: u32, kept: Range<u32>) -> Self {
        Self {
            size: size as usize,
            kept: kept.start as usize..kept.end as usize,
        }
    }
}

/// Bytes of an image, row by row, channels innermost.
struct Plane {
    bytes: Vec<u8>,
    width: usize,
    height: usize,
    channels: usize,
}

impl Plane {
    /// The same image with rows of `side` pixels.
    fn with_width(&self, side: &Side, filter: Filter) -> Self {
        let windows = windows(self.width, side, filter);
        let (channels, width) = (self.channels, windows.len());
        let mut bytes = vec![0; self.height * width * channels];
        bytes
            .par_chunks_mut(width * channels)
            .zip(self.rows())
            .for_each(|(output, row)| {
                for (pixel, window) in output.chunks_exact_mut(channels).zip(&windows) {
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        *value = weighted(window, |x| row[x * channels + channel]);
                    }
                }
            });
        Self {
            bytes,
            width,
            ..*self
        }
    }

    /// The same image with columns of `side` pixels.
    fn with_height(&self, side: &Side, filter: Filter) -> Self {
        let windows = windows(self.height, side, filter);
        let (stride, height) = (self.width * self.channels, windows.len());
        let mut bytes = vec![0; height * stride];
        bytes
            .par_chunks_mut(stride)
            .zip(&windows)
            .for_each(|(output, window)| {
                for (at, value) in output.iter_mut().enumerate() {
                    *value = weighted(window, |y| self.bytes[y * stride + at]);
                }
            });
        Self {
            bytes,
            height,
            ..*self
        }
    }

    fn nearest(&self, width: &Side, height: &Side) -> Self {
        self.picked(&nearest(self.width, width), &nearest(self.height, height))
    }

    /// The pixels where some columns and some rows meet.
    fn picked(&self, columns: &[usize], rows: &[usize]) -> Self {
        let (channels, stride) = (self.channels, self.width * self.channels);
        let bytes = rows
            .iter()
            .flat_map(|y| columns.iter().map(move |x| y * stride + x * channels))
            .flat_map(|at| &self.bytes[at..at + channels])
            .copied()
            .collect();
        Self {
            bytes,
            width: columns.len(),
            height: rows.len(),
            channels,
        }
    }

    fn rows(&self) -> rayon::slice::Chunks<'_, u8> {
        self.bytes.par_chunks(self.width * self.channels)
    }
}

/// The input pixel below each output pixel; the position is summed up as Pillow does.
fn nearest(input: usize, output: &Side) -> Vec<usize> {
    let scale = input as f64 / output.size as f64;
    let mut position = scale * 0.5;
    let places = (0..output.size).map(|_| {
        let at = (position as usize).min(input - 1);
        position += scale;
        at
    });
    let Range { start, end } = output.kept;
    places.skip(start).take(end - start).collect()
}

fn resize_plane(plane: Plane, width: &Side, height: &Side, filter: Filter) -> Plane {
    if (plane.width, plane.height) == (width.size, height.size) {
        let columns: Vec<usize> = width.kept.clone().collect();
        let rows: Vec<usize> = height.kept.clone().collect();
        return match (columns.len(), rows.len()) == (plane.width, plane.height) {
            true => plane,
            false => plane.picked(&columns, &rows),
        };
    }
    if filter == Filter::Nearest {
        return plane.nearest(width, height);
    }
    let along_rows = |plane: Plane| match plane.width == width.size {
        true if width.kept == (0..plane.width) => plane,
        true => {
            let rows: Vec<usize> = (0..plane.height).collect();
            plane.picked(&width.kept.clone().collect::<Vec<_>>(), &rows)
        }
        false => plane.with_width(width, filter),
    };
    let along_columns = |plane: Plane| match plane.height == height.size {
        true if height.kept == (0..plane.height) => plane,
        true => {
            let columns: Vec<usize> = (0..plane.width).collect();
            plane.picked(&columns, &height.kept.clone().collect::<Vec<_>>())
        }
        false => plane.with_height(height, filter),
    };
    let lost = |old: usize, new: usize| old as i64 - new as i64;
    let rows_lost = lost(plane.height, height.size);
    if rows_lost > 0 && rows_lost > 2 * lost(plane.width, width.size) {
        along_rows(along_columns(plane))
    } else {
        along_columns(along_rows(plane))
    }
}

/// Resizes a colour image to `width` by `height` pixels.
///
/// # Panics
/// When a side, old or new, has no pixel.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    resize_part(image, (width, height), 0..width, 0..height, filter)
}

/// The part of a colour image resized to `width` by `height` that lies in `columns` and `rows`. The
/// rest is not computed, and takes no memory.
///
/// # Panics
/// When a side, old or new, has no pixel.
pub(super) fn resize_part(
    image: &RgbImage,
    (width, height): (u32, u32),
    columns: Range<u32>,
    rows: Range<u32>,
    filter: Filter,
) -> RgbImage {
    let old = image.dimensions();
    assert!(
        [old.0, old.1, width, height].iter().all(|side| *side > 0),
        "cannot resize {old:?} to {:?}: every side needs a pixel",
        (width, height)
    );
    let plane = Plane {
        bytes: image.as_raw().clone(),
        width: old.0 as usize,
        height: old.1 as usize,
        channels: 3,
    };
    let (width, height) = (Side::new(width, columns), Side::new(height, rows));
    let plane = resize_plane(plane, &width, &height, filter);
    let (width, height) = (plane.width as u32, plane.height as u32);
    match RgbImage::from_raw(width, height, plane.bytes) {
        Some(resized) => resized,
        None => panic!("a plane of {width} by {height} pixels has as many bytes"),
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// 0.54f and 0.46f in Pillow's Resample.c; with doubles, one photograph in fourteen has a byte
    /// that differs (benchmarks/pillow.py).
    #[test]
    fn hammings_window_has_constants_of_single_precision() {
        assert!((hamming(0.5) - 0.343_774_690_738_872_3).abs() < 1e-15);
    }

    #[test]
    fn doubling_with_the_triangle_mixes_three_to_one() {
        let image = RgbImage::from_fn(2, 1, |x, _| Rgb([100 * x as u8; 3]));
        let resized = resize(&image, 4, 1, Filter::Bilinear);
        let expected = [0, 25, 75, 100].map(|value| [value; 3]).concat();
        assert_eq!(resized.as_raw(), &expected);
    }

    #[test]
    fn halving_with_the_box_gives_means() {
        let image = RgbImage::from_fn(4, 2, |x, y| Rgb([(10 * x + 100 * y) as u8; 3]));
        let resized = resize(&image, 2, 1, Filter::Box);
        assert_eq!(resized.as_raw(), &[[55; 3], [75; 3]].concat());
    }

    #[test]
    fn the_same_size_keeps_every_byte() {
        let image = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8, y as u8, 200]));
        assert_eq!(resize(&image, 5, 3, Filter::Lanczos), image);
    }

    #[test]
    fn filter_numbers_are_those_of_pillow() {
        for number in 0..=5 {
            assert_eq!(Filter::try_from(number).map(u8::from), Ok(number));
        }
        assert!(Filter::try_from(6).is_err());
    }

    #[test]
    fn a_part_has_the_pixels_of_the_whole() {
        let image = RgbImage::from_fn(23, 31, |x, y| {
            Rgb([(x * 11) as u8, (y * 8) as u8, (x * y) as u8])
        });
        let filters = (0..=5).filter_map(|number| Filter::try_from(number).ok());
        for filter in filters {
            for (width, height) in [(40, 50), (10, 12), (23, 9), (23, 31), (60, 31), (5, 31)] {
                let whole = resize(&image, width, height, filter);
                let (columns, rows) = (1..width - 1, 2..height - 3);
                let (left, top) = (columns.start, rows.start);
                let part = resize_part(&image, (width, height), columns, rows, filter);
                assert_eq!(part.dimensions(), (width - 2, height - 5));
                for (x, y, pixel) in part.enumerate_pixels() {
                    let expected = whole.get_pixel(x + left, y + top);
                    assert_eq!(pixel, expected, "{filter:?} {width} {height} {x} {y}");
                }
            }
        }
    }
}
