//! The scores of an experiment's images.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use core_train::config::ConceptConfig;
use core_train::progress::Progress;

use crate::experiment::Experiment;
use crate::gallery::{
    BATCH, Gallery, ImageFeatures, ImageFile, MaskSource, Needs, TextFeatures, masked_photos,
    photos,
};
use crate::images::{Wanted, wanted};
use crate::metrics::{Metric, Scores};
use crate::plan::Cell;
use crate::protocol::Protocol;
use crate::report::{ScoreRow, ScoreTable};

/// The position of an image among the others.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its index among the images of its concept.
    pub index: usize,
    /// Its index among the images of its concept and prompt.
    pub number: usize,
    /// The kind of its prompt; empty when it has none.
    pub kind: &'a str,
}

/// The scores of an image by some metrics under a protocol. Without photos, metrics that compare with
/// photos give none.
///
/// # Errors
/// A score that is NaN, because the weights of the encoder are damaged; features that were not computed.
pub fn scores(
    protocol: &Protocol,
    metrics: &[Metric],
    image: &ImageFeatures,
    place: Place<'_>,
    text: &TextFeatures,
    photos: Option<&[ImageFeatures]>,
) -> Result<Scores> {
    let mut scores = Scores::default();
    if !protocol.counts(place.number, image.is_black) {
        return Ok(scores);
    }
    let photos = photos.filter(|_| protocol.scores_identity(place.kind));
    for metric in metrics {
        let title = metric.title();
        let absent = || format!("{title}: its encoder has not read this");
        let similarity = |other: &[f32]| -> Result<f64> {
            let feature = image.of(*metric, protocol).with_context(absent)?;
            Ok(metric.definition().similarity(feature, other))
        };
        scores[*metric] = match (metric.reads_photos(), photos) {
            (false, _) => {
                let text = text.get(metric.definition().encoder().key);
                Some(protocol.text_score(similarity(text.with_context(absent)?)?))
            }
            (true, Some(photos)) => {
                let of_photo = |photo: &ImageFeatures| {
                    similarity(photo.of(*metric, protocol).with_context(absent)?)
                };
                let similarities = photos.iter().map(of_photo).collect::<Result<Vec<_>>>()?;
                Some(protocol.photo_score(&similarities, place.index))
            }
            (true, None) => None,
        };
        ensure!(
            scores[*metric].is_none_or(f64::is_finite),
            "{title} is NaN; the weights of its encoder are damaged, fetch them again"
        );
    }
    Ok(scores)
}

/// One image of the experiment.
#[derive(Debug)]
pub struct ScoredImage {
    /// The index of its cell.
    pub cell: usize,
    /// Its file and prompt.
    pub image: Wanted,
    /// Its index among all images of its cell.
    pub index: usize,
    /// Its features.
    pub features: ImageFeatures,
}

/// All images of an experiment with their features, computed once for all protocols.
#[derive(Debug)]
pub struct ScoredImages<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its cells.
    pub cells: &'a [Cell],
    /// The metrics that run.
    pub metrics: Vec<Metric>,
    /// The photos of every concept.
    pub photos: Vec<Vec<ImageFeatures>>,
    /// All images, cell by cell.
    pub images: Vec<ScoredImage>,
    texts: BTreeMap<String, TextFeatures>,
}

impl<'a> ScoredImages<'a> {
    /// Computes the features of all photos, images and prompts; those that were kept are reused.
    ///
    /// # Errors
    /// An image that cannot be read; a request to stop.
    pub fn new(
        experiment: &'a Experiment,
        cells: &'a [Cell],
        results: &Path,
        gallery: &mut Gallery,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let protocols = experiment.evaluation.protocols()?;
        let mut images = Self {
            experiment,
            cells,
            metrics: gallery.metrics(),
            photos: Vec::new(),
            images: Vec::new(),
            texts: BTreeMap::new(),
        };
        let needs = Needs::of_photos(&images.metrics, &protocols);
        for concept in &experiment.concepts {
            let photos = photo_files(concept, &protocols)?;
            images.photos.push(gallery.features(&photos, &needs)?);
        }
        let total = cells.iter().map(|cell| wanted(experiment, cell).len());
        let mut progress = Progress::new("scores", 0, total.sum::<usize>() as u64);
        for cell in 0..cells.len() {
            images.add(cell, &protocols, results, gallery, &mut |count| {
                (0..count).for_each(|_| progress.advance(""));
                match stop.load(Ordering::Relaxed) {
                    true => bail!("stopped; the same command continues from here"),
                    false => Ok(()),
                }
            })?;
            gallery.save_if_due()?;
        }
        progress.finish();
        Ok(images)
    }

