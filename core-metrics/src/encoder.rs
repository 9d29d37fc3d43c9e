//! Image encoders: networks that give features of images, and some also of texts.

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::{Device, Tensor};
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use image::RgbImage;

use crate::Metric;

/// A feature vector of length 1.
pub type Feature = Vec<f32>;

/// A kind of image encoder: what its folder is called, and how the folder is opened.
pub struct EncoderKind {
    /// The key below `[evaluation]` and in `protocol.json`, and the flag of `core-eval score`.
    pub key: &'static str,
    /// Its name in messages.
    pub title: &'static str,
    /// What its folder holds, in words.
    pub folder: &'static str,
    /// Whether every evaluation must name its folder; the metrics of others run where it is named.
    pub required: bool,
    /// Of an encoder that reads faces, how it is given them.
    pub face_input: Option<fn(&Path) -> Result<FaceInput>>,
    /// Refuses a folder that cannot be loaded, by configuration and headers alone.
    pub check: fn(&Path) -> Result<()>,
    /// Loads it from its folder.
    pub load: fn(&Path, &Device) -> Result<Box<dyn ImageEncoder>>,
}

/// How an encoder that reads faces is given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaceInput {
    /// As whole images. Where the mask of the class word has no foreground, there is no face.
    WholeImage,
    /// Aligned by landmarks. An image without them has no face.
    Aligned,
}

impl EncoderKind {
    /// The encoders of all metrics, each once.
    pub fn all() -> Vec<&'static Self> {
        let mut kinds: Vec<&Self> = Vec::new();
        for metric in Metric::ALL {
            let kind = metric.definition().encoder();
            if kinds.iter().all(|other| other.key != kind.key) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Whether it reads faces.
    pub fn reads_faces(&self) -> bool {
        self.face_input.is_some()
    }
}

impl fmt::Debug for EncoderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncoderKind")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A loaded encoder with its preprocessing.
pub trait ImageEncoder: Send + Sync {
    /// Height and width of the images that the network is given, in pixels.
    fn input_size(&self) -> [usize; 2];

    /// The features of some images, read as one batch.
    ///
    /// # Errors
    /// An image that the preprocessing refuses.
    fn image_features(&self, images: &[RgbImage]) -> Result<Vec<Feature>>;

    /// The feature of a text, cut to the context length.
    ///
    /// # Errors
    /// The network reads no texts.
    fn text_feature(&self, _text: &str) -> Result<Feature> {
        bail!("this encoder reads images only, so no metric can compare its features with a text")
    }
}

/// The features of images that `network` gives for preprocessed pixels.
///
/// # Errors
/// An image that the processor refuses.
pub(crate) fn image_features(
    images: &[RgbImage],
    processor: &ImageProcessor,
    device: &Device,
    network: impl Fn(Tensor<4>) -> Tensor<2>,
) -> Result<Vec<Feature>> {
    let rows = network(processor.preprocess(images, device)?);
    let width = rows.dims()[1];
    Ok(to_vec(rows).chunks_exact(width).map(normalized).collect())
}

/// The cosine of two features of length 1; rounding never takes it above 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    dot(a, b).clamp(-1.0, 1.0)
}

/// The step from one feature to another, scaled to length 1; `None` where they are equal.
pub fn direction(from: &[f32], to: &[f32]) -> Option<Feature> {
    let step: Vec<f32> = from.iter().zip(to).map(|(from, to)| to - from).collect();
    step.iter()
        .any(|value| *value != 0.0)
        .then(|| normalized(&step))
}

/// The dot product of two vectors.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The vector scaled to length 1.
pub(crate) fn normalized(values: &[f32]) -> Feature {
    let norm = values
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt()
        .max(1e-12);
    values
        .iter()
        .map(|v| (f64::from(*v) / norm) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_has_cosine_one_with_itself_and_minus_one_with_its_opposite() {
        let a = normalized(&[3.0, 4.0]);
        assert!((cosine(&a, &a) - 1.0).abs() < 1e-7);
        let b = normalized(&[-3.0, -4.0]);
        assert!((cosine(&a, &b) + 1.0).abs() < 1e-7);
    }

    #[test]
    fn metrics_that_read_faces_are_those_of_encoders_that_do() {
        for metric in Metric::ALL {
            let encoder = metric.definition().encoder();
            assert_eq!(
                metric.reads_faces(),
                encoder.reads_faces(),
                "{}",
                metric.title()
            );
        }
    }

    #[test]
    fn a_direction_has_length_one_and_equal_features_have_none() {
        let step = direction(&[1.0, 0.0], &[4.0, 4.0]).expect("a direction");
        assert_eq!(step, [0.6, 0.8]);
        assert_eq!(direction(&[1.0, 0.5], &[1.0, 0.5]), None);
    }

    #[test]
    fn rounding_never_takes_a_cosine_above_one() {
        for seed in 1..200_u32 {
            let values: Vec<f32> = (0..64).map(|i| ((i * seed) % 97) as f32 - 41.3).collect();
            let a = normalized(&values);
            assert!((1.0 - 1e-6..=1.0).contains(&cosine(&a, &a)), "{seed}");
        }
    }

    #[test]
    fn an_encoder_that_several_metrics_read_is_one_encoder() {
        let mut keys: Vec<&str> = EncoderKind::all().iter().map(|kind| kind.key).collect();
        assert_eq!(keys[..2], ["clip", "dino"]);
        keys.dedup();
        assert_eq!(keys.len(), EncoderKind::all().len());
    }
}
