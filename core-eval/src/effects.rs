//! Claims about an experiment, each with a 95 % interval.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::curves::CurveRow;
use crate::metrics::Metric;
use crate::report::{SummaryRow, TokenRow};
use crate::statistics::{Interval, mean, t_interval};

/// A claim and how it is measured. It holds when its 95 % interval is above zero, and with a margin when the
/// interval is above minus the margin.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// `variant` scores more than `baseline`.
    ScoreDifference {
        /// The claim in words.
        name: String,
        /// The metric that is compared.
        metric: Metric,
        /// The variant that is claimed to score higher.
        variant: String,
        /// The variant that it is compared with.
        baseline: String,
        /// How much of the score may be lost: with a margin the claim is that `variant` does not score lower by
        /// as much. Absent: nothing, which claims that it scores more.
        #[serde(default)]
        margin: f64,
    },
    /// The norm of the learned embedding grows during training: the logarithm of its last value over its
    /// first.
    NormGrowth {
        /// The claim in words.
        name: String,
        /// The variant whose embedding is measured.
        variant: String,
        /// The variant whose embedding is claimed to grow less. Absent: the claim is that the norm grows
        /// at all.
        baseline: Option<String>,
    },
    /// The context tokens move away from what they are with the super-category: 1 minus their cosine.
    ContextDrift {
        /// The claim in words.
        name: String,
        /// The variant whose embedding is measured.
        variant: String,
    },
    /// The context tokens of `variant` stay nearer to those of the super-category than the tokens of
    /// `baseline`, by their cosine.
    ContextCosine {
        /// The claim in words.
        name: String,
        /// The variant whose context tokens are claimed to stay nearer.
        variant: String,
        /// The variant that it is compared with.
        baseline: String,
    },
}

impl Effect {
    /// What is claimed.
    pub fn name(&self) -> &str {
        match self {
            Self::ScoreDifference { name, .. }
            | Self::NormGrowth { name, .. }
            | Self::ContextDrift { name, .. }
            | Self::ContextCosine { name, .. } => name,
        }
    }

    /// What may be lost.
    pub(crate) fn margin(&self) -> f64 {
        match self {
            Self::ScoreDifference { margin, .. } => *margin,
            Self::NormGrowth { .. } | Self::ContextDrift { .. } | Self::ContextCosine { .. } => 0.0,
        }
    }

    /// How it is measured, as TOML files say it.
    fn kind(&self) -> &'static str {
        match self {
            Self::ScoreDifference { .. } => "score_difference",
            Self::NormGrowth { .. } => "norm_growth",
            Self::ContextDrift { .. } => "context_drift",
            Self::ContextCosine { .. } => "context_cosine",
        }
    }

    /// The variant that the claim is about.
    fn variant(&self) -> &str {
        match self {
            Self::ScoreDifference { variant, .. }
            | Self::NormGrowth { variant, .. }
            | Self::ContextDrift { variant, .. }
            | Self::ContextCosine { variant, .. } => variant,
        }
    }

    /// The variant that the claim is about, and the one that it is compared with.
    pub(crate) fn variants(&self) -> Vec<&String> {
        match self {
            Self::ScoreDifference {
                variant, baseline, ..
            }
            | Self::ContextCosine {
                variant, baseline, ..
            } => vec![variant, baseline],
            Self::NormGrowth {
                variant, baseline, ..
            } => std::iter::once(variant).chain(baseline).collect(),
            Self::ContextDrift { variant, .. } => vec![variant],
        }
    }
}

/// One row of `effects.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectRow {
    /// What is claimed.
    pub name: String,
    /// How it is measured.
    pub kind: String,
    /// The measured value.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Concepts times seeds; of score differences, the concepts.
    pub n: usize,
    /// Whether the whole interval is above zero, or above minus the margin of the claim.
    pub holds: bool,
}

/// What the claims are checked against.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Rows of `summary.csv` for a pair of variants: the second is the baseline.
    pub difference: &'a dyn Fn(Metric, &str, &str) -> Option<SummaryRow>,
    /// Rows of `tokens.csv`.
    pub tokens: &'a [TokenRow],
    /// Rows of `curves.csv`.
    pub curves: &'a [CurveRow],
}

/// Measures every claim.
///
/// # Errors
/// A claim about a variant for which nothing was measured.
pub fn measure(effects: &[Effect], evidence: Evidence) -> Result<Vec<EffectRow>> {
    effects
        .iter()
        .map(|effect| measure_one(effect, evidence))
        .collect()
}

fn measure_one(effect: &Effect, evidence: Evidence) -> Result<EffectRow> {
    let (interval, n) = match effect {
        Effect::ScoreDifference {
            metric,
            variant,
            baseline,
            ..
        } => score_difference(evidence, *metric, variant, baseline),
        Effect::NormGrowth {
            variant, baseline, ..
        } => over_runs(&growth(evidence.curves, variant, baseline.as_deref())),
        Effect::ContextDrift { variant, .. } => over_runs(&drift(evidence.tokens, variant)),
        Effect::ContextCosine {
            variant, baseline, ..
        } => over_runs(&nearer(evidence.tokens, variant, baseline)),
    }
    .with_context(|| format!("effect `{}`, variant `{}`", effect.name(), effect.variant()))?;
    Ok(EffectRow {
        name: effect.name().to_string(),
        kind: effect.kind().to_string(),
        mean: interval.mean,
        low: interval.low,
        high: interval.high,
        n,
        holds: interval.low > -effect.margin(),
    })
}

