//! The scores of an experiment's images.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use core_model::image_processor::load_image;
use core_train::data::concept::photo_files;
use core_train::data::prompts::fill;
use core_train::progress::Progress;

use crate::experiment::{Concept, Experiment};
use crate::images::{Wanted, wanted};
use crate::metrics::{Feature, Judges, References, cosine};
use crate::plan::Cell;
use crate::protocol::Protocol;
use crate::report::ScoreRow;

/// Images in memory at once.
const BATCH: usize = 64;

/// One image as the judges see it.
struct Seen {
    cell: usize,
    image: Wanted,
    clip: Feature,
    dino: Feature,
    text: Feature,
}

/// What the judges see, once for all protocols.
pub struct Measured<'a> {
    experiment: &'a Experiment,
    cells: &'a [Cell],
    references: Vec<Option<References>>,
    images: Vec<Seen>,
}

impl<'a> Measured<'a> {
    /// Looks at all photos and images, reads all prompts.
    ///
    /// # Errors
    /// A picture that cannot be read.
    pub fn new(
        experiment: &'a Experiment,
        cells: &'a [Cell],
        results: &Path,
        judges: &Judges,
    ) -> Result<Self> {
        let references = experiment.concepts.iter().map(|c| photos(c, judges));
        let references = references.collect::<Result<_>>()?;
        let total: usize = cells
            .iter()
            .map(|cell| wanted(experiment, cell).len())
            .sum();
        let mut progress = Progress::new("scores", 0, total as u64);
        let mut texts: BTreeMap<String, Feature> = BTreeMap::new();
        let mut images = Vec::with_capacity(total);
        for (index, cell) in cells.iter().enumerate() {
            let Some(concept) = &experiment.concepts[cell.concept].config else {
                continue;
            };
            for batch in wanted(experiment, cell).chunks(BATCH) {
                let pictures = batch
                    .iter()
                    .map(|image| load_image(&results.join(&image.file)))
                    .collect::<core_model::Result<Vec<_>>>()?;
                let clip = judges.clip_image_features(&pictures)?;
                let dino = judges.dino_features(&pictures)?;
                for ((image, clip), dino) in batch.iter().zip(clip).zip(dino) {
                    let prompt = fill(&image.prompt.prompt, &concept.super_category);
                    let text = match texts.get(&prompt) {
                        Some(text) => text.clone(),
                        None => {
                            let text = judges.text_features(std::slice::from_ref(&prompt))?;
                            let text = text.into_iter().next().unwrap_or_default();
                            texts.insert(prompt, text.clone());
                            text
                        }
                    };
                    images.push(Seen {
                        cell: index,
                        image: image.clone(),
                        clip,
                        dino,
                        text,
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
        })
    }

    /// The rows of `scores.csv`: variants slowest, then concepts, seeds, prompts, images.
    pub fn scores(&self, protocol: Protocol) -> Vec<ScoreRow> {
        self.images
            .iter()
            .map(|seen| {
                let cell = &self.cells[seen.cell];
                let prompt = &seen.image.prompt;
                let counts = protocol.scores_identity(&prompt.kind);
                let photos = self.references[cell.concept].as_ref().filter(|_| counts);
                ScoreRow {
                    variant: self.experiment.variants[cell.variant].name.clone(),
                    concept: self.experiment.concepts[cell.concept].name(),
                    seed: cell.seed,
                    group: prompt.group.name().to_string(),
                    kind: prompt.kind.clone(),
                    prompt: prompt.prompt.clone(),
                    image: seen.image.file.to_string_lossy().replace('\\', "/"),
                    clip_t: cosine(&seen.clip, &seen.text),
                    clip_i: photos.map(|photos| photos.clip_i(&seen.clip)),
                    dino: photos.map(|photos| photos.dino(&seen.dino)),
                }
            })
            .collect()
    }
}

fn photos(concept: &Concept, judges: &Judges) -> Result<Option<References>> {
    let Some(config) = &concept.config else {
        return Ok(None);
    };
    let photos = photo_files(&config.images)?
        .iter()
        .map(|file| load_image(file))
        .collect::<core_model::Result<Vec<_>>>()?;
    Ok(Some(judges.references(&photos)?))
}
