//! The tables of a results folder, of which figures are drawn.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use indexmap::IndexSet;

use super::runs::Sources;
use super::{FigureOptions, names};
use crate::curves::CurveRow;
use crate::report::{ALL_CONCEPTS, ScoreTable, SummaryRow, TokenRow, read_rows};
use crate::settings::{SETTINGS, SettingRow};

/// The tables of a results folder.
pub(super) struct ResultTables<'a> {
    pub(super) results: &'a Path,
    /// The means over concepts of every protocol by the suffix of its files.
    pub(super) summaries: Vec<(String, Vec<SummaryRow>)>,
    pub(super) scores: ScoreTable,
    pub(super) tokens: Vec<TokenRow>,
    pub(super) curves: Vec<CurveRow>,
    pub(super) settings: Vec<SettingRow>,
    pub(super) sources: Sources,
    /// All variants, in order, whether they are drawn or not.
    pub(super) variants: Vec<String>,
}

impl<'a> ResultTables<'a> {
    pub(super) fn read(results: &'a Path, options: &FigureOptions) -> Result<Self> {
        let scores = ScoreTable::read(&results.join("scores.csv"))?;
        let mut tables = Self {
            results,
            summaries: Vec::new(),
            tokens: read_rows(&results.join("tokens.csv"))?,
            curves: read_rows(&results.join("curves.csv"))?,
            settings: read_rows(&results.join(SETTINGS))?,
            sources: Sources::read(results, &scores.rows)?,
            scores,
            variants: Vec::new(),
        };
        for suffix in suffixes(results)? {
            let rows: Vec<SummaryRow> = read_rows(&results.join(format!("summary{suffix}.csv")))?;
            let overall = rows.into_iter().filter(|row| row.concept == ALL_CONCEPTS);
            tables.summaries.push((suffix, overall.collect()));
        }
        let of_summaries = tables
            .summaries
            .iter()
            .flat_map(|(_, rows)| rows)
            .map(|row| &row.variant);
        let of_tokens = tables.tokens.iter().map(|row| &row.variant);
        let of_curves = tables.curves.iter().map(|row| &row.variant);
        tables.variants = names(of_summaries.chain(of_tokens).chain(of_curves));
        for name in &options.variants {
            ensure!(
                tables.variants.contains(name),
                "{}: there is no variant `{name}`; it has: {}",
                results.display(),
                tables.variants.join(", ")
            );
        }
        Ok(tables)
    }

    /// The concept of this name, or the first.
    pub(super) fn concept<'b>(&'b self, name: Option<&'b str>) -> Result<&'b str> {
        let rows = self.scores.rows.iter();
        let concepts: IndexSet<&str> = rows.map(|row| row.concept.as_str()).collect();
        let first = concepts.first().copied();
        let concept = name.or(first).context("there is no scores.csv")?;
        ensure!(
            concepts.contains(concept),
            "there is no concept `{concept}`; it has: {}",
            concepts.into_iter().collect::<Vec<_>>().join(", ")
        );
        Ok(concept)
    }

    /// Whether a variant is to be drawn.
    pub(super) fn is_chosen(&self, variant: &str, options: &FigureOptions) -> bool {
        options.variants.is_empty() || options.variants.iter().any(|name| name == variant)
    }
}

/// The ends of the names of `summary*.csv`, that of the first protocol first.
fn suffixes(results: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(results).with_context(|| results.display().to_string())?;
    let mut suffixes = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| results.display().to_string())?
            .file_name();
        let name = name.to_string_lossy();
        if let Some(suffix) = name
            .strip_prefix("summary")
            .and_then(|n| n.strip_suffix(".csv"))
        {
            suffixes.push(suffix.to_string());
        }
    }
    suffixes.sort();
    Ok(suffixes)
}
