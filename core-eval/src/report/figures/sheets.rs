//! Which images the sheets of a results folder show.

use std::path::{Path, PathBuf};

use anyhow::Result;
use image::RgbImage;
use indexmap::{IndexMap, IndexSet};

use super::forest::short;
use super::grid::{Block, Cell, Sheet};
use super::runs::{Place, Sources, file_of};
use crate::gallery::load_images;
use crate::metrics::Metric;
use crate::report::{ALL_CONCEPTS, ScoreRow, ScoreTable, SummaryRow};

/// The side of an image on a full grid and on the overview, in pixels.
const FULL: u32 = 128;
const OVERVIEW: u32 = 80;
/// How many prompts the overview and the sheet of test-time optimisation show.
const PROMPTS: usize = 5;
/// How many columns and concepts the overview shows.
const COLUMNS: usize = 3;
const CONCEPTS: usize = 2;

/// The images of a results folder by variant, concept and prompt: the first of the first seed.
pub(super) struct Images<'a> {
    results: &'a Path,
    sources: &'a Sources,
    metric: Option<Metric>,
    first: IndexMap<(&'a str, &'a str, &'a str), &'a ScoreRow>,
}

impl<'a> Images<'a> {
    pub(super) fn new(results: &'a Path, scores: &'a ScoreTable, sources: &'a Sources) -> Self {
        let mut first = IndexMap::new();
        for row in &scores.rows {
            let place = (
                row.variant.as_str(),
                row.concept.as_str(),
                row.prompt.as_str(),
            );
            first.entry(place).or_insert(row);
        }
        Self {
            results,
            sources,
            metric: below_images(&scores.metrics),
            first,
        }
    }

    /// How many images there should be, and how many are there.
    pub(super) fn counts(&self) -> (usize, usize) {
        let there = self
            .first
            .values()
            .filter(|row| file_of(self.results, row).is_file());
        (self.first.len(), there.count())
    }

