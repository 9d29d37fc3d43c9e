//! `core-eval precision`: how large an experiment must be for an interval of a wanted width.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use indexmap::IndexSet;
use serde::Serialize;

use super::say;
use core_eval::experiment::Experiment;
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
    /// An experiment file: also print the widths of the intervals that its concepts, prompts and images give
    #[arg(long, value_name = "FILE")]
    experiment: Option<PathBuf>,
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
    let sizes = args.experiment.as_deref().map(sizes_of).transpose()?;
    let report = Report {
        width: args.width,
        sizes,
        rows: needed(&metrics, &rows, &first.variant, (args.width, sizes))?,
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?),
        false => report.print(),
    }
    Ok(())
}

/// The numbers of concepts, of prompts per concept and of images per prompt of an experiment.
///
/// # Errors
/// A file that is no experiment; one whose groups of concepts have different numbers of prompts is measured by
/// the smaller number.
fn sizes_of(file: &Path) -> Result<[usize; 3]> {
    let experiment = Experiment::load(file)?;
    let concepts = experiment.concepts.iter();
    let prompts = concepts.map(|concept| experiment.prompts_for(concept).len());
    let prompts = prompts.min().unwrap_or(0);
    ensure!(
        prompts > 0,
        "{}: none of its concept folders is there",
        file.display()
    );
    let images = experiment.sampling.images_per_prompt * experiment.seeds.len();
    Ok([experiment.concept_names().len(), prompts, images])
}

/// Sizes for a wanted width.
#[derive(Debug, Serialize)]
struct Report {
    width: f64,
    /// Concepts, prompts per concept and images per prompt of the experiment that was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    sizes: Option<[usize; 3]>,
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
    /// The width that the experiment has which was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    width_there: Option<f64>,
}

/// The rows of all variants, each without and with the first variant subtracted.
fn needed(
    metrics: &[Metric],
    rows: &[ScoreRow],
    first: &str,
    (width, sizes): (f64, Option<[usize; 3]>),
) -> Result<Vec<Row>> {
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
                    width_there: sizes.map(|sizes| spread.width_at(sizes)),
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
        if let Some([concepts, prompts, images]) = self.sizes {
            say(&format!(
                "The last column is the width with {concepts} concepts, {prompts} prompts per concept and \
                 {images} images per prompt.\n"
            ));
        }
        let [head, rule] = match self.sizes {
            Some(_) => [" width there |", "---|"],
            None => ["", ""],
        };
        say(&format!(
            "| variant | score | sd concepts | sd prompts | sd images | concepts needed | prompts needed | \
             images needed |{head}"
        ));
        say(&format!("|---|---|---|---|---|---|---|---|{rule}"));
        for row in &self.rows {
            let what = match &row.baseline {
                Some(baseline) => format!("{} - {baseline}", row.variant),
                None => row.variant.clone(),
            };
            let counts = [row.concepts_needed, row.prompts_needed, row.images_needed];
            let [c, p, i] =
                counts.map(|count| count.map_or("–".to_string(), |count| count.to_string()));
            let there = row.width_there;
            let there = there.map_or(String::new(), |width| format!(" {width:.4} |"));
            say(&format!(
                "| {what} | {} | {:.4} | {:.4} | {:.4} | {c} | {p} | {i} |{there}",
                row.score, row.sd_concepts, row.sd_prompts, row.sd_images
            ));
        }
    }
}
