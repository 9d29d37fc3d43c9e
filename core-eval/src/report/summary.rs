//! `summary.csv`: means, intervals and paired differences.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ScoreRow, ScoreTable};
use crate::metrics::Metric;
use crate::protocol::Averaging;
use crate::statistics::{Bootstrap, ConceptValues, Interval, mean};

/// The value of the column `concept` in rows about the mean over concepts.
pub const ALL_CONCEPTS: &str = "all";

/// One variant, one metric, one concept or all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The variant.
    pub variant: String,
    /// The score.
    pub metric: Metric,
    /// A concept, or `all`.
    pub concept: String,
    /// The mean.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Mean paired difference to the first variant.
    pub difference: Option<f64>,
    /// Lower end of its interval.
    pub difference_low: Option<f64>,
    /// Upper end.
    pub difference_high: Option<f64>,
    /// How many concepts the mean over concepts has, or how many prompts a concept's mean; images and
    /// seeds are averaged first.
    pub n: usize,
}

/// What a paired difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is above zero.
    Higher,
    /// The whole interval is below zero.
    Lower,
    /// The interval includes zero.
    NoDifferenceShown,
}

impl SummaryRow {
    /// What its paired difference to the first variant shows; none where it has none.
    pub fn verdict(&self) -> Option<Verdict> {
        let (low, high) = (self.difference_low?, self.difference_high?);
        Some(match () {
            () if low > 0.0 => Verdict::Higher,
            () if high < 0.0 => Verdict::Lower,
            () => Verdict::NoDifferenceShown,
        })
    }
}

/// The scores of one variant by one metric: concepts, prompts, seeds, images, each in the order of
/// its first appearance.
pub type Grouped<'a> = IndexMap<&'a str, IndexMap<&'a str, IndexMap<u64, Vec<f64>>>>;

/// Groups the scores of a variant; images without a score are left out.
pub fn grouped<'a>(rows: &'a [ScoreRow], variant: &str, metric: Metric) -> Grouped<'a> {
    let mut concepts = Grouped::new();
    for row in rows.iter().filter(|row| row.variant == variant) {
        let Some(value) = row.scores[metric] else {
            continue;
        };
        let prompts = concepts.entry(&row.concept).or_default();
        let seeds = prompts.entry(&row.prompt).or_default();
        seeds.entry(row.seed).or_default().push(value);
    }
    concepts
}

/// The values of one concept by prompt and seed, means over the images of a prompt.
struct Values<'a> {
    concept: &'a str,
    prompts: IndexMap<&'a str, IndexMap<u64, f64>>,
    /// The number of images.
    images: usize,
}

impl Values<'_> {
    fn plain(&self) -> ConceptValues {
        let prompts = self.prompts.values();
        prompts.map(|of| of.values().copied().collect()).collect()
    }

    /// The differences to the values of another variant by prompt and seed; `None` when the other lacks
    /// one of them.
    fn minus(&self, other: &Self) -> Option<ConceptValues> {
        let of_prompt = |(prompt, seeds): (&&str, &IndexMap<u64, f64>)| {
            let theirs = other.prompts.get(prompt)?;
            let of_seed = |(seed, value): (&u64, &f64)| Some(value - theirs.get(seed)?);
            seeds.iter().map(of_seed).collect()
        };
        self.prompts.iter().map(of_prompt).collect()
    }
}

fn values<'a>(rows: &'a [ScoreRow], variant: &str, metric: Metric) -> Vec<Values<'a>> {
    grouped(rows, variant, metric)
        .into_iter()
        .map(|(concept, prompts)| Values {
            concept,
            images: prompts.values().flatten().map(|(_, of)| of.len()).sum(),
            prompts: prompts
                .into_iter()
                .map(|(prompt, seeds)| {
                    let seeds = seeds.into_iter();
                    let means = seeds.filter_map(|(seed, of)| Some((seed, mean(of)?)));
                    (prompt, means.collect())
                })
                .collect(),
        })
        .collect()
}

/// How the values of concepts are combined into one mean.
#[derive(Debug, Clone, Copy)]
pub struct Weighting<'a> {
    /// Macro over concepts, or pooled.
    pub averaging: Averaging,
    /// How many photos each concept has: a pooled mean counts pairs of image and photo.
    pub photos: &'a BTreeMap<String, usize>,
}

