//! The separate parts of a mask.

use image::GrayImage;

/// How much of its largest part another part of a mask must have to be large, too.
const LARGE: usize = 3;

/// How many parts of a mask, which do not touch each other, are at least a third of its largest.
pub fn large_parts(mask: &GrayImage) -> usize {
    let width = mask.width() as usize;
    let mut open: Vec<bool> = mask.as_raw().iter().map(|value| *value > 0).collect();
    let mut sizes = Vec::new();
    for start in 0..open.len() {
        let mut size = 0;
        let mut places = vec![start];
        while let Some(place) = places.pop() {
            if !std::mem::take(&mut open[place]) {
                continue;
            }
            size += 1;
            let column = place % width;
            places.extend((column > 0).then(|| place - 1));
            places.extend((column + 1 < width).then_some(place + 1));
            places.extend(place.checked_sub(width));
            places.extend(Some(place + width).filter(|place| *place < open.len()));
        }
        sizes.push(size);
    }
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let is_large = |size: &&usize| **size > 0 && **size * LARGE >= largest;
    sizes.iter().filter(is_large).count()
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma};

    use super::large_parts;

    fn mask(rows: &[&str]) -> GrayImage {
        let size = [rows[0].len(), rows.len()].map(|side| side as u32);
        GrayImage::from_fn(size[0], size[1], |x, y| {
            let white = rows[y as usize].as_bytes()[x as usize] == b'#';
            Luma([if white { 255 } else { 0 }])
        })
    }

    #[test]
    fn parts_that_do_not_touch_are_counted_and_specks_are_not() {
        for (rows, count) in [
            (["....", "....", "...."], 0),
            (["##..", "###.", ".##."], 1),
            (["##.#", "##.#", "#..."], 2),
            (["#..#", "##..", "##.."], 1),
            // Corners do not touch.
            (["#...", ".#..", "..#."], 3),
        ] {
            assert_eq!(large_parts(&mask(&rows)), count, "{rows:?}");
        }
    }
}
