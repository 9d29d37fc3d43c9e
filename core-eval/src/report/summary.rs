//! `summary.csv`: means, intervals and paired differences.

use serde::{Deserialize, Serialize};

use super::ScoreRow;
use crate::statistics::{ConceptValues, Interval, bootstrap};

/// The scores, as columns of `scores.csv`.
pub const METRICS: [&str; 3] = ["clip_t", "clip_i", "dino"];

/// What the column `concept` says of the macro mean.
pub const ALL_CONCEPTS: &str = "all";

/// One variant, one metric, one concept or all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The method.
    pub variant: String,
    /// The score.
    pub metric: String,
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
    /// Concepts behind the macro mean, prompts behind a concept's; images and seeds are averaged
    /// first.
    pub n: usize,
}

/// The values of one variant and metric, by concept, prompt and seed; images of a prompt are
/// averaged. Order is that of first appearance, so that variants pair up.
fn table(rows: &[ScoreRow], variant: &str, metric: &str) -> Vec<(String, ConceptValues)> {
    type Prompts = Vec<(String, Vec<(u64, Vec<f64>)>)>;
    let mut concepts: Vec<(String, Prompts)> = Vec::new();
    for row in rows.iter().filter(|row| row.variant == variant) {
        let Some(value) = row.metric(metric) else {
            continue;
        };
        let concept = at(
            &mut concepts,
            |c| c.0 == row.concept,
            || (row.concept.clone(), Vec::new()),
        );
        let prompt = at(
            &mut concept.1,
            |p| p.0 == row.prompt,
            || (row.prompt.clone(), Vec::new()),
        );
        let seed = at(
            &mut prompt.1,
            |s| s.0 == row.seed,
            || (row.seed, Vec::new()),
        );
        seed.1.push(value);
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    concepts
        .into_iter()
        .map(|(name, prompts)| {
            let values = prompts
                .into_iter()
                .map(|(_, seeds)| seeds.into_iter().map(|(_, values)| mean(values)).collect())
                .collect();
            (name, values)
        })
        .collect()
}

fn at<T>(list: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let index = list.iter().position(is).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[index]
}

fn differences(ours: &ConceptValues, theirs: &ConceptValues) -> ConceptValues {
    let of_seeds = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a - b).collect();
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| of_seeds(a, b))
        .collect()
}

/// All rows: variants in the given order, the first being the baseline; for each the metrics; for
/// each first the macro mean, then the concepts.
pub fn summarize(rows: &[ScoreRow], variants: &[String]) -> Vec<SummaryRow> {
    let mut summary = Vec::new();
    for (index, variant) in variants.iter().enumerate() {
        for metric in METRICS {
            let ours = table(rows, variant, metric);
            let base = if index == 0 {
                Vec::new()
            } else {
                table(rows, &variants[0], metric)
            };
            let mut add = |concept: &str, chosen: &[usize]| {
                let values: Vec<_> = chosen.iter().map(|i| ours[*i].1.clone()).collect();
                if values.is_empty() {
                    return;
                }
                let paired: Vec<_> = chosen
                    .iter()
                    .filter_map(|i| {
                        let other = base.iter().find(|other| other.0 == ours[*i].0)?;
                        Some(differences(&ours[*i].1, &other.1))
                    })
                    .collect();
                // The same purpose for all variants: the same prompts are drawn for all.
                let purpose = format!("bootstrap {metric} {concept}");
                let Interval { mean, low, high } = bootstrap(&values, &purpose);
                let difference =
                    (paired.len() == values.len()).then(|| bootstrap(&paired, &purpose));
                summary.push(SummaryRow {
                    variant: variant.clone(),
                    metric: metric.to_string(),
                    concept: concept.to_string(),
                    mean,
                    low,
                    high,
                    difference: difference.map(|d| d.mean),
                    difference_low: difference.map(|d| d.low),
                    difference_high: difference.map(|d| d.high),
                    n: match values.as_slice() {
                        [prompts] if concept != ALL_CONCEPTS => prompts.len(),
                        concepts => concepts.len(),
                    },
                });
            };
            let all: Vec<usize> = (0..ours.len()).collect();
            add(ALL_CONCEPTS, &all);
            for i in all {
                add(&ours[i].0, &[i]);
            }
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(variant: &str, concept: &str, prompt: &str, dino: Option<f64>) -> ScoreRow {
        ScoreRow {
            variant: variant.into(),
            concept: concept.into(),
            seed: 0,
            group: "animate".into(),
            kind: "plain".into(),
            prompt: prompt.into(),
            image: String::new(),
            clip_t: 0.25,
            clip_i: None,
            dino,
        }
    }

    #[test]
    fn means_and_paired_differences_are_those_of_the_rows() {
        let mut rows = Vec::new();
        for (prompt, shift) in [("p", 0.0), ("q", 0.2)] {
            rows.push(row("base", "dog", prompt, Some(0.4 + shift)));
            rows.push(row("other", "dog", prompt, Some(0.5 + shift)));
        }
        let summary = summarize(&rows, &["base".into(), "other".into()]);
        let find = |variant: &str, metric: &str| {
            summary
                .iter()
                .find(|r| r.variant == variant && r.metric == metric && r.concept == ALL_CONCEPTS)
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