impl Weighting<'_> {
    fn weight(&self, metric: Metric, values: &Values<'_>) -> f64 {
        let photos = match metric.reads_photos() {
            true => self.photos.get(values.concept).copied().unwrap_or(1),
            false => 1,
        };
        match self.averaging {
            Averaging::Macro => 1.0,
            Averaging::Pooled => (values.images * photos) as f64,
        }
    }
}

/// All rows: variants in the given order, of which the first is the baseline; per variant the metrics;
/// per metric first the mean over concepts, then every concept.
pub fn summarize(
    scores: &ScoreTable,
    variants: &[String],
    weighting: Weighting<'_>,
) -> Vec<SummaryRow> {
    let table: Vec<Vec<Vec<Values<'_>>>> = variants
        .iter()
        .map(|variant| {
            let metrics = scores.metrics.iter();
            let of_metric = |metric: &Metric| values(&scores.rows, variant, *metric);
            metrics.map(of_metric).collect()
        })
        .collect();
    // What is drawn for an interval depends on metric and concept, and not on the variant.
    let mut alike: IndexMap<(Metric, &str), Vec<Comparison<'_>>> = IndexMap::new();
    let mut place = 0;
    for (index, (variant, of_variant)) in variants.iter().zip(&table).enumerate() {
        for (column, (metric, ours)) in scores.metrics.iter().zip(of_variant).enumerate() {
            let whole = (ALL_CONCEPTS, ours.iter().collect(), ours.len());
            let each = ours.iter();
            let each = each.map(|values| (values.concept, vec![values], values.prompts.len()));
            let rows = (!ours.is_empty()).then_some(whole).into_iter().chain(each);
            for (name, concepts, n) in rows {
                alike.entry((*metric, name)).or_default().push(Comparison {
                    place,
                    variant,
                    concepts,
                    n,
                    baseline: match index {
                        0 => &[],
                        _ => &table[0][column],
                    },
                });
                place += 1;
            }
        }
    }
    let alike: Vec<_> = alike.into_iter().collect();
    let rows = alike
        .into_par_iter()
        .flat_map_iter(|((metric, name), comparisons)| {
            // The purpose is the same for all variants, so the same prompts are drawn for all.
            let mut bootstrap = Bootstrap::new(format!("bootstrap {} {name}", metric.column()));
            comparisons.into_iter().map(move |comparison| {
                let row = comparison.row(metric, name, weighting, &mut bootstrap);
                (comparison.place, row)
            })
        });
    let mut rows: Vec<(usize, SummaryRow)> = rows.collect();
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A variant's values of one concept, or of all, beside the baseline's.
struct Comparison<'a> {
    /// The number of its row.
    place: usize,
    variant: &'a str,
    concepts: Vec<&'a Values<'a>>,
    n: usize,
    baseline: &'a [Values<'a>],
}

