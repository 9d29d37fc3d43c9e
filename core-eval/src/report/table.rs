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
    let count = summary
        .iter()
        .filter(|row| row.concept == ALL_CONCEPTS)
        .map(|row| row.n)
        .max()
        .unwrap_or(0);
    let how = if count >= ENOUGH_CONCEPTS {
        "concepts are resampled, seeds averaged first"
    } else {
        "with fewer than 8 concepts, prompts and seeds are resampled within these fixed concepts, so \
         the intervals say nothing about other concepts"
    };
    text.push_str(&format!(
        "\nMean over {count} concept(s) [95 % bootstrap interval]; in brackets the difference to {} [its \
         interval], paired by prompt, noise and seed. Bootstrap: {how}.\n",
        variants.first().map_or("the first", String::as_str),
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
