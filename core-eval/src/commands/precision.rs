//! `core-eval precision`: how large an experiment must be for an interval of a wanted width.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use indexmap::IndexSet;
use serde::Serialize;

use super::say;
use core_eval::metrics::Metric;
use core_eval::precision::spread;
use core_eval::report::{ScoreRow, ScoreTable};

/// Arguments of `core-eval precision`.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// Folder with scores.csv, as results/reference/ablation
    folder: PathBuf,
    /// Wanted width of the 95 % intervals, from end to end, in the unit of the scores
    #[arg(long, default_value_t = 0.05)]
    width: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints, for every variant and score and for differences to the first variant, the standard deviation
/// by level and the sizes that an interval of the wanted width needs.
///
/// # Errors
/// No scores, damaged ones, a width that is not above zero.
pub(crate) fn run(args: &PrecisionArgs) -> Result<()> {
    ensure!(
        args.width > 0.0 && args.width.is_finite(),
        "--width is {}; expected a number above 0",
        args.width
    );
    let path = args.folder.join("scores.csv");
    let ScoreTable { metrics, rows } = ScoreTable::read(&path)?;
    let Some(first) = rows.first() else {
        anyhow::bail!(
            "{}: holds no scores; name a folder that an experiment wrote, as results/reference/ablation",
            path.display()
        );
    };
    let report = Report {
        width: args.width,
        rows: needed(&metrics, &rows, &first.variant, args.width)?,
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?),
        false => report.print(),
    }
    Ok(())
}

/// Sizes for a wanted width.
#[derive(Debug, Serialize)]
struct Report {
    width: f64,
    rows: Vec<Row>,
}

/// One score of a variant, or its difference to that of the first variant.
#[derive(Debug, Serialize)]
struct Row {
    variant: String,
    /// The variant whose score is subtracted, for differences.
    baseline: Option<String>,
    score: &'static str,
    sd_concepts: f64,
    sd_prompts: f64,
    sd_images: f64,
    /// `None` where even the largest number tried is too small.
    concepts_needed: Option<usize>,
    prompts_needed: Option<usize>,
    images_needed: Option<usize>,
}

/// The rows of all variants, each without and with the first variant subtracted.
fn needed(metrics: &[Metric], rows: &[ScoreRow], first: &str, width: f64) -> Result<Vec<Row>> {
    let variants: IndexSet<&str> = rows.iter().map(|row| row.variant.as_str()).collect();
    let mut needed = Vec::new();
    for variant in variants {
        for baseline in [None, Some(first)] {
            if baseline == Some(variant) {
                continue;
            }
            for metric in metrics.iter().copied() {
                if !rows.iter().any(|row| row.scores[metric].is_some()) {
                    continue;
                }
                let spread = spread(rows, metric, variant, baseline)?;
                needed.push(Row {
                    variant: variant.to_string(),
                    baseline: baseline.map(str::to_string),
                    score: metric.column(),
                    sd_concepts: spread.concepts.sqrt(),
                    sd_prompts: spread.prompts.sqrt(),
                    sd_images: spread.images.sqrt(),
                    concepts_needed: spread.concepts_for(width),
                    prompts_needed: spread.prompts_for(width),
                    images_needed: spread.images_for(width),
                });
            }
        }
    }
    Ok(needed)
}

impl Report {
    fn print(&self) {
        say(&format!(
            "Sizes for a 95 % interval of width {}, estimated from the standard deviations between concepts, \
             prompts and\nimages. Concepts needed to generalise to new concepts; prompts per concept, or \
             images per prompt, needed\nto describe these concepts only (the other sizes unchanged).\n",
            self.width
        ));
        say(
            "| variant | score | sd concepts | sd prompts | sd images | concepts needed | prompts needed | \
             images needed |",
        );
        say("|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            let what = match &row.baseline {
                Some(baseline) => format!("{} - {baseline}", row.variant),
                None => row.variant.clone(),
            };
            let counts = [row.concepts_needed, row.prompts_needed, row.images_needed];
            let [c, p, i] =
                counts.map(|count| count.map_or("–".to_string(), |count| count.to_string()));
            say(&format!(
                "| {what} | {} | {:.4} | {:.4} | {:.4} | {c} | {p} | {i} |",
                row.score, row.sd_concepts, row.sd_prompts, row.sd_images
            ));
        }
    }
}
