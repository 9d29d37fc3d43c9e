//! Plots, each a function of the CSV files of a results folder.

mod canvas;
mod curves;
mod learning;
mod scores;
mod tokens;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{ALL_CONCEPTS, SummaryRow, TokenRow, font, read_rows};
use crate::curves::CurveRow;
use crate::metrics::Metric;
use canvas::draw;
use scores::{SCORE_PANEL, TRADEOFF_PANEL};

/// Width of the legend beside panels, in pixels.
const LEGEND: u32 = 220;

/// Draws every plot for which the folder has rows, into `plots/`, and returns their files.
///
/// # Errors
/// Unreadable CSV files, an unwritable folder.
pub fn draw_all(results: &Path) -> Result<Vec<PathBuf>> {
    font::register()?;
    let folder = results.join("plots");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let summary: Vec<SummaryRow> = read_rows(&results.join("summary.csv"))?;
    let tokens: Vec<TokenRow> = read_rows(&results.join("tokens.csv"))?;
    let curves: Vec<CurveRow> = read_rows(&results.join("curves.csv"))?;
    let mut drawn = Vec::new();
    let variants = names(summary.iter().map(|row| &row.variant));
    let overall: Vec<SummaryRow> = summary
        .into_iter()
        .filter(|row| row.concept == ALL_CONCEPTS)
        .collect();
    let metrics: Vec<Metric> = Metric::ALL
        .iter()
        .copied()
        .filter(|metric| overall.iter().any(|row| row.metric == *metric))
        .collect();
    if !metrics.is_empty() {
        let size = (SCORE_PANEL * metrics.len() as u32 + LEGEND, 420);
        drawn.push(draw(&folder, "scores.png", size, |area| {
            scores::draw_scores(area, &overall, &metrics, &variants)
        })?);
    }
    let tradeoffs = scores::tradeoffs(&metrics);
    if !tradeoffs.is_empty() {
        let size = (TRADEOFF_PANEL * tradeoffs.len() as u32 + LEGEND, 440);
        drawn.push(draw(&folder, "tradeoff.png", size, |area| {
            scores::draw_tradeoffs(area, &overall, &tradeoffs, &variants)
        })?);
    }
    if !curves.is_empty() {
        drawn.push(draw(&folder, "curves.png", (1000, 420), |area| {
            curves::draw_curves(area, &curves, &variants)
        })?);
    }
    if !tokens.is_empty() {
        drawn.push(draw(&folder, "tokens.png", (860, 460), |area| {
            tokens::draw_tokens(area, &tokens, &variants)
        })?);
    }
    let learning = learning::learning_curves(results)?;
    if !learning.is_empty() {
        let size = learning::size(&learning);
        drawn.push(draw(&folder, "learning.png", size, |area| {
            learning::draw_learning(area, &learning)
        })?);
    }
    Ok(drawn)
}

/// Names in order of first appearance.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The variants that have rows, in the order of all variants.
fn trained<'a>(rows: impl Iterator<Item = &'a String>, variants: &[String]) -> Vec<String> {
    let trained = names(rows);
    let known: Vec<String> = variants
        .iter()
        .filter(|variant| trained.contains(variant))
        .cloned()
        .collect();
    if known.is_empty() { trained } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_nan_are_left_out_of_a_plot() {
        let folder = tempfile::tempdir().expect("a folder");
        let header =
            "variant,metric,concept,mean,low,high,difference,difference_low,difference_high,n";
        let row = |variant: &str, metric: &str, mean: &str| {
            format!("{variant},{metric},all,{mean},0.1,0.3,,,,3\n")
        };
        let mut text = format!("{header}\n");
        for metric in Metric::ALL {
            text += &row("CoRe", metric.column(), "0.2");
            text += &row("diverged", metric.column(), "NaN");
        }
        std::fs::write(folder.path().join("summary.csv"), text).expect("a file");
        assert_eq!(draw_all(folder.path()).expect("plots").len(), 2);
    }

    #[test]
    fn variants_keep_their_colours_when_some_are_left_out() {
        let all: Vec<String> = ["class word", "TI", "CoRe"].map(String::from).to_vec();
        let rows = ["CoRe", "TI"].map(String::from);
        let some = trained(rows.iter(), &all);
        assert_eq!(some, ["TI", "CoRe"]);
        assert_eq!(canvas::color(&all, "TI"), canvas::palette(1));
    }
}
