//! Means by kind of prompt and by concept.

use indexmap::IndexSet;

use super::summary::{ALL_CONCEPTS, SummaryRow};
use super::{ScoreRow, ScoreTable, Weighting, summarize};
use crate::metrics::Metric;

/// Means of all variants by one metric, a column for each kind or concept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Breakdown {
    /// The metric.
    pub(super) metric: Metric,
    /// What the columns are, as in "kind of prompt".
    pub(super) by: &'static str,
    /// The names of the columns.
    pub(super) columns: Vec<String>,
    /// The rows: variants, with the mean and the paired difference of each column that has scores.
    pub(super) rows: Vec<(String, Vec<Option<SummaryRow>>)>,
}

impl Breakdown {
    /// How many cells have a paired difference.
    pub(super) fn compared(&self) -> usize {
        let cells = self.rows.iter().flat_map(|(_, cells)| cells).flatten();
        cells.filter(|row| row.difference.is_some()).count()
    }
}

/// What chance alone does in so many comparisons, for readers; none where there are no comparisons.
pub(in crate::report) fn by_chance(comparisons: usize) -> Option<String> {
    // One of 20 intervals at 95 % does not hold the true value.
    let expected = comparisons as f64 / 20.0;
    let expected = match expected < 3.0 {
        true => format!("{expected:.1}"),
        false => format!("{expected:.0}"),
    };
    (comparisons > 0).then(|| {
        format!(
            "Even if no method differed from another, about {expected} of these {comparisons} \
             intervals at 95 % would exclude 0 by chance."
        )
    })
}

/// The tables by kind of prompt: means over concepts of the prompts of each kind; none where all prompts
/// are of one kind.
pub(super) fn by_kind(
    scores: &ScoreTable,
    variants: &[String],
    weighting: Weighting<'_>,
) -> Vec<Breakdown> {
    let kinds: IndexSet<&str> = scores.rows.iter().map(|row| row.kind.as_str()).collect();
    if kinds.len() < 2 {
        return Vec::new();
    }
    let mut means: Vec<(String, Vec<SummaryRow>)> = Vec::new();
    for kind in kinds {
        let of_kind = scores.rows.iter().filter(|row| row.kind == kind);
        let of_kind = ScoreTable {
            metrics: scores.metrics.clone(),
            rows: of_kind.cloned().collect::<Vec<ScoreRow>>(),
        };
        let mut rows = summarize(&of_kind, variants, weighting);
        rows.retain(|row| row.concept == ALL_CONCEPTS);
        means.push((kind.to_string(), rows));
    }
    tables("kind of prompt", &scores.metrics, variants, &means)
}

/// The tables by concept; none where there is only one.
pub(super) fn by_concept(
    metrics: &[Metric],
    summary: &[SummaryRow],
    variants: &[String],
) -> Vec<Breakdown> {
    let concepts = summary.iter().map(|row| row.concept.as_str());
    let concepts: IndexSet<&str> = concepts.filter(|name| *name != ALL_CONCEPTS).collect();
    if concepts.len() < 2 {
        return Vec::new();
    }
    let means: Vec<(String, Vec<SummaryRow>)> = concepts
        .into_iter()
        .map(|concept| {
            let rows = summary.iter().filter(|row| row.concept == concept);
            (concept.to_string(), rows.cloned().collect())
        })
        .collect();
    tables("concept", metrics, variants, &means)
}

