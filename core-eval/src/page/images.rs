//! The images of a page in the order of its gallery, with their scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::data::{Check, Images, Mean, Photos, ProtocolData};
use super::links::link;
use super::names::Names;
use super::source::{ProtocolScores, Source};
use crate::image_rows::ImageRow;
use crate::report::{ALL_CONCEPTS, ScoreRow, ScoreTable, SummaryRow, summarize};

/// The names of a page.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    pub(super) variants: Names,
    pub(super) concepts: Names,
    pub(super) kinds: Names,
    pub(super) prompts: Names,
}

/// The images of all protocols, each once, by variant and file; the order is that of the gallery: concept,
/// prompt, seed, number, variant.
pub(super) struct Gallery<'a> {
    rows: Vec<(&'a ScoreRow, usize)>,
    places: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> Gallery<'a> {
    pub(super) fn new(source: &'a Source, names: &mut Vocabulary) -> Self {
        let mut seen: IndexMap<(&str, &str), (&ScoreRow, usize)> = IndexMap::new();
        let mut counts: BTreeMap<(usize, usize, usize, u64), usize> = BTreeMap::new();
        for row in source.protocols.iter().flat_map(|p| &p.scores.rows) {
            let variant = names.variants.number(&row.variant);
            let concept = names.concepts.number(&row.concept);
            names.kinds.number(&row.kind);
            let prompt = names.prompts.number(&row.prompt);
            seen.entry((&row.variant, &row.image)).or_insert_with(|| {
                let count = counts
                    .entry((variant, concept, prompt, row.seed))
                    .or_default();
                *count += 1;
                (row, *count - 1)
            });
        }
        let mut rows: Vec<(&ScoreRow, usize)> = seen.into_values().collect();
        rows.sort_by_key(|(row, number)| {
            (
                names.concepts.number(&row.concept),
                names.prompts.number(&row.prompt),
                row.seed,
                *number,
                names.variants.number(&row.variant),
            )
        });
        let places = rows.iter().enumerate();
        let places = places.map(|(place, (row, _))| ((&*row.variant, &*row.image), place));
        Self {
            places: places.collect(),
            rows,
        }
    }

    /// The files, in order.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.rows
            .iter()
            .map(|(row, _)| PathBuf::from(&row.image))
            .collect()
    }

    /// The columns for a page in the folder `out`.
    pub(super) fn columns(&self, out: &Path, names: &mut Vocabulary) -> Images {
        let mut images = Images::default();
        for (row, number) in &self.rows {
            images.variant.push(names.variants.number(&row.variant));
            images.concept.push(names.concepts.number(&row.concept));
            images.kind.push(names.kinds.number(&row.kind));
            images.prompt.push(names.prompts.number(&row.prompt));
            images.seed.push(row.seed);
            images.number.push(*number);
            let file = Path::new(&row.image);
            images.file.push(file.is_file().then(|| link(out, file)));
        }
        images
    }

    /// The scores of the images, and what is known of them, under one protocol.
    pub(super) fn protocol(&self, of: &ProtocolScores) -> ProtocolData {
        let mut scores = Map::new();
        for metric in &of.scores.metrics {
            let mut values = vec![None; self.rows.len()];
            for row in &of.scores.rows {
                if let Some(place) = self.places.get(&(&*row.variant, &*row.image)) {
                    values[*place] = row.scores[*metric].map(rounded);
                }
            }
            scores.insert(metric.column().into(), json!(values));
        }
        let rows: BTreeMap<&str, &ImageRow> =
            of.images.iter().map(|row| (&*row.image, row)).collect();
        let rows = self
            .rows
            .iter()
            .map(|(row, _)| rows.get(&*row.image).copied());
        let rows: Vec<Option<&ImageRow>> = rows.collect();
        let value = |of: fn(&ImageRow) -> Option<f64>| {
            rows.iter()
                .map(|row| row.and_then(of).map(rounded))
                .collect()
        };
        ProtocolData {
            name: of.name().to_string(),
            masked: of.protocol["protocol"]["masked"].as_bool().unwrap_or(false),
            protocol: of.protocol.clone(),
            summary: means(of),
            checks: checks(of),
            scores,
            closest: value(|row| row.closest),
            photo: rows
                .iter()
                .map(|row| row.and_then(|row| row.photo))
                .collect(),
            foreground: value(|row| row.foreground),
            mask: rows
                .iter()
                .map(|row| row.map_or(String::new(), |row| row.mask.clone()))
                .collect(),
        }
    }
}

/// Six decimals.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The rows of the summary over all prompts, then over those of each kind.
fn means(of: &ProtocolScores) -> Vec<Mean> {
    let mut kinds: IndexMap<&str, Vec<ScoreRow>> = IndexMap::new();
    for row in &of.scores.rows {
        kinds.entry(&row.kind).or_default().push(row.clone());
    }
    let mut means: Vec<Mean> = named(ALL_CONCEPTS, of.summary.clone());
    if kinds.len() > 1 {
        for (kind, rows) in kinds {
            let scores = ScoreTable {
                metrics: of.scores.metrics.clone(),
                rows,
            };
            let summary = summarize(&scores, &of.variants(), of.weighting());
            means.extend(named(kind, summary));
        }
    }
    means
}

fn named(kind: &str, rows: Vec<SummaryRow>) -> Vec<Mean> {
    let rows = rows.into_iter().map(|row| Mean {
        kind: kind.to_string(),
        verdict: row.verdict(),
        row,
    });
    rows.collect()
}

fn checks(of: &ProtocolScores) -> Vec<Check> {
    let rows = of.checks.iter().map(|row| Check {
        variant: row.variant.clone(),
        measure: row.measure.clone(),
        value: row.value.is_finite().then_some(row.value),
        place: row.place.clone(),
    });
    rows.collect()
}

/// The photos of the concepts in order, and their columns.
pub(super) fn photos(
    source: &Source,
    out: &Path,
    names: &mut Vocabulary,
) -> (Vec<PathBuf>, Photos) {
    let (mut files, mut photos) = (Vec::new(), Photos::default());
    for concept in names.concepts.list() {
        for file in source.photos.get(&concept).into_iter().flatten() {
            photos.concept.push(names.concepts.number(&concept));
            photos.file.push(link(out, file));
            files.push(file.clone());
        }
    }
    (files, photos)
}

/// The rows of `study.csv` as JSON.
pub(super) fn study(source: &Source) -> Value {
    json!(source.study)
}
