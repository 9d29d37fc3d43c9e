//! How sharp images are.

use image::RgbImage;

/// The mean over images of the variance of the Laplacian (4-neighbourhood) of their luma (ITU-R BT.601), 0 to 255;
/// 0 for images without an inner pixel.
pub fn sharpness<'a>(images: impl IntoIterator<Item = &'a RgbImage>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for image in images {
        sum += variance_of_laplacian(image);
        count += 1;
    }
    sum / f64::from(count.max(1))
}

fn variance_of_laplacian(image: &RgbImage) -> f64 {
    let luma = |x: u32, y: u32| {
        let [red, green, blue] = image.get_pixel(x, y).0.map(f64::from);
        0.299 * red + 0.587 * green + 0.114 * blue
    };
    let (width, height) = image.dimensions();
    let inner = (1..width.saturating_sub(1))
        .flat_map(|x| (1..height.saturating_sub(1)).map(move |y| (x, y)));
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for (x, y) in inner {
        let around = luma(x - 1, y) + luma(x + 1, y) + luma(x, y - 1) + luma(x, y + 1);
        let laplacian = around - 4.0 * luma(x, y);
        sum += laplacian;
        squares += laplacian * laplacian;
        count += 1.0;
    }
    if count == 0.0 {
        return 0.0;
    }
    squares / count - (sum / count) * (sum / count)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_ramp_has_no_sharpness_and_one_bright_pixel_has_that_of_its_five_values() {
        let ramp = RgbImage::from_fn(5, 5, |x, y| Rgb([(10 * x + 3 * y) as u8; 3]));
        assert!(sharpness([&ramp]) < 1e-9);
        let mut point = RgbImage::new(5, 5);
        point.put_pixel(2, 2, Rgb([100; 3]));
        // Nine inner pixels: -400 once, 100 four times, 0 four times; their mean is 0.
        let expected = (400.0 * 400.0 + 4.0 * 100.0 * 100.0) / 9.0;
        assert!((sharpness([&point]) - expected).abs() < 1e-6);
        assert!((sharpness([&ramp, &point]) - expected / 2.0).abs() < 1e-6);
    }

    #[test]
    fn images_without_an_inner_pixel_have_none() {
        assert_eq!(sharpness([&RgbImage::new(2, 2)]), 0.0);
    }
}
