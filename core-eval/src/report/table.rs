//! `table.md`: the summary for readers.

use super::summary::{ALL_CONCEPTS, METRICS, SummaryRow};
use crate::statistics::ENOUGH_CONCEPTS;

/// Column titles, in the order of [`METRICS`].
const TITLES: [&str; 3] = ["CLIP-T", "CLIP-I", "DINO"];

/// Variants as rows, scores as columns: mean, 95 % interval, and the difference to the first
/// variant in brackets.
pub fn table_markdown(summary: &[SummaryRow], variants: &[String]) -> String {
    let overall = |variant: &str, metric: &str| {
        summary
            .iter()
            .find(|r| r.variant == variant && r.metric == metric && r.concept == ALL_CONCEPTS)
    };
    let mut text = format!("| variant | {} |\n|---|---|---|---|\n", TITLES.join(" | "));
    for variant in variants {
        let cells: Vec<String> = METRICS
            .iter()
            .map(|metric| cell(overall(variant, metric)))
            .collect();
        text.push_str(&format!("| {variant} | {} |\n", cells.join(" | ")));
    }
    let mut concepts: Vec<&str> = summary.iter().map(|row| row.concept.as_str()).collect();
    concepts.retain(|concept| *concept != ALL_CONCEPTS);
    concepts.sort_unstable();
    concepts.dedup();
    let n = summary.iter().map(|row| row.n).max().unwrap_or(0);
    let how = if concepts.len() >= ENOUGH_CONCEPTS {
        "concepts were resampled"
    } else {
        "prompts and seeds were resampled within fixed concepts, so the intervals say nothing about \
         other concepts"
    };
    text.push_str(&format!(
        "\nMean [95 % bootstrap interval] (difference to {} [its interval], paired by prompt, noise and \
         seed). {} concepts, {n} images a variant; {how}.\n",
        variants.first().map_or("the first", String::as_str),
        concepts.len(),
    ));
    text
}

fn cell(row: Option<&SummaryRow>) -> String {
    let Some(row) = row else { return "–".into() };
    let mut text = format!("{:.4} [{:.4}, {:.4}]", row.mean, row.low, row.high);
    if let (Some(d), Some(low), Some(high)) =
        (row.difference, row.difference_low, row.difference_high)
    {
        text.push_str(&format!(" ({d:+.4} [{low:+.4}, {high:+.4}])"));
    }
    text
}
