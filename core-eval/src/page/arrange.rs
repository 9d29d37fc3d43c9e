//! From the files of results to the data of a page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use indexmap::IndexSet;
use serde_json::Value;

use super::data::{Concept, FORMAT, MetricTitle, Page, RunData, Thumbnails};
use super::images::{Gallery, Vocabulary, photos, study};
use super::source::Source;
use super::{diagnostics, warnings};
use crate::metrics::Metric;

/// The data of a page and the files of its images, in order.
pub(super) struct Arranged {
    pub(super) page: Page,
    pub(super) photos: Vec<PathBuf>,
    pub(super) images: Vec<PathBuf>,
}

impl Arranged {
    /// Arranges everything for a page in the folder `out`.
    pub(super) fn new(source: &Source, out: &Path) -> Self {
        let mut names = Vocabulary::default();
        let gallery = Gallery::new(source, &mut names);
        for run in &source.runs {
            names.variants.number(&run.variant);
            names.concepts.number(&run.concept);
        }
        let (photo_files, photos) = photos(source, out, &mut names);
        let environments: IndexSet<&Value> = source
            .runs
            .iter()
            .filter_map(|run| run.environment.as_ref())
            .collect();
        let texts = |key: &str| -> Vec<String> {
            let texts = environments.iter().filter_map(|of| of[key].as_str());
            let texts: IndexSet<&str> = texts.collect();
            texts.into_iter().map(String::from).collect()
        };
        let mut page = Page {
            format: FORMAT,
            name: source.name.clone(),
            command: source.command.clone(),
            redraw: source.redraw.clone(),
            date: source.written.map(day),
            devices: texts("device"),
            revisions: texts("git_revision"),
            warnings: Vec::new(),
            missing: source.missing.clone(),
            images: gallery.columns(out, &mut names),
            protocols: source
                .protocols
                .iter()
                .map(|p| gallery.protocol(p))
                .collect(),
            attention: source.attention.clone(),
            scoring: source.scoring,
            tokens: diagnostics::tokens(source, &mut names.variants),
            curves: diagnostics::curves(source, &mut names.variants),
            validation: diagnostics::validation(source, &mut names.variants),
            runs: runs(source, &mut names, &environments),
            variants: names.variants.list(),
            concepts: concepts(source, &names),
            kinds: names.kinds.list(),
            prompts: names.prompts.list(),
            seeds: seeds(source),
            metrics: metrics(source),
            photos,
            effects: source.effects.clone(),
            environments: environments.into_iter().cloned().collect(),
            study: study(source),
            thumbnails: Thumbnails::default(),
        };
        page.warnings = warnings::warnings(&page);
        page.missing.extend(warnings::gaps(&page));
        Self {
            page,
            photos: photo_files,
            images: gallery.files(),
        }
    }
}

fn concepts(source: &Source, names: &Vocabulary) -> Vec<Concept> {
    let concepts = names.concepts.list().into_iter();
    let concept = |name: String| {
        let mut rows = source.protocols.iter().flat_map(|p| &p.scores.rows);
        let group = rows.find(|row| row.concept == name);
        Concept {
            word: source.words.get(&name).cloned().unwrap_or_default(),
            group: group.map_or(String::new(), |row| row.group.clone()),
            name,
        }
    };
    concepts.map(concept).collect()
}

fn seeds(source: &Source) -> Vec<u64> {
    let rows = source.protocols.iter().flat_map(|p| &p.scores.rows);
    let seeds: BTreeSet<u64> = rows.map(|row| row.seed).collect();
    seeds.into_iter().collect()
}

fn metrics(source: &Source) -> Vec<MetricTitle> {
    let ran = |metric: &&Metric| {
        let mut protocols = source.protocols.iter();
        protocols.any(|protocol| protocol.scores.metrics.contains(metric))
    };
    let titles = Metric::ALL.iter().filter(ran).map(|metric| MetricTitle {
        column: metric.column(),
        title: metric.title(),
        reads_photos: metric.reads_photos(),
    });
    titles.collect()
}

fn runs(source: &Source, names: &mut Vocabulary, environments: &IndexSet<&Value>) -> Vec<RunData> {
    let mut runs: Vec<RunData> = Vec::new();
    for run in &source.runs {
        let variant = names.variants.number(&run.variant);
        let is_first = !runs.iter().any(|run| run.variant == variant);
        let environment = run.environment.as_ref();
        runs.push(RunData {
            variant,
            concept: run.concept.clone(),
            seed: run.seed,
            address: run.address.clone(),
            sampling: run.sampling.clone(),
            training: run.training,
            generation: run.generation,
            environment: environment.and_then(|of| environments.get_index_of(of)),
            config: run.config.clone().filter(|_| is_first),
        });
    }
    runs.sort_by_key(|run| run.variant);
    runs
}

/// The day of a time, as in 2026-11-29 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn day(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::day;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_795_910_400, "2026-11-29"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(day(time), expected);
        }
    }
}
