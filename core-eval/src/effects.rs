//! Claims about an experiment, each with a 95 % interval.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::curves::CurveRow;
use crate::experiment::Effect;
use crate::report::{SummaryRow, TokenRow};
use crate::statistics::t_interval;

/// One row of `effects.csv`.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Concepts times seeds, or what the bootstrap drew from.
    pub n: usize,
    /// Whether the whole interval is above zero.
    pub holds: bool,
}

/// What the claims are checked against.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Rows of `summary.csv` for a pair of variants: the second is the baseline.
    pub difference: &'a dyn Fn(&str, &str, &str) -> Option<SummaryRow>,
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
    let row = |kind: &str, (mean, low, high): (f64, f64, f64), n: usize| EffectRow {
        name: effect.name().to_string(),
        kind: kind.to_string(),
        mean,
        low,
        high,
        n,
        holds: low > 0.0,
    };
    match effect {
        Effect::ScoreDifference {
            metric,
            variant,
            baseline,
            ..
        } => {
            let Some(summary) = (evidence.difference)(metric, variant, baseline) else {
                bail!(
                    "effect `{}`: no scores `{metric}` of `{variant}`",
                    effect.name()
                );
            };
            let (Some(mean), Some(low), Some(high)) = (
                summary.difference,
                summary.difference_low,
                summary.difference_high,
            ) else {
                bail!(
                    "effect `{}`: `{variant}` is its own baseline",
                    effect.name()
                );
            };
            Ok(row("score_difference", (mean, low, high), summary.n))
        }
        Effect::NormGrowth { variant, .. } => {
            let values = norm_growth(evidence.curves, variant);
            Ok(row(
                "norm_growth",
                interval(effect, variant, &values)?,
                values.len(),
            ))
        }
        Effect::ContextDrift { variant, .. } => {
            let cosines = context_cosines(evidence.tokens, variant);
            let values: Vec<f64> = cosines
                .into_iter()
                .map(|(_, cosine)| 1.0 - cosine)
                .collect();
            Ok(row(
                "context_drift",
                interval(effect, variant, &values)?,
                values.len(),
            ))
        }
        Effect::ContextCosine {
            variant, baseline, ..
        } => {
            let ours = context_cosines(evidence.tokens, variant);
            let theirs = context_cosines(evidence.tokens, baseline);
            let values: Vec<f64> = ours
                .iter()
                .filter_map(|(cell, cosine)| {
                    let other = theirs.iter().find(|(other, _)| other == cell)?;
                    Some(cosine - other.1)
                })
                .collect();
            Ok(row(
                "context_cosine",
                interval(effect, variant, &values)?,
                values.len(),
            ))
        }
    }
}

fn interval(effect: &Effect, variant: &str, values: &[f64]) -> Result<(f64, f64, f64)> {
    if values.len() < 2 {
        bail!(
            "effect `{}`: {} value(s) for `{variant}`; an interval needs two concepts or seeds",
            effect.name(),
            values.len()
        );
    }
    let crate::statistics::Interval { mean, low, high } = t_interval(values);
    Ok((mean, low, high))
}

/// Logarithm of last to first norm over the first stage of every run.
fn norm_growth(curves: &[CurveRow], variant: &str) -> Vec<f64> {
    let mut runs: Vec<((&str, u64), Vec<f64>)> = Vec::new();
    for row in curves.iter().filter(|row| row.variant == variant) {
        let run = (row.concept.as_str(), row.seed);
        match runs.iter_mut().find(|(other, _)| *other == run) {
            Some((_, norms)) => norms.push(row.embedding_norm),
            None => runs.push((run, vec![row.embedding_norm])),
        }
    }
    let growth = |norms: Vec<f64>| Some((norms.last()? / norms.first()?).ln());
    runs.into_iter()
        .filter_map(|(_, norms)| growth(norms))
        .collect()
}

/// The mean cosine of the context tokens of every concept and seed.
///
/// The text encoder is causal: tokens before the concept are the same whatever the concept is, so
/// only those after it are averaged.
fn context_cosines(tokens: &[TokenRow], variant: &str) -> Vec<((String, u64), f64)> {
    let mut cells: Vec<((String, u64), Vec<f64>)> = Vec::new();
    for row in tokens
        .iter()
        .filter(|row| row.variant == variant && row.cosine < 1.0 - 1e-6)
    {
        let cell = (row.concept.clone(), row.seed);
        match cells.iter_mut().find(|(other, _)| *other == cell) {
            Some((_, cosines)) => cosines.push(row.cosine),
            None => cells.push((cell, vec![row.cosine])),
        }
    }
    let mean = |cosines: Vec<f64>| cosines.iter().sum::<f64>() / cosines.len() as f64;
    cells
        .into_iter()
        .map(|(cell, cosines)| (cell, mean(cosines)))
        .collect()
}
