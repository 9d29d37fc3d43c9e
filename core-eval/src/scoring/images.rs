//! All images of an experiment with their features, and the rows of `scores.csv`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use core_train::config::ConceptConfig;
use core_train::data::landmarks::{LANDMARKS, LandmarkFile};
use core_train::progress::Progress;

use super::{BaseImage, Others, Place, scores};
use crate::experiment::Experiment;
use crate::gallery::{BATCH, Gallery, ImageFeatures, ImageFile, MaskSource, Needs, TextFeatures};
use crate::images::{Wanted, wanted};
use crate::metrics::{FaceInput, Metric};
use crate::photo_files::{learned_files, photo_files};
use crate::plan::Cell;
use crate::protocol::{Protocol, is_unrelated};
use crate::report::{ScoreRow, ScoreTable};

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

impl ScoredImage {
    /// Its position among the others.
    pub fn place(&self) -> Place<'_> {
        Place {
            index: self.index,
            number: self.image.image,
            kind: &self.image.prompt.kind,
        }
    }
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
    /// The photos of every concept that images are compared with.
    pub photos: Vec<Vec<ImageFeatures>>,
    /// The same photos after the autoencoder, and the photos that are learned from, of every concept where
    /// the two are not the same photos.
    pub beside: Vec<PhotosBeside>,
    /// All images, cell by cell.
    pub images: Vec<ScoredImage>,
    texts: BTreeMap<String, TextFeatures>,
    /// The index of the base model's image by concept, seed, prompt and number.
    bases: BTreeMap<Noise, usize>,
}

/// Photos that images are not compared with and that say how to read their scores.
#[derive(Debug, Default)]
pub struct PhotosBeside {
    /// The photos that are learned from.
    pub learned: Vec<ImageFeatures>,
    /// The photos that images are compared with, in their order, after the autoencoder.
    pub decoded: Vec<ImageFeatures>,
}

/// Where images are, and where the faces in them.
#[derive(Debug, Clone, Copy)]
struct Places<'a> {
    results: &'a Path,
    faces: Option<&'a LandmarkFile>,
}

/// What the noise of an image depends on: concept, seed, prompt and number.
type Noise = (usize, u64, usize, usize);

impl<'a> ScoredImages<'a> {
    /// Computes the features of all photos, images and prompts; those that were kept are reused. `decoded`
    /// are the files of photos after the autoencoder, for every concept.
    ///
    /// # Errors
    /// An image that cannot be read; a request to stop.
    pub fn new(
        experiment: &'a Experiment,
        cells: &'a [Cell],
        results: &Path,
        gallery: &mut Gallery,
        decoded: &[Vec<ImageFile>],
        stop: &AtomicBool,
    ) -> Result<Self> {
        let protocols = experiment.evaluation.protocols()?;
        let mut images = Self {
            experiment,
            cells,
            metrics: experiment.metrics(),
            photos: Vec::new(),
            beside: Vec::new(),
            images: Vec::new(),
            texts: BTreeMap::new(),
            bases: BTreeMap::new(),
        };
        let needs = Needs::of_photos(&images.metrics, &protocols);
        let needs = needs.with_faces(gallery.face_input());
        let faces = images.landmarks(results, &needs)?;
        for (index, concept) in experiment.concepts.iter().enumerate() {
            let photos = photo_files(concept, &needs)?;
            images.photos.push(gallery.features(&photos, &needs)?);
            let mut beside = PhotosBeside::default();
            if let Some(files) = learned_files(concept, &needs)? {
                beside.learned = gallery.features(&files, &needs)?;
            }
            if let Some(files) = decoded.get(index) {
                beside.decoded = gallery.features(files, &needs)?;
            }
            images.beside.push(beside);
        }
        let total = cells.iter().map(|cell| wanted(experiment, cell).len());
        let mut progress = Progress::new("scores", 0, total.sum::<usize>() as u64);
        for cell in 0..cells.len() {
            let places = Places {
                results,
                faces: faces.as_ref(),
            };
            images.add(cell, &protocols, places, gallery, &mut |count| {
                (0..count).for_each(|_| progress.advance(""));
                match stop.load(Ordering::Relaxed) {
                    true => bail!("stopped; the same command continues from here"),
                    false => Ok(()),
                }
            })?;
            gallery.save_if_due()?;
        }
        progress.finish();
        let all = images.images.iter().enumerate();
        let of_base = all.filter(|(_, image)| cells[image.cell].run.is_none());
        images.bases = of_base
            .map(|(index, image)| (images.noise(image), index))
            .collect();
        Ok(images)
    }

