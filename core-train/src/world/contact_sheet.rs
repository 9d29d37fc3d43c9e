//! Many small images on one sheet.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

/// Side, in pixels of the sheet, of one pixel of an image.
const SCALE: u32 = 2;

/// The background between the images.
const BACKGROUND: Rgb<u8> = Rgb([250, 250, 248]);

/// Images of one size in rows of `columns`, enlarged without smoothing, on a light background.
pub fn contact_sheet(images: &[RgbImage], columns: u32) -> RgbImage {
    let (width, height) = images.first().map_or((0, 0), RgbImage::dimensions);
    let (width, height, gap) = (SCALE * width, SCALE * height, 2 * SCALE);
    let columns = columns.min(images.len() as u32).max(1);
    let rows = (images.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (width + gap) + gap,
        rows * (height + gap) + gap,
        BACKGROUND,
    );
    for (at, image) in (0u32..).zip(images) {
        let large = resize(image, width, height, FilterType::Nearest);
        let x = gap + at % columns * (width + gap);
        let y = gap + at / columns * (height + gap);
        replace(&mut sheet, &large, x.into(), y.into());
    }
    sheet
}

/// Two sheets of the same height with a broad strip between them.
pub fn side_by_side(left: &RgbImage, right: &RgbImage) -> RgbImage {
    let strip = 12 * SCALE;
    let width = left.width() + strip + right.width();
    let mut sheet = RgbImage::from_pixel(width, left.height().max(right.height()), BACKGROUND);
    replace(&mut sheet, left, 0, 0);
    replace(&mut sheet, right, (left.width() + strip).into(), 0);
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_rows_in_their_order() {
        let images: Vec<RgbImage> = (0..3)
            .map(|value| RgbImage::from_pixel(2, 1, Rgb([value; 3])))
            .collect();
        let sheet = contact_sheet(&images, 2);
        assert_eq!(sheet.dimensions(), (2 * 4 + 3 * 4, 2 * 2 + 3 * 4));
        for (value, at) in [(0, (4, 4)), (1, (12, 4)), (2, (4, 10))] {
            assert_eq!(sheet.get_pixel(at.0, at.1).0, [value; 3]);
        }
        assert_eq!(sheet.get_pixel(12, 10), &BACKGROUND, "an empty place");
        let both = side_by_side(&sheet, &sheet);
        assert_eq!(both.get_pixel(sheet.width() + 24 + 12, 4).0, [1; 3]);
    }
}