fn tables(
    by: &'static str,
    metrics: &[Metric],
    variants: &[String],
    means: &[(String, Vec<SummaryRow>)],
) -> Vec<Breakdown> {
    let table = |metric: &Metric| {
        // A protocol that leaves kinds of prompts out has no scores of them.
        let of_metric = means
            .iter()
            .filter(|(_, rows)| rows.iter().any(|r| r.metric == *metric));
        let columns: Vec<&(String, Vec<SummaryRow>)> = of_metric.collect();
        let row = |variant: &String| {
            let cell = |(_, rows): &&(String, Vec<SummaryRow>)| {
                let mut rows = rows.iter();
                rows.find(|row| row.variant == *variant && row.metric == *metric)
                    .cloned()
            };
            (variant.clone(), columns.iter().map(cell).collect())
        };
        Breakdown {
            metric: *metric,
            by,
            columns: columns.iter().map(|(name, _)| name.clone()).collect(),
            rows: variants.iter().map(row).collect(),
        }
    };
    metrics
        .iter()
        .map(table)
        .filter(|table| table.columns.len() > 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::Averaging;

    fn metric(column: &str) -> Metric {
        Metric::named(column).expect("a metric of that column")
    }

    /// The mean of each column for a variant.
    fn means(table: &Breakdown, variant: &str) -> Vec<Option<f64>> {
        let mut rows = table.rows.iter();
        let (_, cells) = rows.find(|(name, _)| name == variant).expect("a row");
        let rounded = |row: &Option<SummaryRow>| Some((row.as_ref()?.mean * 1e9).round() / 1e9);
        cells.iter().map(rounded).collect()
    }

    #[test]
    fn one_of_twenty_intervals_excludes_zero_by_chance() {
        let sentence = by_chance(108).expect("a sentence");
        assert!(
            sentence.contains("about 5 of these 108 intervals"),
            "{sentence}"
        );
        let few = by_chance(18).expect("a sentence");
        assert!(few.contains("about 0.9 of these 18"), "{few}");
        assert_eq!(by_chance(0), None);
    }

    #[test]
    fn means_by_kind_and_by_concept_are_those_computed_by_hand() {
        let dino = metric("dino");
        let row =
            |variant: &str, concept: &str, kind: &str, prompt: &str, value: Option<f64>| ScoreRow {
                variant: variant.into(),
                concept: concept.into(),
                kind: kind.into(),
                prompt: prompt.into(),
                scores: [(dino, value)].into_iter().collect(),
                ..ScoreRow::default()
            };
        let table = ScoreTable {
            metrics: vec![dino],
            rows: vec![
                row("CoRe", "dog", "plain", "a {}", Some(0.8)),
                row("CoRe", "dog", "style", "a sketch of a {}", Some(0.2)),
                row("CoRe", "dog", "style", "a painting of a {}", Some(0.4)),
                row("CoRe", "cup", "plain", "a {}", Some(0.6)),
                row("CoRe", "cup", "style", "a sketch of a {}", Some(0.1)),
                row("CoRe", "cup", "outfit", "a {} in a hat", None),
                row("TI", "dog", "plain", "a {}", Some(0.5)),
                row("TI", "dog", "style", "a sketch of a {}", Some(0.1)),
                row("TI", "dog", "style", "a painting of a {}", Some(0.1)),
                row("TI", "cup", "plain", "a {}", Some(0.5)),
            ],
        };
        let none = BTreeMap::new();
        let weighting = Weighting {
            averaging: Averaging::Macro,
            photos: &none,
        };
        let variants = ["CoRe".to_string(), "TI".to_string()];
        let kinds = by_kind(&table, &variants, weighting);
        assert_eq!(kinds.len(), 1);
        // Outfit prompts have no score, so no column.
        assert_eq!(kinds[0].columns, ["plain", "style"]);
        // Plain: dog .8, cup .6; style: dog (.2 + .4) / 2 = .3, cup .1.
        assert_eq!(means(&kinds[0], "CoRe"), [Some(0.7), Some(0.2)]);
        // TI has no style image of the cup.
        assert_eq!(means(&kinds[0], "TI"), [Some(0.5), Some(0.1)]);
        let plain = kinds[0].rows[1].1[0].as_ref().expect("a row");
        // Dog .5 - .8, cup .5 - .6.
        assert!((plain.difference.expect("a difference") + 0.2).abs() < 1e-12);
        // The baseline is compared with nothing.
        assert_eq!(kinds[0].compared(), 2);

        let summary = summarize(&table, &variants, weighting);
        let concepts = by_concept(&table.metrics, &summary, &variants);
        assert_eq!(concepts[0].columns, ["dog", "cup"]);
        // Dog: (.8 + .2 + .4) / 3; cup: (.6 + .1) / 2.
        assert_eq!(means(&concepts[0], "CoRe"), [Some(0.466666667), Some(0.35)]);
        assert_eq!(means(&concepts[0], "TI"), [Some(0.233333333), Some(0.5)]);
    }
}