/// The paired difference of two variants, and what the bootstrap drew from.
fn score_difference(
    evidence: Evidence,
    metric: Metric,
    variant: &str,
    baseline: &str,
) -> Result<(Interval, usize)> {
    let summary = (evidence.difference)(metric, variant, baseline);
    let summary = summary.with_context(|| format!("no scores `{}`", metric.column()))?;
    let (Some(mean), Some(low), Some(high)) = (
        summary.difference,
        summary.difference_low,
        summary.difference_high,
    ) else {
        bail!("the variant is its own baseline");
    };
    Ok((Interval { mean, low, high }, summary.n))
}

/// Student's interval of one value per concept and seed, and how many there are.
fn over_runs(values: &[f64]) -> Result<(Interval, usize)> {
    ensure!(
        values.len() > 1,
        "there are {} values; an interval needs two concepts or seeds",
        values.len()
    );
    Ok((t_interval(values), values.len()))
}

/// How far the context tokens are from those of the super-category: 1 minus their cosine.
fn drift(tokens: &[TokenRow], variant: &str) -> Vec<f64> {
    let cosines = context_cosines(tokens, variant).into_iter();
    cosines.map(|(_, cosine)| 1.0 - cosine).collect()
}

/// How much nearer the context tokens of `variant` are than those of `baseline`.
fn nearer(tokens: &[TokenRow], variant: &str, baseline: &str) -> Vec<f64> {
    let theirs = context_cosines(tokens, baseline);
    let ours = context_cosines(tokens, variant).into_iter();
    ours.filter_map(|(run, cosine)| {
        let other = theirs.iter().find(|(other, _)| *other == run)?;
        Some(cosine - other.1)
    })
    .collect()
}

/// How much the norm of `variant` grows, per run; with a baseline how much more than that of the same
/// concept and seed.
fn growth(curves: &[CurveRow], variant: &str, baseline: Option<&str>) -> Vec<f64> {
    let ours = norm_growth(curves, variant).into_iter();
    let Some(baseline) = baseline else {
        return ours.map(|(_, growth)| growth).collect();
    };
    let theirs = norm_growth(curves, baseline);
    ours.filter_map(|(run, growth)| {
        let other = theirs.iter().find(|(other, _)| *other == run)?;
        Some(growth - other.1)
    })
    .collect()
}

