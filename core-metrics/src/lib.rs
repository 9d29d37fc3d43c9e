//! The scores of an image: one file per metric, and the table that names them.
//!
//! The crate compares features of images and texts, and knows no experiment, protocol or results
//! file: training scores its validation images by it, and `core-eval` everything else.
//!
//! A metric of your own is one file with a [`Definition`] (and an [`EncoderKind`] where it has a
//! network of its own), its `mod`, and its line in the table. Its column then stands in
//! `scores.csv`, `summary.csv` and `checks.csv`, its title in tables and plots, and the folder of
//! its network is a key below `[evaluation]` and a flag of `core-eval score`.

mod clip;
mod clip_direction;
mod clip_i;
mod clip_t;
mod dino;
mod dinov2;
mod drift;
mod encoder;
mod folders;
mod identity;
mod iresnet;
mod siglip;
mod siglip_i;
mod siglip_t;

use std::ops::{Index, IndexMut};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use encoder::{EncoderKind, FaceInput, Feature, ImageEncoder, cosine, direction, dot};
pub use folders::EncoderFolders;

/// The definition of a metric.
pub trait Definition: Sync {
    /// Its name in tables and plots.
    fn title(&self) -> &'static str;

    /// The network whose features it compares.
    fn encoder(&self) -> &'static EncoderKind;

    /// What an image is compared with.
    fn compared_with(&self) -> Compared;

    /// Which part of an image, and of a photo, it reads.
    fn region(&self) -> Region;

    /// The similarity of an image to its text, to a photo or to its base image, before the protocol
    /// scales it; of two directions for [`Compared::Direction`].
    fn similarity(&self, image: &[f32], other: &[f32]) -> f64 {
        cosine(image, other)
    }

    /// Whether it distinguishes one thing from another of its kind. The first such metric measures how much
    /// images differ, and whether one is a copy of a photo.
    fn tells_instances_apart(&self) -> bool {
        false
    }

    /// Whether the second table of `table.md` shows its lowest prompt; `checks.csv` always does.
    fn worst_prompt_in_table(&self) -> bool {
        true
    }
}

/// What an image is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The text of its prompt.
    Text,
    /// The photos of its concept.
    Photos,
    /// The base model's image for the same prompt from the same noise.
    BaseImage,
    /// The step from the base model's image to the image, with the step from the base prompt to its
    /// text.
    Direction,
}

/// Which part of an image an encoder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// All of it, under every protocol.
    Whole,
    /// What its mask shows, on black, under masked protocols; all of it under others.
    Foreground,
    /// A face, under every protocol. Images without a face have no score.
    Face,
}

/// The features that a metric reads under a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// The key of the encoder.
    pub encoder: &'static str,
    /// The part of the image, whatever the protocol.
    pub region: Region,
}

/// From one line per metric to the enum that files name by column.
macro_rules! metrics {
    ($($module:ident :: $name:ident => $column:literal),+ $(,)?) => {
        /// A metric, named in files by its column.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        pub enum Metric {
            $(
                #[doc = concat!("The column `", $column, "`.")]
                #[serde(rename = $column)]
                $name,
            )+
        }

        impl Metric {
            /// Every metric, in the order of columns.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its column in CSV files.
            pub fn column(self) -> &'static str {
                match self { $(Self::$name => $column),+ }
            }

            /// Its definition.
            pub fn definition(self) -> &'static dyn Definition {
                match self { $(Self::$name => &$module::$name),+ }
            }
        }
    };
}

metrics! {
    clip_t::ClipT => "clip_t",
    clip_i::ClipI => "clip_i",
    dino::Dino => "dino",
    dinov2::DinoV2 => "dinov2",
    identity::Identity => "identity",
    siglip_t::SiglipT => "siglip_t",
    siglip_i::SiglipI => "siglip_i",
    drift::Drift => "drift",
    clip_direction::ClipDirection => "clip_direction",
}

