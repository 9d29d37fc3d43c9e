//! The features of an image, and which of them some metrics need.

use std::collections::{BTreeMap, BTreeSet};

use crate::masks::Outline;
use crate::metrics::{FaceInput, Feature, Metric, Reading, Region};
use crate::protocol::{Blank, Protocol};

/// The features of a text by encoder.
pub type TextFeatures = BTreeMap<&'static str, Feature>;

/// The features of one image.
#[derive(Debug, Clone, Default)]
pub struct ImageFeatures {
    pub(super) by_reading: BTreeMap<Reading, Feature>,
    /// Whether its mask has no foreground.
    pub empty_mask: bool,
    /// Whether a metric reads faces and none was found in it.
    pub no_face: bool,
    /// How much of it its mask shows, and where; none where no mask is needed.
    pub outline: Option<Outline>,
    /// Whether all of it is black; false where no protocol depends on it.
    pub is_black: bool,
}

impl ImageFeatures {
    /// The feature that a metric reads under a protocol, where it was computed.
    pub fn of(&self, metric: Metric, protocol: &Protocol) -> Option<&Feature> {
        self.by_reading.get(&metric.reading(protocol.masked))
    }

    /// The same with one more feature.
    #[must_use]
    pub fn with(mut self, reading: Reading, feature: Feature) -> Self {
        self.by_reading.insert(reading, feature);
        self
    }
}

/// What a protocol needs to know of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The features.
    pub readings: BTreeSet<Reading>,
    /// Whether an image is all black.
    pub blackness: bool,
    /// How faces are found, where they are read.
    pub face_input: Option<FaceInput>,
}

impl Needs {
    /// The needs of some metrics and protocols for generated images.
    pub fn of_images(metrics: &[Metric], protocols: &[&Protocol]) -> Self {
        let blank_left_out = |protocol: &&Protocol| protocol.blank == Blank::LeftOut;
        Self {
            readings: readings(metrics.iter(), protocols),
            blackness: protocols.iter().any(blank_left_out),
            face_input: None,
        }
    }

    /// The same for photos, which only some metrics read.
    pub fn of_photos(metrics: &[Metric], protocols: &[&Protocol]) -> Self {
        let metrics = metrics.iter().filter(|metric| metric.reads_photos());
        Self {
            readings: readings(metrics, protocols),
            ..Self::default()
        }
    }

    /// The same for images of the base model, which only some metrics read.
    pub fn of_base_images(metrics: &[Metric], protocols: &[&Protocol]) -> Self {
        let metrics = metrics.iter().filter(|metric| metric.reads_base_image());
        Self {
            readings: readings(metrics, protocols),
            ..Self::default()
        }
    }

    /// The same where faces are found like this.
    #[must_use]
    pub fn with_faces(self, face_input: Option<FaceInput>) -> Self {
        Self { face_input, ..self }
    }

    /// Whether masks are needed: for foregrounds, or to know which images show a face.
    pub fn masks(&self) -> bool {
        self.read(Region::Foreground) || self.finds_faces(FaceInput::WholeImage)
    }

    /// Whether faces are read that are found in this way.
    pub fn finds_faces(&self, by: FaceInput) -> bool {
        self.face_input == Some(by) && self.read(Region::Face)
    }

    fn read(&self, region: Region) -> bool {
        self.readings.iter().any(|of| of.region == region)
    }
}

fn readings<'a>(
    metrics: impl Iterator<Item = &'a Metric> + Clone,
    protocols: &[&Protocol],
) -> BTreeSet<Reading> {
    let protocols = protocols.iter();
    protocols
        .flat_map(|protocol| {
            let metrics = metrics.clone();
            metrics.map(|metric| metric.reading(protocol.masked))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_protocol_needs_whole_images_for_the_text_only() {
        let core = Protocol::named("core").expect("a protocol");
        let measured = ["clip_t", "clip_i", "dino"].map(Metric::named);
        let measured = measured.map(|metric| metric.expect("a metric of that column"));
        let needs = Needs::of_images(&measured, &[core]);
        let whole = needs.readings.iter().filter(|r| r.region == Region::Whole);
        let whole: Vec<&str> = whole.map(|reading| reading.encoder).collect();
        assert_eq!(whole, ["clip"]);
        assert!(needs.masks() && !needs.blackness);
        let photos = Needs::of_photos(Metric::ALL, &[core]);
        assert!(photos.readings.iter().all(|r| r.region != Region::Whole));
    }

    #[test]
    fn base_images_are_read_whole_and_by_the_metrics_that_compare_with_them_alone() {
        let core = Protocol::named("core").expect("a protocol");
        let needs = Needs::of_base_images(Metric::ALL, &[core]);
        let read = needs.readings.iter();
        let read: Vec<_> = read.map(|r| (r.encoder, r.region)).collect();
        assert_eq!(read, [("clip", Region::Whole), ("dino", Region::Whole)]);
        let paper = [Metric::named("dino").expect("a metric of that column")];
        assert_eq!(Needs::of_base_images(&paper, &[core]), Needs::default());
    }

    #[test]
    fn several_protocols_share_what_they_read_alike() {
        let [dreambooth, oft] =
            ["dreambooth", "oft"].map(|name| Protocol::named(name).expect("a protocol"));
        let both = Needs::of_images(Metric::ALL, &[dreambooth, oft]);
        let one = Needs::of_images(Metric::ALL, &[dreambooth]);
        assert_eq!(both.readings, one.readings);
        assert!(both.blackness && !one.blackness && !both.masks());
    }
}