/// The logarithm of the last norm over the first, per run. Stages that do not train the embedding keep
/// its norm.
fn norm_growth<'a>(curves: &'a [CurveRow], variant: &str) -> Vec<((&'a str, u64), f64)> {
    let mut runs: Vec<((&str, u64), Vec<f64>)> = Vec::new();
    for row in curves.iter().filter(|row| row.variant == variant) {
        let run = (row.concept.as_str(), row.seed);
        let norm = row.embedding_norm;
        match runs.iter_mut().find(|(other, _)| *other == run) {
            Some((_, norms)) => norms.extend(norm),
            None => runs.push((run, norm.into_iter().collect())),
        }
    }
    let growth = |norms: Vec<f64>| Some((norms.last()? / norms.first()?).ln());
    runs.into_iter()
        .filter_map(|(run, norms)| Some((run, growth(norms)?)))
        .collect()
}

/// The mean cosine of the context tokens per concept and seed: first over the positions that Eq. 3 sums
/// over, then over prompts.
fn context_cosines(tokens: &[TokenRow], variant: &str) -> Vec<((String, u64), f64)> {
    let mut prompts: BTreeMap<(&str, u64, &str), Vec<f64>> = BTreeMap::new();
    for row in tokens.iter().filter(|row| row.variant == variant) {
        let prompt = (row.concept.as_str(), row.seed, row.prompt.as_str());
        prompts.entry(prompt).or_default().push(row.cosine);
    }
    let mut cells: BTreeMap<(String, u64), Vec<f64>> = BTreeMap::new();
    for ((concept, seed, _), cosines) in prompts {
        let cell = (concept.to_string(), seed);
        cells.entry(cell).or_default().extend(mean(cosines));
    }
    cells
        .into_iter()
        .filter_map(|(cell, means)| Some((cell, mean(means)?)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(variant: &str, concept: &str, prompt: &str, cosine: f64) -> TokenRow {
        TokenRow {
            variant: variant.into(),
            concept: concept.into(),
            seed: 0,
            prompt: prompt.into(),
            position: 0,
            token: "a".into(),
            cosine,
        }
    }

    fn step(concept: &str, step: u64, embedding_norm: f64) -> CurveRow {
        CurveRow {
            variant: "TI".into(),
            concept: concept.into(),
            seed: 0,
            stage: "embedding".into(),
            step,
            loss: 0.0,
            embedding_norm: Some(embedding_norm),
        }
    }

    fn effects(text: &str) -> Vec<Effect> {
        #[derive(serde::Deserialize)]
        struct File {
            effects: Vec<Effect>,
        }
        toml::from_str::<File>(text).unwrap().effects
    }

    #[test]
    fn claims_are_measured_per_concept_and_seed() {
        let tokens = [
            token("TI", "dog", "p", 0.6),
            token("TI", "dog", "p", 0.8),
            token("TI", "dog", "q", 0.9),
            token("TI", "cat", "p", 0.6),
            token("CoRe", "dog", "p", 0.9),
            token("CoRe", "dog", "q", 0.9),
            token("CoRe", "cat", "p", 0.9),
        ];
        let e = std::f64::consts::E;
        let curves = [
            step("dog", 1, 1.0),
            step("dog", 2, e),
            step("cat", 1, 1.0),
            step("cat", 2, e * e),
        ];
        let evidence = Evidence {
            difference: &|_, _, _| None,
            tokens: &tokens,
            curves: &curves,
        };
        let effects = effects(
            r#"effects = [
                { name = "drift", kind = "context_drift", variant = "TI" },
                { name = "nearer", kind = "context_cosine", variant = "CoRe", baseline = "TI" },
                { name = "norm", kind = "norm_growth", variant = "TI" },
            ]"#,
        );
        let rows = measure(&effects, evidence).unwrap();
        // Dog: prompts .7 and .9, so .8; cat: .6.
        assert!((rows[0].mean - (0.2 + 0.4) / 2.0).abs() < 1e-12);
        assert!((rows[1].mean - (0.1 + 0.3) / 2.0).abs() < 1e-12);
        assert!((rows[2].mean - 1.5).abs() < 1e-12);
        assert!(rows.iter().all(|row| row.n == 2));
        // t(0.975, 1) = 12.706, standard error 0.5: the interval holds zero.
        assert!(!rows[2].holds && (rows[2].high - 1.5 - 12.706 * 0.5).abs() < 1e-3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("effects.csv");
        crate::report::write_rows(&path, &rows).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        insta::assert_snapshot!(text.lines().next().unwrap(), @"name,kind,mean,low,high,n,holds");
    }

    #[test]
    fn growth_is_compared_run_by_run_where_a_baseline_is_named() {
        let e = std::f64::consts::E;
        let mut curves = Vec::new();
        for (concept, ours, theirs) in [("dog", 2.0, 0.5), ("cat", 3.0, 0.75)] {
            for (variant, growth) in [("TI", ours), ("CI", theirs)] {
                for (at, norm) in [(1, 14.0), (2, 14.0 * e.powf(growth))] {
                    curves.push(CurveRow {
                        variant: variant.into(),
                        ..step(concept, at, norm)
                    });
                }
            }
        }
        let evidence = Evidence {
            difference: &|_, _, _| None,
            tokens: &[],
            curves: &curves,
        };
        let effects = effects(
            r#"effects = [
                { name = "grows more", kind = "norm_growth", variant = "TI", baseline = "CI" },
            ]"#,
        );
        assert_eq!(effects[0].variants(), ["TI", "CI"]);
        let row = &measure(&effects, evidence).unwrap()[0];
        // 1.5 and 2.25.
        assert!((row.mean - 1.875).abs() < 1e-12, "{row:?}");
        assert_eq!(row.n, 2);
    }

    #[test]
    fn a_claim_with_a_margin_holds_while_less_than_that_is_lost() {
        let row = |low: f64| SummaryRow {
            variant: "CoRe".into(),
            metric: Metric::ALL[0],
            concept: "all".into(),
            mean: 0.5,
            low: 0.4,
            high: 0.6,
            difference: Some(low + 0.01),
            difference_low: Some(low),
            difference_high: Some(low + 0.02),
            n: 24,
        };
        let column = Metric::ALL[0].column();
        let claim = |more: &str| {
            effects(&format!(
                "effects = [{{ name = \"kept\", kind = \"score_difference\", metric = \"{column}\", variant = \
                 \"CoRe\", baseline = \"TI\"{more} }}]"
            ))
        };
        let holds = |more: &str, low: f64| {
            let evidence = Evidence {
                difference: &|_, _, _| Some(row(low)),
                tokens: &[],
                curves: &[],
            };
            measure(&claim(more), evidence).unwrap()[0].holds
        };
        assert!(holds("", 0.001) && !holds("", 0.0) && !holds("", -0.015));
        assert!(holds(", margin = 0.02", -0.015) && !holds(", margin = 0.02", -0.02));
    }

    #[test]
    fn a_claim_without_measurements_is_an_error() {
        let evidence = Evidence {
            difference: &|_, _, _| None,
            tokens: &[],
            curves: &[],
        };
        let drift = r#"effects = [{ name = "drift", kind = "context_drift", variant = "TI" }]"#;
        let message = measure(&effects(drift), evidence).unwrap_err().to_string();
        assert!(
            message.contains("drift") && message.contains("TI"),
            "{message}"
        );
    }
}