    /// Adds the images of a cell; `on_batch` is told how many are done.
    fn add(
        &mut self,
        cell: usize,
        protocols: &[&Protocol],
        results: &Path,
        gallery: &mut Gallery,
        on_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let needs = Needs::of_images(&self.metrics, protocols);
        let concept = &self.experiment.concepts[self.cells[cell].concept];
        let of_cell = wanted(self.experiment, &self.cells[cell]);
        for (start, batch) in (0..).step_by(BATCH).zip(of_cell.chunks(BATCH)) {
            let word = || MaskSource::Word(concept.super_category.clone());
            let files = batch.iter().map(|image| ImageFile {
                path: results.join(&image.file),
                mask: needs.masks().then(word),
            });
            let features = gallery.features(&files.collect::<Vec<_>>(), &needs)?;
            for (index, (image, features)) in (start..).zip(batch.iter().zip(features)) {
                for protocol in protocols {
                    let text = text(protocol, &image.prompt.prompt, concept)?;
                    if let Entry::Vacant(entry) = self.texts.entry(text) {
                        let features = gallery.text_features(entry.key(), &self.metrics)?;
                        entry.insert(features);
                    }
                }
                self.images.push(ScoredImage {
                    cell,
                    image: image.clone(),
                    index,
                    features,
                });
            }
            on_batch(batch.len())?;
        }
        Ok(())
    }

    /// The rows of `scores.csv`, ordered by variant, concept, seed, prompt and image.
    ///
    /// # Errors
    /// A score that is NaN, naming the image.
    pub fn scores(&self, protocol: &Protocol) -> Result<ScoreTable> {
        let rows = self.images.iter().map(|image| self.row(protocol, image));
        Ok(ScoreTable {
            metrics: self.metrics.clone(),
            rows: rows.collect::<Result<_>>()?,
        })
    }

    fn row(&self, protocol: &Protocol, image: &ScoredImage) -> Result<ScoreRow> {
        let cell = &self.cells[image.cell];
        let concept = &self.experiment.concepts[cell.concept];
        let prompt = &image.image.prompt;
        let place = Place {
            index: image.index,
            number: image.image.image,
            kind: &prompt.kind,
        };
        let file = image.image.name();
        let scores = scores(
            protocol,
            &self.metrics,
            &image.features,
            place,
            &self.texts[&text(protocol, &prompt.prompt, concept)?],
            Some(&self.photos[cell.concept]),
        );
        Ok(ScoreRow {
            variant: self.variant(image).to_string(),
            concept: concept.name.clone(),
            seed: cell.seed,
            group: prompt.group.name().to_string(),
            kind: prompt.kind.clone(),
            prompt: prompt.prompt.clone(),
            scores: scores.with_context(|| file.clone())?,
            image: file,
        })
    }

    /// The images of a variant.
    pub fn of_variant(&self, variant: &str) -> impl Iterator<Item = &ScoredImage> {
        let images = self.images.iter();
        images.filter(move |image| self.variant(image) == variant)
    }

    /// The name of an image's variant.
    fn variant(&self, image: &ScoredImage) -> &str {
        &self.experiment.variants[self.cells[image.cell].variant].name
    }

    /// How many photos each concept has, by name.
    pub fn photo_counts(&self) -> BTreeMap<String, usize> {
        let concepts = self.experiment.concepts.iter().zip(&self.photos);
        concepts
            .map(|(concept, photos)| (concept.name.clone(), photos.len()))
            .collect()
    }
}

fn text(protocol: &Protocol, prompt: &str, concept: &ConceptConfig) -> Result<String> {
    let word = concept.placeholder_token();
    protocol.text(prompt, Some(&word), Some(&concept.super_category))
}

/// The photos of a concept, with the sources of their masks where a protocol compares foregrounds.
///
/// # Errors
/// The folder is absent or holds no photos.
pub fn photo_files(concept: &ConceptConfig, protocols: &[&Protocol]) -> Result<Vec<ImageFile>> {
    match protocols.iter().any(|protocol| protocol.masked) {
        true => masked_photos(&concept.images, None, Some(&concept.super_category)),
        false => photos(&concept.images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_nan_is_refused_by_the_name_of_its_metric() {
        let protocol = Protocol::named("dreambooth").expect("a protocol");
        let [clip_t, clip_i, dino] = ["clip_t", "clip_i", "dino"]
            .map(|column| Metric::named(column).expect("a metric of that column"));
        let features = |of_clip: f32, of_dino: f32| {
            ImageFeatures::default()
                .with(clip_t.reading(false), vec![of_clip])
                .with(dino.reading(false), vec![of_dino])
        };
        let image = features(1.0, f32::NAN);
        let photos = [features(1.0, 1.0)];
        let text = TextFeatures::from([("clip", vec![1.0])]);
        let place = Place {
            index: 0,
            number: 0,
            kind: "",
        };
        let metrics = [clip_t, clip_i, dino];
        let failed = scores(protocol, &metrics, &image, place, &text, Some(&photos));
        let message = failed.expect_err("a score is NaN").to_string();
        assert!(message.starts_with("DINO is NaN"), "{message}");
        let without = scores(protocol, &metrics, &image, place, &text, None);
        let without = without.expect("CLIP-T alone");
        assert_eq!((without[clip_t], without[dino]), (Some(1.0), None));
    }
}
