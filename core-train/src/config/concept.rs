//! `[concept]`: the thing to be learned.

use std::path::{Path, PathBuf};

use core_model::image_processor::{crop, shortest_side, squash};
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A concept: photos and the words for what they show. It stands under `[concept]` of a run, or in
/// `concept.toml` in the folder of photos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConceptConfig {
    /// The name of the concept.
    pub name: String,
    /// The folder of the photos. Default: the folder of this file.
    #[serde(default = "here")]
    pub images: PathBuf,
    /// The folder of the photos that scores compare images with, where they are not the photos that are
    /// learned from. It changes nothing of a run. Absent: the photos that are learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<PathBuf>,
    /// How photos are made square.
    #[serde(default)]
    pub resize: Resize,
    /// Whether photos are mirrored at random during training.
    #[serde(default)]
    pub flip: bool,
    /// The concept's token in prompts. Absent: the name in angle brackets, `<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder_token: Option<String>,
    /// The class of the concept, in one or more words, as `dog`.
    pub super_category: String,
    /// The word or words whose input embedding is the start of learning; of several tokens the mean
    /// is taken. Absent: the super-category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer_token: Option<String>,
    /// The kind of concept, which chooses between prompts for living beings and for things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The number of vectors that are learned. They take as many positions in a prompt. Absent: that
    /// of the recipe, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_vectors: Option<usize>,
    /// The digest of the photos of a rendered concept, which `core-train world --concepts` writes. Photos with
    /// another digest are used with a warning. It changes nothing of a run. Absent: any photos are taken.
    #[serde(default, skip_serializing)]
    pub rendered: Option<String>,
}

fn here() -> PathBuf {
    PathBuf::from(".")
}

impl ConceptConfig {
    /// The folder of the photos that scores compare images with.
    pub fn reference_photos(&self) -> &Path {
        self.references.as_deref().unwrap_or(&self.images)
    }

    /// The folders that it names.
    pub fn folders_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        std::iter::once(&mut self.images).chain(&mut self.references)
    }

    /// What stands for the concept in prompts.
    pub fn placeholder_token(&self) -> String {
        match &self.placeholder_token {
            Some(token) => token.clone(),
            None => format!("<{}>", self.name),
        }
    }

    /// The number of vectors that are learned.
    pub fn num_vectors(&self) -> usize {
        self.num_vectors.unwrap_or(1)
    }

    /// The word or words whose embedding learning starts from.
    pub fn initializer(&self) -> &str {
        self.initializer_token
            .as_deref()
            .unwrap_or(&self.super_category)
    }
}

/// How a photo becomes square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Scale the shorter side and cut out the centre.
    #[default]
    Crop,
    /// Scale both sides, which changes the proportions.
    Squash,
}

impl Resize {
    /// A photo as a square of `side` pixels.
    pub fn square(self, photo: &RgbImage, side: u32) -> RgbImage {
        match self {
            Self::Crop => crop(photo, side),
            Self::Squash => squash(photo, side),
        }
    }

    /// Where a place in a photo of some width and height, (x, y) in pixels, is in its
    /// [`square`](Self::square). The centre of the first pixel is (0, 0).
    pub fn place(self, point: [f64; 2], photo: (u32, u32), side: u32) -> [f64; 2] {
        let (width, height) = match self {
            Self::Crop => shortest_side(photo, side),
            Self::Squash => (side, side),
        };
        let moved = |at: f64, from: u32, to: u32| {
            let scaled = (at + 0.5) * f64::from(to) / f64::from(from) - 0.5;
            scaled - f64::from((to - side) / 2)
        };
        [
            moved(point[0], photo.0, width),
            moved(point[1], photo.1, height),
        ]
    }
}

/// The two kinds of concepts for which the paper has prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Animals and people, which act and wear things.
    Animate,
    /// Everything else.
    Inanimate,
}

impl Group {
    /// The name in TOML and CSV files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Animate => "animate",
            Self::Inanimate => "inanimate",
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_place_in_a_photo_is_where_its_pixels_are_in_the_square() {
        let point = [50.3, 21.6];
        let spot = |x: u32, y: u32| {
            let (x, y) = (f64::from(x) - point[0], f64::from(y) - point[1]);
            (-(x * x + y * y) / 18.0).exp()
        };
        let photo = RgbImage::from_fn(91, 60, |x, y| Rgb([(255.0 * spot(x, y)) as u8; 3]));
        for (resize, side) in [(Resize::Crop, 40), (Resize::Squash, 40), (Resize::Crop, 77)] {
            let (mut sums, mut all) = ([0.0; 2], 0.0);
            for (x, y, pixel) in resize.square(&photo, side).enumerate_pixels() {
                let level = f64::from(pixel.0[0]);
                all += level;
                sums = [
                    sums[0] + level * f64::from(x),
                    sums[1] + level * f64::from(y),
                ];
            }
            let expected = sums.map(|sum| sum / all);
            let place = resize.place(point, photo.dimensions(), side);
            for (place, expected) in place.iter().zip(expected) {
                assert!(
                    (place - expected).abs() < 0.1,
                    "{resize:?} {side}: {place} {expected}"
                );
            }
        }
    }
}