impl Comparison<'_> {
    fn row(
        &self,
        metric: Metric,
        name: &str,
        weighting: Weighting<'_>,
        bootstrap: &mut Bootstrap,
    ) -> SummaryRow {
        let concepts = || self.concepts.iter();
        let plain: Vec<_> = concepts().map(|values| values.plain()).collect();
        let weights: Vec<f64> = concepts().map(|c| weighting.weight(metric, c)).collect();
        let paired: Option<Vec<_>> = concepts()
            .map(|ours| {
                let mut baseline = self.baseline.iter();
                ours.minus(baseline.find(|other| other.concept == ours.concept)?)
            })
            .collect();
        let Interval { mean, low, high } = bootstrap.interval(&plain, &weights);
        let difference = paired.map(|paired| bootstrap.interval(&paired, &weights));
        SummaryRow {
            variant: self.variant.to_string(),
            metric,
            concept: name.to_string(),
            mean,
            low,
            high,
            difference: difference.map(|d| d.mean),
            difference_low: difference.map(|d| d.low),
            difference_high: difference.map(|d| d.high),
            n: self.n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(column: &str) -> Metric {
        Metric::named(column).expect("a metric of that column")
    }

    fn row(variant: &str, concept: &str, prompt: &str, dino: Option<f64>) -> ScoreRow {
        let scores = [(metric("clip_t"), Some(0.25)), (metric("dino"), dino)];
        ScoreRow {
            variant: variant.into(),
            concept: concept.into(),
            prompt: prompt.into(),
            scores: scores.into_iter().collect(),
            ..ScoreRow::default()
        }
    }

    fn table(rows: &[ScoreRow]) -> ScoreTable {
        ScoreTable {
            metrics: Metric::ALL.to_vec(),
            rows: rows.to_vec(),
        }
    }

    fn weighting(averaging: Averaging, photos: &BTreeMap<String, usize>) -> Weighting<'_> {
        Weighting { averaging, photos }
    }

    #[test]
    fn variants_pair_up_by_prompt_and_seed_whatever_their_order() {
        let rows = [
            row("base", "dog", "p", Some(0.1)),
            row("base", "dog", "q", Some(0.9)),
            row("other", "dog", "q", Some(1.0)),
            row("other", "dog", "p", Some(0.2)),
            row("partial", "dog", "p", Some(0.2)),
            row("alien", "dog", "r", Some(0.2)),
        ];
        let names = ["base", "other", "partial", "alien"].map(String::from);
        let none = BTreeMap::new();
        let summary = summarize(&table(&rows), &names, weighting(Averaging::Macro, &none));
        let find = |variant: &str| {
            let mut rows = summary.iter().filter(|r| r.metric == metric("dino"));
            rows.find(|r| r.variant == variant).expect("a row").clone()
        };
        let other = find("other");
        for value in [other.difference_low, other.difference_high] {
            assert!((value.expect("a difference") - 0.1).abs() < 1e-12);
        }
        let partial = find("partial")
            .difference
            .expect("of the prompt that both have");
        assert!((partial - 0.1).abs() < 1e-12);
        assert_eq!(find("alien").difference, None, "nothing to pair with");
    }

    #[test]
    fn a_pooled_mean_counts_pairs_of_image_and_photo() {
        let mut rows = vec![row("v", "dog", "p", Some(1.0))];
        for prompt in ["p", "q", "r"] {
            rows.push(row("v", "cup", prompt, Some(0.0)));
        }
        let photos = BTreeMap::from([("dog".to_string(), 2), ("cup".to_string(), 4)]);
        let mean = |averaging, column: &str| {
            let summary = summarize(&table(&rows), &["v".into()], weighting(averaging, &photos));
            let mut rows = summary
                .into_iter()
                .filter(|row| row.concept == ALL_CONCEPTS);
            rows.find(|row| row.metric == metric(column))
                .expect("a row")
                .mean
        };
        assert!((mean(Averaging::Macro, "dino") - 0.5).abs() < 1e-12);
        // Two pairs of the dog, twelve of the cup.
        assert!((mean(Averaging::Pooled, "dino") - 2.0 / 14.0).abs() < 1e-12);
        assert!((mean(Averaging::Pooled, "clip_t") - 0.25).abs() < 1e-12);
    }

    #[test]
    fn means_and_paired_differences_are_those_of_the_rows() {
        let mut rows = Vec::new();
        for (prompt, shift) in [("p", 0.0), ("q", 0.2)] {
            rows.push(row("base", "dog", prompt, Some(0.4 + shift)));
            rows.push(row("other", "dog", prompt, Some(0.5 + shift)));
        }
        let none = BTreeMap::new();
        let names = ["base".into(), "other".into()];
        let summary = summarize(&table(&rows), &names, weighting(Averaging::Macro, &none));
        let find = |variant: &str, column: &str| {
            let mut rows = summary.iter().filter(|r| r.concept == ALL_CONCEPTS);
            rows.find(|r| r.variant == variant && r.metric == metric(column))
        };
        let base = find("base", "dino").expect("a row");
        assert!((base.mean - 0.5).abs() < 1e-12);
        assert_eq!(base.difference, None);
        assert_eq!(base.n, 1, "one concept");
        let of_concept = summary.iter().find(|row| row.concept == "dog");
        assert_eq!(of_concept.expect("a row").n, 2, "two prompts");
        let other = find("other", "dino").expect("a row");
        // Every prompt differs by exactly 0.1, so the paired interval has no width.
        for value in [
            other.difference,
            other.difference_low,
            other.difference_high,
        ] {
            assert!((value.expect("a difference") - 0.1).abs() < 1e-12);
        }
        assert!(
            find("base", "clip_i").is_none(),
            "a score that was left out has no row"
        );
    }
}
