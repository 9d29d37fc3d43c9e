//! `core-eval precision`: how large an experiment must be for an interval of a wanted width.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use indexmap::IndexSet;

use super::say;
use core_eval::precision::spread;
use core_eval::report::ScoreTable;

/// Arguments of `core-eval precision`.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// Folder with scores.csv, as results/reference/ablation
    folder: PathBuf,
    /// Wanted width of the 95 % intervals, from end to end, in the unit of the scores
    #[arg(long, default_value_t = 0.05)]
    width: f64,
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
    let variants: IndexSet<&str> = rows.iter().map(|row| row.variant.as_str()).collect();
    say(&format!(
        "Sizes for a 95 % interval of width {}, estimated from the standard deviations between concepts, \
         prompts and\nimages. Concepts needed to generalise to new concepts; prompts per concept, or \
         images per prompt, needed\nto describe these concepts only (the other sizes unchanged).\n",
        args.width
    ));
    say(
        "| variant | score | sd concepts | sd prompts | sd images | concepts needed | prompts needed | \
         images needed |",
    );
    say("|---|---|---|---|---|---|---|---|");
    for variant in variants {
        for baseline in [None, Some(first.variant.as_str())] {
            if baseline == Some(variant) {
                continue;
            }
            let what = match baseline {
                Some(baseline) => format!("{variant} - {baseline}"),
                None => variant.to_string(),
            };
            for metric in metrics.iter().copied() {
                if !rows.iter().any(|row| row.scores[metric].is_some()) {
                    continue;
                }
                let spread = spread(&rows, metric, variant, baseline)?;
                let column = metric.column();
                let [concepts, prompts, images] =
                    [spread.concepts, spread.prompts, spread.images].map(f64::sqrt);
                let needed = [
                    spread.concepts_for(args.width),
                    spread.prompts_for(args.width),
                    spread.images_for(args.width),
                ];
                let [c, p, i] =
                    needed.map(|count| count.map_or("–".to_string(), |count| count.to_string()));
                say(&format!(
                    "| {what} | {column} | {concepts:.4} | {prompts:.4} | {images:.4} | {c} | {p} | {i} |"
                ));
            }
        }
    }
    Ok(())
}