    /// Where the faces of all images are, where a metric reads them aligned: a file in the folder of results,
    /// which is written once the images are drawn.
    fn landmarks(&self, results: &Path, needs: &Needs) -> Result<Option<LandmarkFile>> {
        if !needs.finds_faces(FaceInput::Aligned) {
            return Ok(None);
        }
        let file = LandmarkFile::read(&results.join(LANDMARKS)).context(
            "all images are drawn, and where their faces are is not known; name them as in the column \
             `image` of scores.csv, by their path in the folder of results, and start again",
        )?;
        let cells = self.cells.iter();
        let names = cells.flat_map(|cell| wanted(self.experiment, cell));
        let names: Vec<String> = names.map(|image| image.name()).collect();
        file.check_names(names.iter().map(String::as_str))?;
        Ok(Some(file))
    }

    /// Adds the images of a cell; `on_batch` is told how many are done.
    fn add(
        &mut self,
        cell: usize,
        protocols: &[&Protocol],
        Places { results, faces }: Places<'_>,
        gallery: &mut Gallery,
        on_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let needs = Needs::of_images(&self.metrics, protocols);
        let needs = needs.with_faces(gallery.face_input());
        let concept = &self.experiment.concepts[self.cells[cell].concept];
        let of_cell = wanted(self.experiment, &self.cells[cell]);
        for (start, batch) in (0..).step_by(BATCH).zip(of_cell.chunks(BATCH)) {
            let word = || MaskSource::Word(concept.super_category.clone());
            let files = batch.iter().map(|image| ImageFile {
                path: results.join(&image.file),
                mask: needs.masks().then(word),
                landmarks: faces.and_then(|file| file.of(&image.name())),
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
        let place = image.place();
        let file = image.image.name();
        let others = Others {
            text: &self.texts[&text(protocol, &prompt.prompt, concept)?],
            photos: Some(&self.photos[cell.concept]),
            base: self.base(protocol, image)?,
        };
        let scores = scores(protocol, &self.metrics, &image.features, place, others);
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

    /// What the noise of an image depends on.
    fn noise(&self, image: &ScoredImage) -> Noise {
        let cell = &self.cells[image.cell];
        let of = &image.image;
        (cell.concept, cell.seed, of.prompt_index, of.image)
    }

    /// The base model's image that an image is compared with: of an unrelated prompt the one on the same
    /// noise, else that of the base prompt with the same concept, seed and number.
    fn base(&self, protocol: &Protocol, image: &ScoredImage) -> Result<Option<BaseImage<'_>>> {
        let unrelated = is_unrelated(&image.image.prompt.kind);
        let (mut noise, mut of_text) = (self.noise(image), None);
        let base_prompt = self.experiment.evaluation.base_prompt.as_ref();
        if let Some(prompt) = base_prompt.filter(|_| !unrelated) {
            let concept = &self.experiment.concepts[noise.0];
            let prompts = self.experiment.prompts_for(concept);
            let place = prompts.iter().position(|of| of.prompt == *prompt);
            noise.2 = place.context("the base prompt is one of the concept's")?;
            of_text = self.texts.get(&text(protocol, prompt, concept)?);
        }
        Ok(self.bases.get(&noise).map(|index| BaseImage {
            features: &self.images[*index].features,
            text: of_text,
            unrelated,
        }))
    }

    /// The images of a variant whose prompts name the concept.
    pub fn of_variant(&self, variant: &str) -> impl Iterator<Item = &ScoredImage> {
        let images = self.images.iter();
        images.filter(move |image| {
            self.variant(image) == variant && !is_unrelated(&image.image.prompt.kind)
        })
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
