//! What the finished experiment has on disk that is not there yet.

use std::path::Path;

use anyhow::Result;
use core_model::files::read_to_string;
use core_model::folder::ModelFolder;
use core_model::photos::PhotoFolder;
use core_train::cost::disk::{ModelShapes, on_disk, times};
use serde_json::Value;

use super::MissingRun;
use crate::experiment::Experiment;
use crate::gallery::Needs;
use crate::images::{folder_of, wanted};
use crate::plan::Cell;
use crate::trained::Trained;
use crate::training::{rounds, steps};

/// The bytes of a row of a table of images, about; there are two such tables for each protocol.
const ROW: u64 = 200;

/// The bytes of a row of `curves.csv`, and of what `tokens.csv` and its kept copy have of a prompt, about.
const CURVE_ROW: u64 = 70;
const TOKEN_ROWS: u64 = 2 * 8 * 78;

/// The bytes that an image takes on the sheets of figures, as PNG and as SVG, and what surrounds a sheet.
const ON_SHEET: u64 = 22_500;
const SHEET: u64 = 60_000;

/// The bytes of the figures of a protocol, and of all other figures but sheets.
const FIGURES_OF_PROTOCOL: u64 = 354_000;
const FIGURES: u64 = 550_000;

/// The bytes of the report page without images, with its data.
const REPORT: u64 = 500_000;

/// The bytes of a thumbnail in the report page, at most, and of what it says of an image.
const THUMBNAIL: u64 = 9_400;
const IN_REPORT: u64 = 1_400;

/// What is missing.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) runs: Vec<MissingRun>,
    /// Bytes of images that are not there.
    pub(super) images: u64,
    /// Bytes of all features.
    pub(super) features: u64,
    /// Bytes of all tables, figures and the report.
    pub(super) tables: u64,
}

impl Missing {
    /// Computes what is not in the folder yet.
    ///
    /// # Errors
    /// A model whose configuration cannot be read; sets of weights that do not fit it.
    pub(super) fn new(
        experiment: &Experiment,
        model: &ModelFolder,
        cells: &[Cell],
        trained: &Trained<'_>,
    ) -> Result<Self> {
        let results = trained.results();
        let shapes = ModelShapes::read(model)?;
        let mut runs = Vec::new();
        for task in rounds(cells, trained).concat() {
            runs.push(MissingRun {
                bytes: shapes.run(&task.run.config)?,
                is_beginning: task.keeps_state(),
            });
        }
        let all: Vec<_> = cells.iter().map(|cell| wanted(experiment, cell)).collect();
        let missing = all.iter().flatten();
        let missing = missing.filter(|image| !results.join(&image.file).exists());
        let count = all.iter().map(|images| images.len() as u64).sum();
        Ok(Self {
            runs,
            // Every prompt has a folder.
            images: times(missing.count() as u64, shapes.image())
                + folders(experiment, cells, results),
            features: features(experiment, count)?,
            tables: tables(experiment, cells, count, shapes.image())?,
        })
    }
}

/// The folders of images that are not there.
fn folders(experiment: &Experiment, cells: &[Cell], results: &Path) -> u64 {
    let mut bytes = 0;
    for cell in cells {
        let folder = folder_of(experiment, cell);
        if !results.join(folder).exists() {
            let concept = &experiment.concepts[cell.concept];
            // With that of the seed, and the file that says where the images come from.
            bytes += (experiment.prompts_for(concept).len() as u64 + 2) * on_disk(1);
        }
    }
    bytes
}

/// The files of features and masks of so many images.
fn features(experiment: &Experiment, images: u64) -> Result<u64> {
    let protocols = experiment.evaluation.protocols()?;
    let needs = Needs::of_images(&experiment.metrics(), &protocols);
    let needs = needs.with_faces(experiment.evaluation.encoders.face_input()?);
    let photos = experiment.concepts.iter().map(|concept| {
        let photos = PhotoFolder::read(concept.reference_photos());
        photos.map_or(0, |photos| photos.files.len() as u64)
    });
    let pixels = images + photos.sum::<u64>();
    let encoders = &experiment.evaluation.encoders;
    let mut bytes = on_disk(1);
    for (kind, folder) in encoders.encoders() {
        let readings = needs.readings.iter();
        let readings = readings
            .filter(|reading| reading.encoder == kind.key)
            .count() as u64;
        bytes += on_disk(pixels * readings * (40 + 4 * width(folder.path())));
    }
    if needs.masks() && encoders.clipseg.is_some() {
        bytes += on_disk(pixels * 600);
    }
    Ok(bytes)
}

/// The numbers of a feature of the encoder in a folder.
fn width(folder: &Path) -> u64 {
    const USUAL: u64 = 768;
    let text = read_to_string(&folder.join("config.json"));
    let config: Value = text
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let keys = ["projection_dim", "hidden_size"].iter();
    let mut widths = keys.filter_map(|key| config.get(key)?.as_u64());
    widths.next().unwrap_or(USUAL)
}

fn tables(experiment: &Experiment, cells: &[Cell], images: u64, image: u64) -> Result<u64> {
    let protocols = experiment.evaluation.protocols()?;
    let variants = experiment.variants.len() as u64;
    let count = protocols.len() as u64;
    let masked = protocols.iter().any(|protocol| protocol.masked);
    let mut bytes = on_disk(2 * count * images * ROW) + 14 * count * on_disk(1);
    for cell in cells {
        let concept = &experiment.concepts[cell.concept];
        if let Some(run) = &cell.run {
            let prompts = experiment.prompts_for(concept).len() as u64;
            bytes += times(steps(run) as u64, CURVE_ROW) + prompts * TOKEN_ROWS;
        }
    }
    let sheet = |concept: usize| {
        let prompts = experiment.prompts_for(&experiment.concepts[concept]).len() as u64;
        prompts * variants * ON_SHEET + SHEET
    };
    let overview = |concept: usize| {
        let prompts = experiment.prompts_for(&experiment.concepts[concept]).len() as u64;
        (prompts.min(5) + 1) * variants.min(3) * ON_SHEET
    };
    let concepts = 0..experiment.concepts.len();
    bytes += concepts.clone().map(sheet).sum::<u64>();
    // An overview of two concepts, and of the first one what masked protocols compare.
    bytes += concepts.clone().take(2).map(overview).sum::<u64>();
    // The comparison of all variants: eight rows at most, with an input photo each.
    bytes += (2 * concepts.len() as u64).min(8) * (variants + 1) * ON_SHEET;
    if masked && !concepts.is_empty() {
        bytes += sheet(0) / 2;
    }
    bytes += FIGURES + count * FIGURES_OF_PROTOCOL;
    Ok(bytes + REPORT + images * (THUMBNAIL.min(image * 4 / 3) + IN_REPORT))
}
