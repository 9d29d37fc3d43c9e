//! Scores of validation images, as under the protocol `dreambooth`: prompts are read with the class word
//! in the place of the concept, and every image is compared with every photo.

use burn::tensor::Device;
use core_metrics::{Compared, EncoderKind, Feature, ImageEncoder, Metric};
use core_model::source::EncoderSource;
use image::RgbImage;

use crate::config::{ConceptConfig, ValidationConfig};
use crate::data::photos::read_references;
use crate::error::{Error, Result};

/// The image encoders, and their features of what does not change.
pub(super) struct Scorer {
    encoders: Vec<Reader>,
}

/// An image encoder and what its metrics compare images with.
struct Reader {
    kind: &'static EncoderKind,
    encoder: Box<dyn ImageEncoder>,
    metrics: Vec<Metric>,
    photos: Vec<Feature>,
    /// Of every validation prompt.
    texts: Vec<Feature>,
}

impl Scorer {
    /// Loads the encoders and reads photos and prompts.
    ///
    /// # Errors
    /// [`Error::Encoder`] naming the key of an encoder that cannot be loaded; photos that cannot be
    /// read.
    pub(super) fn new(
        concept: &ConceptConfig,
        validation: &ValidationConfig,
        device: &Device,
    ) -> Result<Self> {
        let photos = read_references(concept)?;
        let prompts = validation.prompts.iter();
        let texts: Vec<String> = prompts
            .map(|prompt| prompt.replace("{}", &concept.super_category))
            .collect();
        let mut encoders = Vec::new();
        for kind in EncoderKind::all() {
            let Some(folder) = validation.encoders.get(kind.key) else {
                continue;
            };
            let folder = EncoderSource::from(folder.as_path()).locate()?;
            let loaded = (kind.load)(folder.path(), device);
            let metrics = validation.metrics();
            let mut reader = Reader {
                encoder: loaded.map_err(|error| refused(kind, &error))?,
                metrics: metrics
                    .filter(|m| m.definition().encoder().key == kind.key)
                    .collect(),
                kind,
                photos: Vec::new(),
                texts: Vec::new(),
            };
            if reader.compares(Compared::Photos) {
                reader.photos = photos
                    .iter()
                    .map(|photo| reader.feature(photo))
                    .collect::<Result<_>>()?;
            }
            if reader.compares(Compared::Text) {
                reader.texts = texts
                    .iter()
                    .map(|text| reader.text(text))
                    .collect::<Result<_>>()?;
            }
            encoders.push(reader);
        }
        Ok(Self { encoders })
    }

    /// The mean of every metric over the images, one for each validation prompt, in the order of
    /// columns.
    ///
    /// # Errors
    /// [`Error::Encoder`] for an image that an encoder refuses, and for a score that is NaN.
    pub(super) fn scores(&self, images: &[(String, RgbImage)]) -> Result<Vec<(&'static str, f64)>> {
        let mut means: Vec<(Metric, f64)> = Vec::new();
        for reader in &self.encoders {
            let features = images.iter().map(|(_, image)| reader.feature(image));
            let features: Vec<Feature> = features.collect::<Result<_>>()?;
            for metric in &reader.metrics {
                means.push((*metric, reader.mean(*metric, &features)?));
            }
        }
        means.sort_by_key(|(metric, _)| *metric);
        let columns = means
            .into_iter()
            .map(|(metric, mean)| (metric.column(), mean));
        Ok(columns.collect())
    }
}

impl Reader {
    fn compares(&self, with: Compared) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.any(|metric| metric.definition().compared_with() == with)
    }

    fn feature(&self, image: &RgbImage) -> Result<Feature> {
        let features = self.encoder.image_features(std::slice::from_ref(image));
        let features = features.map_err(|error| refused(self.kind, &error))?;
        Ok(features.concat())
    }

    fn text(&self, text: &str) -> Result<Feature> {
        let feature = self.encoder.text_feature(text);
        feature.map_err(|error| refused(self.kind, &error))
    }

    /// The mean over images, each compared with the text of its prompt or with all photos.
    fn mean(&self, metric: Metric, images: &[Feature]) -> Result<f64> {
        let definition = metric.definition();
        let score = |(image, text): (&Feature, usize)| {
            let others = match metric.reads_photos() {
                true => &self.photos[..],
                false => std::slice::from_ref(&self.texts[text]),
            };
            let similarities = others
                .iter()
                .map(|other| definition.similarity(image, other));
            similarities.sum::<f64>() / others.len() as f64
        };
        let scores = images.iter().zip(0..).map(score);
        let mean = scores.sum::<f64>() / images.len() as f64;
        if mean.is_finite() {
            return Ok(mean);
        }
        let reason = format!(
            "gives {mean} as {}; its weights are damaged",
            metric.title()
        );
        Err(refused(self.kind, &anyhow::Error::msg(reason)))
    }
}

fn refused(kind: &EncoderKind, error: &anyhow::Error) -> Error {
    Error::Encoder {
        key: format!("validation.encoders.{}", kind.key),
        reason: format!("{error:#}"),
    }
}
