//! The scores of images in their order.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use core_train::data::landmarks::LandmarkFile;
use core_train::progress::Progress;

use super::concepts::{ConceptPhotos, Concepts};
use super::items::Item;
use super::table::ImageScores;
use core_eval::gallery::{BATCH, Gallery, ImageFeatures, ImageFile, MaskSource, Needs};
use core_eval::metrics::{Metric, Scores};
use core_eval::protocol::{Protocol, is_unrelated};
use core_eval::scoring::{BaseImage, Others, Place, lacks_face, scores};

/// Everything that the scores of images depend on.
pub(super) struct Scoring<'a> {
    pub(super) gallery: &'a mut Gallery,
    pub(super) metrics: &'a [Metric],
    pub(super) protocol: &'a Protocol,
    pub(super) concepts: &'a Concepts,
    pub(super) photos: &'a BTreeMap<String, ConceptPhotos>,
    /// Where the faces of the images are, where a metric reads them aligned.
    pub(super) landmarks: Option<&'a LandmarkFile>,
    /// The prompt of the base model's images, where a metric reads it.
    pub(super) base_prompt: Option<&'a str>,
}

impl Scoring<'_> {
    /// Appends the scores of the images in their order; those before an error are kept.
    pub(super) fn score(
        &mut self,
        items: &[Item],
        texts: &[String],
        all: &mut Vec<ImageScores>,
    ) -> Result<()> {
        let mut progress = Progress::new("images", 0, items.len() as u64);
        let mut places = Places::default();
        let needs = Needs::of_images(self.metrics, &[self.protocol]);
        let needs = needs.with_faces(self.gallery.face_input());
        for (batch, texts) in items.chunks(BATCH).zip(texts.chunks(BATCH)) {
            let files: Vec<ImageFile> = batch.iter().map(|item| self.file(item)).collect();
            let features = self.gallery.features(&files, &needs)?;
            let base = self.base_images(batch)?;
            for (index, (item, text)) in batch.iter().zip(texts).enumerate() {
                let (image, place) = (&features[index], places.next(item));
                let scores = self.score_one(item, text, image, base.get(index), place);
                let scores = scores.with_context(|| format!("image `{}`", item.name))?;
                all.push(ImageScores {
                    scores,
                    lacks_face: lacks_face(self.protocol, image, place),
                });
                progress.advance("");
            }
        }
        progress.finish();
        Ok(())
    }

    fn score_one(
        &mut self,
        item: &Item,
        text: &str,
        features: &ImageFeatures,
        base: Option<&ImageFeatures>,
        place: Place<'_>,
    ) -> Result<Scores> {
        let text = self.gallery.text_features(text, self.metrics)?;
        let base_text = match (base, self.base_prompt) {
            (Some(_), Some(prompt)) => {
                let text = self.concepts.base_text(prompt, &item.concept)?;
                Some(self.gallery.text_features(&text, self.metrics)?)
            }
            _ => None,
        };
        let others = Others {
            text: &text,
            photos: self.photos.get(&item.concept).map(|of| &of.compared[..]),
            base: base.map(|features| BaseImage {
                features,
                text: base_text.as_ref(),
                unrelated: is_unrelated(&item.kind) || !item.prompt.contains("{}"),
            }),
        };
        scores(self.protocol, self.metrics, features, place, others)
    }

    /// The features of the base model's images; none where no metric reads them.
    fn base_images(&mut self, batch: &[Item]) -> Result<Vec<ImageFeatures>> {
        let needs = Needs::of_base_images(self.metrics, &[self.protocol]);
        if needs.readings.is_empty() {
            return Ok(Vec::new());
        }
        let files = batch.iter().filter_map(|item| item.base.clone());
        let files = files.map(ImageFile::from);
        self.gallery.features(&files.collect::<Vec<_>>(), &needs)
    }

    /// The image with the source of its mask: a file where the item names one, or else the segmenter.
    fn file(&self, item: &Item) -> ImageFile {
        let word = || self.concepts.class_word(&item.concept);
        let mask = match &item.mask {
            Some(mask) => Some(MaskSource::File(mask.clone())),
            None => word().map(|word| MaskSource::Word(word.to_string())),
        };
        ImageFile {
            path: item.path.clone(),
            mask,
            landmarks: self.landmarks.and_then(|file| file.of(&item.name)),
        }
    }
}

/// Counts images within concepts and prompts.
#[derive(Default)]
struct Places<'a> {
    of_concept: BTreeMap<&'a str, usize>,
    of_prompt: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> Places<'a> {
    fn next(&mut self, item: &'a Item) -> Place<'a> {
        let count = |counter: &mut usize| {
            *counter += 1;
            *counter - 1
        };
        let prompt = (item.concept.as_str(), item.prompt.as_str());
        Place {
            index: count(self.of_concept.entry(&item.concept).or_default()),
            number: count(self.of_prompt.entry(prompt).or_default()),
            kind: &item.kind,
        }
    }
}
