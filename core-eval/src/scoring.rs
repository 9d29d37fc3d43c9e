//! The scores of an experiment's images.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_train::config::ConceptConfig;
use core_train::data::concept::photo_files;
use core_train::progress::Progress;

use crate::experiment::{Concept, Experiment};
use crate::foregrounds::of_photos;
use crate::images::{Wanted, wanted};
use crate::metrics::{Feature, Judges, Place, References, Seen};
use crate::pictures::load_images;
use crate::plan::Cell;
use crate::protocol::Protocol;
use crate::report::ScoreRow;

/// Images in memory at once.
const BATCH: usize = 64;

/// One image of the experiment.
pub struct SeenImage {
    /// The number of its cell.
    pub cell: usize,
    /// What it was drawn for.
    pub image: Wanted,
    /// Among all images of its cell.
    pub index: usize,
    /// As the judges see it.
    pub seen: Seen,
}

/// What the judges see, once for all protocols.
pub struct Measured<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its cells.
    pub cells: &'a [Cell],
    /// The photos of every concept.
    pub references: &'a [Option<References>],
    /// All images, cell by cell.
    pub images: Vec<SeenImage>,
    texts: BTreeMap<String, Feature>,
}

impl<'a> Measured<'a> {
    /// Looks at all images, reads all prompts.
    ///
    /// # Errors
    /// A picture that cannot be read.
    pub fn new(
        experiment: &'a Experiment,
        cells: &'a [Cell],
        protocols: &[&Protocol],
        results: &Path,
        judges: &Judges,
        references: &'a [Option<References>],
    ) -> Result<Self> {
        let with_masks = protocols.iter().any(|protocol| protocol.masked);
        let total: usize = cells
            .iter()
            .map(|cell| wanted(experiment, cell).len())
            .sum();
        let mut progress = Progress::new("scores", 0, total as u64);
        let mut texts: BTreeMap<String, Feature> = BTreeMap::new();
        let mut images = Vec::with_capacity(total);
        for (cell, of_cell) in cells.iter().enumerate() {
            let Some(concept) = &experiment.concepts[of_cell.concept].config else {
                continue;
            };
            let of_cell = wanted(experiment, of_cell);
            for (start, batch) in (0..).step_by(BATCH).zip(of_cell.chunks(BATCH)) {
                let files: Vec<PathBuf> = batch.iter().map(|i| results.join(&i.file)).collect();
                let pictures = load_images(files.iter().map(PathBuf::as_path))?;
                let masks = with_masks.then(|| {
                    let word = concept.super_category.as_str();
                    judges.masks(&pictures, &vec![word; pictures.len()])
                });
                let seen = judges.seen(&pictures, masks.transpose()?.as_deref())?;
                for (index, (image, seen)) in (start..).zip(batch.iter().zip(seen)) {
                    for protocol in protocols {
                        let text = text(protocol, &image.prompt.prompt, concept)?;
                        if let Entry::Vacant(entry) = texts.entry(text) {
                            let feature = judges.text_feature(entry.key());
                            entry.insert(feature);
                        }
                    }
                    images.push(SeenImage {
                        cell,
                        image: image.clone(),
                        index,
                        seen,
                    });
                    progress.advance("");
                }
            }
        }
        progress.finish();
        Ok(Self {
            experiment,
            cells,
            references,
            images,
            texts,
        })
    }

    /// The rows of `scores.csv`: variants slowest, then concepts, seeds, prompts, images.
    ///
    /// # Errors
    /// A score that is no number, naming the image.
    pub fn scores(&self, protocol: &Protocol) -> Result<Vec<ScoreRow>> {
        let row = |image: &SeenImage| -> Result<ScoreRow> {
            let cell = &self.cells[image.cell];
            let concept = &self.experiment.concepts[cell.concept];
            let prompt = &image.image.prompt;
            let file = image.image.name();
            let config = concept
                .config
                .as_ref()
                .context("a concept without photos")?;
            let text = &self.texts[&text(protocol, &prompt.prompt, config)?];
            let place = Place {
                index: image.index,
                number: image.image.image,
                kind: &prompt.kind,
            };
            let photos = self.references[cell.concept].as_ref();
            let scores = image
                .seen
                .scores(protocol, place, text, photos)
                .with_context(|| file.clone())?;
            Ok(ScoreRow {
                variant: self.variant(image).to_string(),
                concept: concept.name(),
                seed: cell.seed,
                group: prompt.group.name().to_string(),
                kind: prompt.kind.clone(),
                prompt: prompt.prompt.clone(),
                image: file,
                clip_t: scores.clip_t,
                clip_i: scores.clip_i,
                dino: scores.dino,
            })
        };
        self.images.iter().map(row).collect()
    }

    /// The images that a method drew.
    pub fn of_variant(&self, variant: &str) -> impl Iterator<Item = &SeenImage> {
        let images = self.images.iter();
        images.filter(move |image| self.variant(image) == variant)
    }

    /// The name of the method that drew an image.
    fn variant(&self, image: &SeenImage) -> &str {
        &self.experiment.variants[self.cells[image.cell].variant].name
    }

    /// How many photos each concept has, by name.
    pub fn photo_counts(&self) -> BTreeMap<String, usize> {
        let concepts = self.experiment.concepts.iter().zip(self.references);
        concepts
            .filter_map(|(concept, photos)| {
                Some((concept.name(), photos.as_ref()?.whole.dino.len()))
            })
            .collect()
    }
}

fn text(protocol: &Protocol, prompt: &str, concept: &ConceptConfig) -> Result<String> {
    let word = concept.placeholder_token();
    protocol.text(prompt, Some(&word), Some(&concept.super_category))
}

/// The photos of every concept, as the judges see them.
///
/// # Errors
/// A photo that cannot be read, or one without foreground under a masked protocol.
pub fn references(
    experiment: &Experiment,
    protocols: &[&Protocol],
    judges: &Judges,
) -> Result<Vec<Option<References>>> {
    let with_masks = protocols.iter().any(|protocol| protocol.masked);
    let concepts = experiment.concepts.iter();
    concepts.map(|c| photos(c, judges, with_masks)).collect()
}

fn photos(concept: &Concept, judges: &Judges, with_masks: bool) -> Result<Option<References>> {
    let Some(config) = &concept.config else {
        return Ok(None);
    };
    let files = photo_files(&config.images)?;
    let photos = load_images(files.iter().map(PathBuf::as_path))?;
    let masks = with_masks.then(|| {
        let word = Some(config.super_category.as_str());
        of_photos(&config.images, &files, &photos, None, judges, word)
    });
    let masks = masks.transpose()?;
    Ok(Some(judges.references(&photos, masks.as_deref())?))
}
