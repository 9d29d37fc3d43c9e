//! `attention.json`: for some prompts an image and the cross-attention map of every token, in every method.
//! The report page shows them.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::{read_to_string, write_atomically};
use core_model::image_processor::{Filter, encode_jpeg, resize};
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use crate::base64::base64;

/// Its name in a results folder.
pub const ATTENTION: &str = "attention.json";

/// The longest side of an image, and of a map.
const IMAGE_SIDE: u32 = 128;
const MAP_SIDE: usize = 32;
/// Images up to this side are kept without loss; the quality of others.
const LOSSLESS_SIDE: u32 = 64;
const QUALITY: f32 = 72.0;

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttentionFile {
    /// The prompts, in the order in which they were added.
    pub prompts: Vec<PromptAttention>,
}

/// One prompt in every method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptAttention {
    /// The template.
    pub prompt: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The digest of everything that determines the maps.
    pub key: String,
    /// The tokens between start and end; the concept's are one.
    pub tokens: Vec<String>,
    /// Height and width of a map.
    pub size: [usize; 2],
    /// Class word, sibling word, then the trained variants.
    pub rows: Vec<AttentionRow>,
}

/// One prompt in one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttentionRow {
    /// The variant; none for the base model.
    pub variant: Option<String>,
    /// What the row is called.
    pub name: String,
    /// The image as a `data:` address.
    pub image: String,
    /// The cosine of each token with the class word's; none for the concept.
    pub cosines: Vec<Option<f64>>,
    /// The map of each token in base64, one byte for each point, row by row: 0 for the lowest value of
    /// the token in any method, 255 for the highest.
    pub maps: Vec<String>,
}

impl AttentionFile {
    /// Reads the file of a results folder; an absent one has no prompts.
    ///
    /// # Errors
    /// A damaged file or one of another version.
    pub fn read(results: &Path) -> Result<Self> {
        let path = results.join(ATTENTION);
        if !path.exists() {
            return Ok(Self::default());
        }
        serde_json::from_str(&read_to_string(&path)?).with_context(|| {
            format!(
                "{}: not as this version writes it; remove it and run the experiment again",
                path.display()
            )
        })
    }

    /// Whether it holds what this key determines.
    pub fn holds(&self, key: &str) -> bool {
        self.prompts.iter().any(|prompt| prompt.key == key)
    }

    /// Adds a prompt in the place of what is known of the same prompt and concept, and writes the file.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn add(mut self, prompt: PromptAttention, results: &Path) -> Result<()> {
        let mut known = self.prompts.iter_mut();
        let is_same = |of: &&mut PromptAttention| {
            (&of.prompt, &of.concept, of.seed) == (&prompt.prompt, &prompt.concept, prompt.seed)
        };
        match known.find(is_same) {
            Some(known) => *known = prompt,
            None => self.prompts.push(prompt),
        }
        let text = serde_json::to_string(&self)? + "\n";
        Ok(write_atomically(&results.join(ATTENTION), text.as_bytes())?)
    }
}

/// A small version of an image as a `data:` address.
///
/// # Errors
/// An image that cannot be encoded.
pub(crate) fn data_address(image: &RgbImage) -> Result<String> {
    let longest = image.width().max(image.height());
    if longest <= LOSSLESS_SIDE {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png)?;
        let bytes = base64(&bytes.into_inner());
        return Ok(format!("data:image/png;base64,{bytes}"));
    }
    let side = longest.min(IMAGE_SIDE);
    let scaled = |length: u32| (length * side / longest).max(1);
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let small = resize(image, width, height, Filter::Bicubic);
    let bytes = base64(&encode_jpeg(&small, QUALITY)?);
    Ok(format!("data:image/jpeg;base64,{bytes}"))
}

/// The size of a map when its sides are halved until none is longer than 32.
pub(crate) fn small_size([height, width]: [usize; 2]) -> [usize; 2] {
    let mut size = [height, width];
    while size.iter().any(|side| *side > MAP_SIDE) {
        size = size.map(|side| side.div_ceil(2));
    }
    size
}

/// A map as bytes in base64, where a scale begins with 0 and ends with 255. A point of a smaller map is the
/// mean of the points that it covers.
pub(crate) fn map_text(values: &[f32], size: [usize; 2], [lowest, highest]: [f32; 2]) -> String {
    let [height, width] = size;
    let [rows, columns] = small_size(size);
    let range = (highest - lowest).max(f32::MIN_POSITIVE);
    let covered =
        |at: usize, small: usize, large: usize| at * large / small..(at + 1) * large / small;
    let byte = |at: usize| {
        let (ys, xs) = (
            covered(at / columns, rows, height),
            covered(at % columns, columns, width),
        );
        let count = (ys.len() * xs.len()) as f32;
        let points = ys.flat_map(|y| xs.clone().map(move |x| values[y * width + x]));
        let share = (points.sum::<f32>() / count - lowest) / range;
        (share.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    base64(&(0..rows * columns).map(byte).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_bytes_on_the_scale_of_its_token() {
        // 0, 127.5 rounded up, 255, and one beyond the scale.
        let text = map_text(&[0.1, 0.3, 0.5, 0.7], [2, 2], [0.1, 0.5]);
        assert_eq!(text, base64(&[0, 128, 255, 255]));
        // A token that is attended to equally everywhere has no range.
        assert_eq!(map_text(&[0.2; 4], [2, 2], [0.2, 0.2]), base64(&[0; 4]));
    }

    #[test]
    fn large_maps_are_halved_until_they_fit_and_keep_their_means() {
        assert_eq!(small_size([64, 96]), [16, 24]);
        assert_eq!(small_size([16, 16]), [16, 16]);
        let bright_half: Vec<f32> = (0..64 * 64).map(|at| (at % 64 / 32) as f32).collect();
        let expected: Vec<u8> = (0..32 * 32).map(|at| (at % 32 / 16 * 255) as u8).collect();
        assert_eq!(
            map_text(&bright_half, [64, 64], [0.0, 1.0]),
            base64(&expected)
        );
    }

    #[test]
    fn a_prompt_takes_the_place_of_what_is_known_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let prompt = |prompt: &str, key: &str| PromptAttention {
            prompt: prompt.into(),
            concept: "dog".into(),
            seed: 0,
            key: key.into(),
            tokens: vec!["a".into()],
            size: [1, 1],
            rows: Vec::new(),
        };
        let read = || AttentionFile::read(folder.path()).expect("a file");
        for (text, key) in [("a {}", "1"), ("a red {}", "2"), ("a {}", "3")] {
            read()
                .add(prompt(text, key), folder.path())
                .expect("written");
        }
        assert_eq!(
            read().prompts,
            [prompt("a {}", "3"), prompt("a red {}", "2")]
        );
        assert!(read().holds("3") && !read().holds("1"));
        std::fs::write(folder.path().join(ATTENTION), "{}").expect("written");
        let message = AttentionFile::read(folder.path()).expect_err("another version");
        assert!(message.to_string().contains("attention.json"), "{message}");
    }
}
