//! Curves of a page: context tokens, losses and norms, validation scores.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::data::{Curve, Tokens, ValidationCurve};
use super::images::rounded;
use super::names::Names;
use super::source::Source;
use crate::curves::CurveRow;
use crate::report::TokenRow;
use crate::statistics::mean;

/// The most points of a curve.
const POINTS: u64 = 150;

/// The cosines by variant and prompt, means over concepts and seeds.
pub(super) fn tokens(source: &Source, variants: &mut Names) -> Vec<Tokens> {
    let mut groups: IndexMap<(&str, &str), BTreeMap<usize, Vec<&TokenRow>>> = IndexMap::new();
    for row in &source.tokens {
        let group = groups.entry((&row.variant, &row.prompt)).or_default();
        group.entry(row.position).or_default().push(row);
    }
    let mut tokens = Vec::new();
    for ((variant, prompt), positions) in groups {
        let mut of = Tokens {
            variant: variants.number(variant),
            prompt: prompt.to_string(),
            tokens: Vec::new(),
            mean: Vec::new(),
            low: Vec::new(),
            high: Vec::new(),
        };
        for rows in positions.values() {
            let values = || {
                rows.iter()
                    .map(|row| row.cosine)
                    .filter(|value| value.is_finite())
            };
            let Some(mean) = mean(values()) else { continue };
            of.tokens.push(rows[0].token.clone());
            of.mean.push(rounded(mean));
            of.low.push(rounded(values().fold(f64::INFINITY, f64::min)));
            of.high
                .push(rounded(values().fold(f64::NEG_INFINITY, f64::max)));
        }
        tokens.push(of);
    }
    tokens
}

/// Loss and norm by variant and stage, means over concepts, seeds and neighbouring steps.
pub(super) fn curves(source: &Source, variants: &mut Names) -> Vec<Curve> {
    let mut groups: IndexMap<(&str, &str), Vec<&CurveRow>> = IndexMap::new();
    for row in &source.curves {
        groups
            .entry((&row.variant, &row.stage))
            .or_default()
            .push(row);
    }
    let curve = |((variant, stage), rows): ((&str, &str), Vec<&CurveRow>)| {
        let last = rows.iter().map(|row| row.step).max().unwrap_or(1);
        let width = last.div_ceil(POINTS).max(1);
        let mut points: BTreeMap<u64, Vec<&CurveRow>> = BTreeMap::new();
        for row in rows {
            points
                .entry(row.step.saturating_sub(1) / width)
                .or_default()
                .push(row);
        }
        let finite = |values: Vec<f64>| mean(values.into_iter().filter(|v| v.is_finite()));
        let of = |value: fn(&CurveRow) -> Option<f64>| {
            let means = points.values();
            means
                .map(|rows| finite(rows.iter().filter_map(|row| value(row)).collect()).map(rounded))
                .collect()
        };
        Curve {
            variant: variants.number(variant),
            stage: stage.to_string(),
            step: points
                .keys()
                .map(|point| (point * width + 1) as f64 + (width - 1) as f64 / 2.0)
                .collect(),
            loss: of(|row| Some(row.loss)),
            norm: of(|row| row.embedding_norm),
            rescale: rescaling(source, variant, stage),
        }
    };
    groups.into_iter().map(curve).collect()
}

/// The first and the last step of the rescaling window of a stage, by the configuration of a run.
fn rescaling(source: &Source, variant: &str, stage: &str) -> Option<[u64; 2]> {
    let run = source.runs.iter().find(|run| run.variant == variant)?;
    let config: toml::Table = run.config.as_ref()?.parse().ok()?;
    let stages = config.get("stages")?.as_array()?.iter();
    let mut stages = stages.filter(|table| {
        let name = table.get("name").and_then(toml::Value::as_str);
        name == Some(stage)
    });
    let window = stages.next()?.get("rescale")?;
    let step = |key: &str| window.get(key)?.as_integer()?.try_into().ok();
    Some([step("from")?, step("to")?])
}

/// The scores of validation images by variant, stage and metric, means over concepts and seeds.
pub(super) fn validation(source: &Source, variants: &mut Names) -> Vec<ValidationCurve> {
    let mut groups: IndexMap<_, BTreeMap<u64, Vec<f64>>> = IndexMap::new();
    for row in source.validation.iter().filter(|row| row.mean.is_finite()) {
        let group = groups.entry((&row.variant, &row.stage, row.metric));
        group
            .or_default()
            .entry(row.step)
            .or_default()
            .push(row.mean);
    }
    let groups = groups.into_iter();
    let curves = groups.map(|((variant, stage, metric), steps)| ValidationCurve {
        variant: variants.number(variant),
        stage: stage.clone(),
        metric: metric.column(),
        step: steps.keys().copied().collect(),
        value: steps.into_values().filter_map(mean).map(rounded).collect(),
    });
    curves.collect()
}
