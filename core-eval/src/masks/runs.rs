//! Masks in few bytes: the lengths of runs of black and white, row by row.

use image::{GrayImage, Luma};

/// Width, height and the lengths of runs, black first, as 32-bit numbers. Whatever is not black
/// counts as white.
pub fn to_runs(mask: &GrayImage) -> Vec<u8> {
    let mut runs = vec![mask.width(), mask.height()];
    let (mut white, mut length) = (false, 0);
    for Luma([value]) in mask.pixels() {
        if (*value > 0) != white {
            runs.push(length);
            (white, length) = (!white, 0);
        }
        length += 1;
    }
    runs.push(length);
    runs.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The mask of such bytes; none of other bytes.
pub fn from_runs(bytes: &[u8]) -> Option<GrayImage> {
    let (numbers, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    let mut numbers = numbers.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let (width, height) = (numbers.next()?, numbers.next()?);
    let pixels = usize::try_from(u64::from(width) * u64::from(height)).ok()?;
    let mut values = Vec::new();
    for (index, length) in numbers.enumerate() {
        let end = values.len().checked_add(length as usize)?;
        if end > pixels {
            return None;
        }
        values.resize(end, if index % 2 == 0 { 0 } else { 255 });
    }
    GrayImage::from_raw(width, height, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_survive_and_other_bytes_are_refused() {
        for pixels in [
            vec![0; 6],
            vec![255; 6],
            vec![0, 0, 255, 255, 255, 0],
            vec![255, 0, 255, 0, 255, 0],
        ] {
            let mask = GrayImage::from_raw(3, 2, pixels).expect("six pixels");
            let runs = to_runs(&mask);
            assert_eq!(from_runs(&runs), Some(mask));
            assert_eq!(from_runs(&runs[1..]), None);
            assert_eq!(from_runs(&runs[..runs.len() - 4]), None);
            assert_eq!(from_runs(&[runs, vec![1, 0, 0, 0]].concat()), None);
        }
        assert_eq!(from_runs(&[]), None);
        let empty = GrayImage::new(0, 0);
        assert_eq!(from_runs(&to_runs(&empty)), Some(empty));
    }
}
