//! Faces aligned to five points, as the networks that tell people apart were trained on them: insightface's
//! `norm_crop` with OpenCV's `warpAffine`, to the last bit of OpenCV 4. Face2Diffusion calls `warpPerspective`
//! with the same matrix and INTER_AREA, which OpenCV turns into INTER_LINEAR; places are rounded a little
//! otherwise there, by which one value in a hundred differs.

use image::{Rgb, RgbImage};

use crate::iresnet::FACE_SIDE;

/// Where eyes, tip of the nose and corners of the mouth are in an image, (x, y) in pixels: the left eye of
/// the image first.
pub type Landmarks = [[f64; 2]; 5];

/// The same in an aligned face (insightface, `face_align.py`).
const TEMPLATE: Landmarks = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// OpenCV computes places in units of 1/1024 pixel and interpolates in steps of 1/32.
const PLACE: f64 = 1024.0;
const STEPS: i64 = 32;

/// Whether landmarks are too near to each other to say where a face is.
pub fn coincide(landmarks: &Landmarks) -> bool {
    let [x, y] = mean(landmarks);
    let far = |[a, b]: &[f64; 2]| (a - x).abs() > 1e-3 || (b - y).abs() > 1e-3;
    !landmarks.iter().any(far)
}

/// The face with these landmarks, moved, turned and scaled so that they lie on those of the template as
/// near as they can; what is outside of the image is black.
pub fn aligned_face(image: &RgbImage, landmarks: &Landmarks) -> RgbImage {
    let [[a, b, x], [c, d, y]] = inverse(similarity(landmarks, &TEMPLATE));
    let place = |value: f64| (value * PLACE).clamp(-1e12, 1e12).round_ties_even() as i64;
    let side = FACE_SIDE as u32;
    RgbImage::from_fn(side, side, |column, row| {
        let (column, row) = (f64::from(column), f64::from(row));
        let half = PLACE as i64 / STEPS / 2;
        let at = |across: f64, down: f64, start: f64| {
            let place = place(down * row + start) + half + place(across * column);
            place.div_euclid(PLACE as i64 / STEPS)
        };
        interpolated(image, at(a, b, x), at(c, d, y))
    })
}

/// The similarity (Umeyama 1991) that takes the points `from` as near to the points `to` as it can, as two
/// rows of a matrix.
fn similarity(from: &Landmarks, to: &Landmarks) -> [[f64; 3]; 2] {
    let ([fx, fy], [tx, ty]) = (mean(from), mean(to));
    let (mut along, mut across, mut spread) = (0.0, 0.0, 0.0);
    for (from, to) in from.iter().zip(to) {
        let (x, y) = (from[0] - fx, from[1] - fy);
        let (u, v) = (to[0] - tx, to[1] - ty);
        along += x * u + y * v;
        across += x * v - y * u;
        spread += x * x + y * y;
    }
    let (cos, sin) = (along / spread, across / spread);
    [
        [cos, -sin, tx - cos * fx + sin * fy],
        [sin, cos, ty - sin * fx - cos * fy],
    ]
}

fn mean(points: &Landmarks) -> [f64; 2] {
    [0, 1].map(|axis| points.iter().map(|point| point[axis]).sum::<f64>() / points.len() as f64)
}

fn inverse([[a, b, x], [c, d, y]]: [[f64; 3]; 2]) -> [[f64; 3]; 2] {
    let scale = 1.0 / (a * d - b * c);
    let (a, b, c, d) = (d * scale, -b * scale, -c * scale, a * scale);
    [[a, b, -a * x - b * y], [c, d, -c * x - d * y]]
}

