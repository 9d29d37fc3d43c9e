//! The scores of the images that people compared, for the agreement of metrics with votes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::read_to_string;
use serde_json::Value;

use super::key::KeyRow;
use super::material::{Place, places};
use crate::metrics::Metric;
use crate::report::ScoreTable;

/// A metric under a protocol, with the score of every image.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    /// The name of the protocol.
    pub(super) protocol: String,
    /// The metric.
    pub(super) metric: Metric,
    scores: BTreeMap<(String, Place), f64>,
}

impl Scored {
    /// The score of the first image of a pair less that of the second; none where one has no score.
    pub(super) fn difference(&self, pair: &KeyRow) -> Option<f64> {
        let of = |variant: &str| self.scores.get(&(variant.to_string(), pair.place()));
        Some(of(&pair.first)? - of(&pair.second)?)
    }
}

/// All metrics under all protocols of a results folder.
///
/// # Errors
/// Damaged tables.
pub(super) fn scored(results: &Path) -> Result<Vec<Scored>> {
    let entries = std::fs::read_dir(results).with_context(|| results.display().to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let mut suffixes: Vec<String> = names
        .filter_map(|name| {
            let suffix = name.strip_prefix("scores")?.strip_suffix(".csv")?;
            (suffix.is_empty() || suffix.starts_with('-')).then(|| suffix.to_string())
        })
        .collect();
    suffixes.sort();
    let mut all = Vec::new();
    for suffix in suffixes {
        let table = ScoreTable::read(&results.join(format!("scores{suffix}.csv")))?;
        let protocol = protocol_name(&results.join(format!("protocol{suffix}.json")))?;
        let places = places(&table.rows);
        for metric in &table.metrics {
            let rows = table.rows.iter().zip(&places);
            let scores = rows.filter_map(|(row, place)| {
                Some(((row.variant.clone(), place.clone()), row.scores[*metric]?))
            });
            all.push(Scored {
                protocol: protocol.clone(),
                metric: *metric,
                scores: scores.collect(),
            });
        }
    }
    Ok(all)
}

fn protocol_name(path: &Path) -> Result<String> {
    let protocol: Value =
        serde_json::from_str(&read_to_string(path)?).with_context(|| path.display().to_string())?;
    let name = protocol["protocol"]["name"].as_str();
    let name = name.with_context(|| format!("{}: its protocol has no name", path.display()))?;
    Ok(name.to_string())
}