impl Metric {
    /// The metric of a column.
    pub fn named(column: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|metric| metric.column() == column)
    }

    /// All columns, for messages.
    pub fn columns() -> String {
        let columns: Vec<&str> = Self::ALL.iter().map(|metric| metric.column()).collect();
        columns.join(", ")
    }

    /// Its name in tables and plots.
    pub fn title(self) -> &'static str {
        self.definition().title()
    }

    /// What it compares an image with.
    pub fn compared_with(self) -> Compared {
        self.definition().compared_with()
    }

    /// Whether it compares an image with the photos of its concept.
    pub fn reads_photos(self) -> bool {
        self.compared_with() == Compared::Photos
    }

    /// Whether images without a face have no score.
    pub fn reads_faces(self) -> bool {
        self.definition().region() == Region::Face
    }

    /// Whether it needs the feature of an image's text.
    pub fn reads_text(self) -> bool {
        matches!(self.compared_with(), Compared::Text | Compared::Direction)
    }

    /// Whether it needs the image of the base model.
    pub fn reads_base_image(self) -> bool {
        matches!(
            self.compared_with(),
            Compared::BaseImage | Compared::Direction
        )
    }

    /// The features that it reads under a protocol that compares foregrounds, or does not.
    pub fn reading(self, masked: bool) -> Reading {
        let region = match (self.definition().region(), masked) {
            (Region::Foreground, false) => Region::Whole,
            (region, _) => region,
        };
        Reading {
            encoder: self.definition().encoder().key,
            region,
        }
    }

    /// The first of these metrics that distinguishes one thing from another of its kind.
    pub fn of_instances(metrics: &[Self]) -> Option<Self> {
        let mut metrics = metrics.iter().copied();
        metrics.find(|metric| metric.definition().tells_instances_apart())
    }

    /// The titles of the metrics that read photos, as in a sentence.
    pub fn photo_titles(metrics: &[Self]) -> String {
        let metrics = metrics.iter().filter(|metric| metric.reads_photos());
        let titles: Vec<&str> = metrics.map(|metric| metric.title()).collect();
        match titles.as_slice() {
            [] => "no metric".to_string(),
            [one] => (*one).to_string(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }
}

/// The scores of one image by metric; none where the protocol leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores([Option<f64>; Metric::ALL.len()]);

impl Index<Metric> for Scores {
    type Output = Option<f64>;

    fn index(&self, metric: Metric) -> &Option<f64> {
        &self.0[metric as usize]
    }
}

impl IndexMut<Metric> for Scores {
    fn index_mut(&mut self, metric: Metric) -> &mut Option<f64> {
        &mut self.0[metric as usize]
    }
}

/// Scores of some metrics; the others have none.
impl FromIterator<(Metric, Option<f64>)> for Scores {
    fn from_iter<T: IntoIterator<Item = (Metric, Option<f64>)>>(values: T) -> Self {
        let mut scores = Self::default();
        for (metric, value) in values {
            scores[metric] = value;
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_column_and_no_two_share_one() {
        for (index, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!(Metric::named(metric.column()), Some(*metric));
            assert_eq!(*metric as usize, index);
        }
        assert_eq!(Metric::named("clip"), None);
    }

    #[test]
    fn prompts_are_compared_with_whole_images_and_photos_with_what_the_protocol_shows() {
        for metric in Metric::ALL.iter().filter(|metric| !metric.reads_faces()) {
            let [plain, masked] = [false, true].map(|masked| metric.reading(masked).region);
            assert_eq!(plain, Region::Whole);
            let shown = match metric.reads_photos() {
                true => metric.definition().region(),
                false => Region::Whole,
            };
            assert_eq!(masked, shown, "{}", metric.title());
        }
    }

    #[test]
    fn faces_are_read_whatever_the_protocol_shows() {
        let identity = Metric::named("identity").expect("a metric of that column");
        for masked in [false, true] {
            assert_eq!(identity.reading(masked).region, Region::Face);
        }
    }

    #[test]
    fn scores_are_read_by_metric() {
        let (first, last) = (Metric::ALL[0], Metric::ALL[Metric::ALL.len() - 1]);
        let scores: Scores = [(last, Some(0.5))].into_iter().collect();
        assert_eq!((scores[first], scores[last]), (None, Some(0.5)));
    }
}