/// The colour at a place in units of 1/32 pixel.
fn interpolated(image: &RgbImage, x: i64, y: i64) -> Rgb<u8> {
    let (column, row) = (x.div_euclid(STEPS), y.div_euclid(STEPS));
    let (right, lower) = (x.rem_euclid(STEPS), y.rem_euclid(STEPS));
    let mut sums = [0_i64; 3];
    for (row, down) in [(row, STEPS - lower), (row + 1, lower)] {
        for (column, across) in [(column, STEPS - right), (column + 1, right)] {
            let place = [column, row].map(|at| u32::try_from(at).unwrap_or(u32::MAX));
            if let Some(pixel) = image.get_pixel_checked(place[0], place[1]) {
                for (sum, value) in sums.iter_mut().zip(pixel.0) {
                    *sum += i64::from(value) * down * across;
                }
            }
        }
    }
    let all = STEPS * STEPS;
    Rgb(sums.map(|sum| ((sum + all / 2) / all) as u8))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::image_processor::load_image;

    use super::*;

    /// The picture of `generate_fixtures/alignment.py`.
    fn picture() -> RgbImage {
        RgbImage::from_fn(90, 120, |x, y| {
            let level = |c: u32| ((x * 3 + y * 2 + c * 40 + (x * y) % 31 * 4) % 256) as u8;
            Rgb([level(0), level(1), level(2)])
        })
    }

    #[test]
    fn faces_are_aligned_as_by_opencv() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/alignment");
        let cases: [(&str, Landmarks); 3] = [
            (
                "upright",
                [
                    [50.0, 60.0],
                    [85.0, 58.0],
                    [69.0, 80.0],
                    [54.0, 101.0],
                    [83.0, 99.0],
                ],
            ),
            (
                "turned",
                [
                    [60.0, 30.0],
                    [71.0, 58.0],
                    [50.0, 52.0],
                    [33.0, 44.0],
                    [42.0, 71.0],
                ],
            ),
            (
                "at-the-rim",
                [
                    [5.5, 12.25],
                    [30.75, 10.0],
                    [18.0, 25.5],
                    [8.0, 40.125],
                    [29.0, 39.0],
                ],
            ),
        ];
        for (name, landmarks) in cases {
            let theirs = load_image(&folder.join(format!("{name}.png"))).expect("a fixture");
            let ours = aligned_face(&picture(), &landmarks);
            assert_eq!(ours.dimensions(), theirs.dimensions());
            for (ours, theirs) in ours.as_raw().iter().zip(theirs.as_raw()) {
                assert!(ours.abs_diff(*theirs) <= 1, "{name}");
            }
        }
    }

    #[test]
    fn the_other_warp_of_opencv_gives_the_same_but_for_steps_of_interpolation() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/alignment");
        // The means of the points of the eyes in photo/landmarks.csv, and its points 31, 49 and 55.
        let table = std::fs::read_to_string(folder.join("photo/landmarks.csv")).expect("a file");
        let row = table.lines().nth(1).expect("a row").split(',').skip(1);
        let row: Vec<f64> = row.map(|value| value.parse().expect("a number")).collect();
        let mean = |points: std::ops::Range<usize>| {
            let of = |axis: usize| points.clone().map(|n| row[2 * n + axis]).sum::<f64>();
            [of(0), of(1)].map(|sum| sum / points.len() as f64)
        };
        let point = |n: usize| mean(n..n + 1);
        let five = [mean(36..42), mean(42..48), point(30), point(48), point(54)];
        let theirs = load_image(&folder.join("face2diffusion.png")).expect("a fixture");
        let ours = aligned_face(&picture(), &five);
        assert_eq!(
            picture(),
            load_image(&folder.join("photo/0.png")).expect("a photo")
        );
        let pairs = ours.as_raw().iter().zip(theirs.as_raw());
        let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
        // The steps are 1/32 pixel, and 255 levels are the highest edge.
        assert!(differences.iter().all(|levels| *levels <= 8));
        let more = differences.iter().filter(|levels| **levels > 1).count();
        assert!(more * 50 < differences.len(), "{more}");
    }

    #[test]
    fn a_similarity_takes_points_to_where_a_similarity_took_them() {
        let moved = TEMPLATE.map(|[x, y]| [1.5 * y - 7.0, -1.5 * x + 3.0]);
        let [[a, b, x], [c, d, y]] = similarity(&TEMPLATE, &moved);
        for (found, expected) in [(a, 0.0), (b, 1.5), (x, -7.0), (c, -1.5), (d, 0.0), (y, 3.0)] {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        assert!(coincide(&[[3.0, 4.0]; 5]) && !coincide(&TEMPLATE));
    }
}