    /// The concepts whose photos are gone.
    pub(super) fn without_photos(&self) -> Vec<&'a str> {
        let mut concepts = self.concepts();
        concepts.retain(|concept| self.sources.photos(concept).is_empty());
        concepts
    }

    /// The concepts in order.
    pub(super) fn concepts(&self) -> Vec<&'a str> {
        let names: IndexSet<&str> = self.first.keys().map(|(_, concept, _)| *concept).collect();
        names.into_iter().collect()
    }

    /// The prompts of a concept in order.
    pub(super) fn prompts(&self, concept: &str) -> Vec<&'a str> {
        let of = self.first.keys().filter(|(_, other, _)| *other == concept);
        let prompts: IndexSet<&str> = of.map(|(.., prompt)| *prompt).collect();
        prompts.into_iter().collect()
    }

    /// The class word of a concept, or its name where no source of an image is left.
    pub(super) fn word(&self, concept: &'a str) -> &str {
        self.sources.word(concept).unwrap_or(concept)
    }

    /// The photos that a concept is learned from.
    pub(super) fn photos(&self, concept: &str) -> Vec<PathBuf> {
        self.sources.photos(concept)
    }

    /// All prompts of a concept and these variants, the photos above.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn full(&self, concept: &'a str, variants: &[String]) -> Result<Sheet> {
        let prompts = self.prompts(concept);
        Ok(Sheet {
            blocks: vec![self.block(concept, variants, &prompts)?],
            rows: prompts
                .iter()
                .map(|prompt| prompt.replace("{}", self.word(concept)))
                .collect(),
            cell: FULL,
            prompts: 230,
            note: self.note(),
        })
    }

    /// Two concepts, of two groups where there are several, with few variants and prompts.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn overview(&self, variants: &[String]) -> Result<Option<Sheet>> {
        let concepts = self.two_concepts();
        let Some(first) = concepts.first() else {
            return Ok(None);
        };
        let common = |prompt: &&str| {
            prompt.contains("{}") && concepts.iter().all(|of| self.prompts(of).contains(prompt))
        };
        let prompts: Vec<&str> = self.prompts(first).into_iter().filter(common).collect();
        let prompts = self.mixed(&prompts);
        let words: IndexSet<&str> = concepts.iter().map(|concept| self.word(concept)).collect();
        let words = words.into_iter().collect::<Vec<_>>().join(" / ");
        let blocks = concepts
            .iter()
            .map(|concept| self.block(concept, variants, &prompts));
        Ok(Some(Sheet {
            blocks: blocks.collect::<Result<_>>()?,
            rows: prompts
                .iter()
                .map(|prompt| prompt.replace("{}", &words))
                .collect(),
            cell: OVERVIEW,
            prompts: 190,
            note: self.note(),
        }))
    }

    /// Concepts of different groups, in order.
    fn two_concepts(&self) -> Vec<&'a str> {
        let group = |concept: &str| {
            let mut rows = self.first.values();
            rows.find(|row| row.concept == concept)
                .map(|row| row.group.as_str())
        };
        let all = self.concepts();
        let Some(first) = all.first().copied() else {
            return all;
        };
        let other = all.iter().find(|concept| group(concept) != group(first));
        let second = other.or(all.get(1)).copied();
        [Some(first), second]
            .into_iter()
            .flatten()
            .take(CONCEPTS)
            .collect()
    }

    /// Prompts in an order in which the first ones are of as many kinds as there are.
    pub(super) fn kinds_in_turn(&self, prompts: &[&'a str]) -> Vec<&'a str> {
        let kind = |prompt: &str| {
            let mut rows = self.first.values();
            rows.find(|row| row.prompt == prompt)
                .map_or("", |row| row.kind.as_str())
        };
        let mut kinds: IndexMap<&str, Vec<&str>> = IndexMap::new();
        for prompt in prompts {
            kinds.entry(kind(prompt)).or_default().push(prompt);
        }
        let longest = kinds.values().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| kinds.values().filter_map(move |of| of.get(turn)));
        turns.copied().collect()
    }

    /// A few prompts of as many kinds as there are, in their order.
    fn mixed(&self, prompts: &[&'a str]) -> Vec<&'a str> {
        let chosen = self.kinds_in_turn(prompts);
        let chosen = &chosen[..chosen.len().min(PROMPTS)];
        prompts
            .iter()
            .copied()
            .filter(|prompt| chosen.contains(prompt))
            .collect()
    }

    /// Before and after test-time optimisation: variants that share their runs, side by side; none
    /// where no variant is optimised.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn test_time(&self) -> Result<Option<Sheet>> {
        let mut columns: Vec<String> = Vec::new();
        for ((after, concept, seed), source) in &self.sources.0 {
            let before = self.sources.0.iter().find(|((_, of, other), candidate)| {
                of == concept
                    && other == seed
                    && candidate.run == source.run
                    && candidate.test_time.is_none()
            });
            if let (Some(((before, ..), _)), true) = (before, source.test_time.is_some()) {
                for name in [before, after] {
                    if !columns.contains(name) {
                        columns.push(name.clone());
                    }
                }
            }
        }
        match columns.is_empty() {
            true => Ok(None),
            false => self.overview(&columns),
        }
    }

    /// How to read what stands below the images.
    pub(super) fn note(&self) -> String {
        match self.metric {
            Some(metric) => format!("below each image: {} with the photos", metric.title()),
            None => String::new(),
        }
    }

    fn block(&self, concept: &'a str, variants: &[String], prompts: &[&str]) -> Result<Block> {
        let photos = self.sources.photos(concept);
        let mut columns = Vec::new();
        for variant in variants {
            let mut cells = Vec::new();
            for prompt in prompts {
                cells.push(self.image(variant, concept, prompt)?);
            }
            columns.push((variant.clone(), cells));
        }
        Ok(Block {
            title: concept.to_string(),
            photos: load_images(photos.iter().map(PathBuf::as_path))?,
            columns,
        })
    }

    /// The image of a prompt with its score below it.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn image(&self, variant: &str, concept: &str, prompt: &str) -> Result<Cell> {
        let row = self.first.get(&(variant, concept, prompt)).copied();
        let file = row.map(|row| file_of(self.results, row));
        let file = file.filter(|file| file.is_file());
        let image: Option<RgbImage> = match &file {
            Some(file) => load_images(std::iter::once(file.as_path()))?.pop(),
            None => None,
        };
        let score = row.zip(self.metric).and_then(|(row, metric)| {
            let value = row.scores[metric]?;
            Some(format!("{} {}", metric.title(), &short(value)))
        });
        Ok(Cell {
            image,
            caption: score.unwrap_or_default(),
            framed: false,
        })
    }
}

/// The metric whose scores stand below images: identity where people are compared, else the one that tells
/// things of one kind apart.
pub(super) fn below_images(metrics: &[Metric]) -> Option<Metric> {
    let of_faces = metrics.iter().copied().find(|metric| metric.reads_faces());
    of_faces.or_else(|| Metric::of_instances(metrics))
}

/// The columns of the overview: all variants where they are few; else the first, the one that differs
/// most from it, and the untuned model.
pub(super) fn overview_columns(
    variants: &[String],
    summary: &[SummaryRow],
    sources: &Sources,
    metric: Option<Metric>,
) -> Vec<String> {
    if variants.len() <= COLUMNS {
        return variants.to_vec();
    }
    let untuned = |variant: &&String| {
        let mut places = sources.0.iter();
        places.any(|((name, ..), source): (&Place, _)| name == *variant && source.run.is_none())
    };
    let difference = |variant: &String| {
        let mut rows = summary.iter().filter(|row| row.concept == ALL_CONCEPTS);
        let row = rows.find(|row| row.variant == *variant && Some(row.metric) == metric);
        row.and_then(|row| row.difference).map_or(0.0, f64::abs)
    };
    let others = variants[1..].iter().filter(|variant| !untuned(variant));
    let most = others.max_by(|a, b| difference(a).total_cmp(&difference(b)));
    let floor = variants[1..].iter().find(untuned);
    let chosen = [variants.first(), most, floor];
    chosen.into_iter().flatten().cloned().collect()
}
