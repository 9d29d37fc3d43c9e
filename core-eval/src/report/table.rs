//! `table.md`: the summary for readers.

use super::summary::{ALL_CONCEPTS, SummaryRow};
use crate::checks::{CheckRow, PHOTOS};
use crate::metrics::Metric;
use crate::protocol::Averaging;
use crate::statistics::ENOUGH_CONCEPTS;

/// What the table is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    /// The metrics that ran.
    pub(super) metrics: &'a [Metric],
    /// Means and intervals.
    pub(super) summary: &'a [SummaryRow],
    /// What the photos score, and what else there is to know.
    pub(super) checks: &'a [CheckRow],
    /// The variants in their order; the first is the baseline.
    pub(super) variants: &'a [String],
    /// How many seeds were averaged.
    pub(super) seeds: usize,
    /// How concepts became one number.
    pub(super) averaging: Averaging,
}

impl Table<'_> {
    fn check(&self, variant: &str, measure: &str) -> Option<&CheckRow> {
        let mut rows = self.checks.iter();
        rows.find(|row| row.variant == variant && row.measure == measure)
    }
}

/// Variants as rows, scores as columns: mean, 95 % interval, and the difference to the first
/// variant in brackets; below them what photos score; then a table of checks.
pub(super) fn table_markdown(table: &Table<'_>) -> String {
    let overall = |variant: &str, metric: Metric| {
        table
            .summary
            .iter()
            .find(|r| r.variant == variant && r.metric == metric && r.concept == ALL_CONCEPTS)
    };
    let metrics = || table.metrics.iter().copied();
    let titles: Vec<&str> = metrics().map(Metric::title).collect();
    let mut text = header(&titles);
    for variant in table.variants {
        let cells: Vec<String> = metrics()
            .map(|metric| cell(overall(variant, metric)))
            .collect();
        text.push_str(&format!("| {variant} | {} |\n", cells.join(" | ")));
    }
    for (name, of) in [
        ("photos of one concept", "same"),
        ("photos of two concepts", "other"),
    ] {
        let figure = |metric: Metric| {
            let row = table.check(PHOTOS, &format!("{}_{of}", metric.column()));
            row.map_or("–".to_string(), |row| format!("{:.4}", row.value))
        };
        let figures: Vec<String> = metrics().map(figure).collect();
        text.push_str(&format!("| *{name}* | {} |\n", figures.join(" | ")));
    }
    let count = table
        .summary
        .iter()
        .filter(|row| row.concept == ALL_CONCEPTS)
        .map(|row| row.n)
        .max()
        .unwrap_or(0);
    let seeds = match table.seeds {
        1 => "one seed, so the intervals say nothing about another training".to_string(),
        seeds => format!("{seeds} seeds"),
    };
    let how = if count >= ENOUGH_CONCEPTS {
        "concepts are resampled, seeds averaged first"
    } else {
        "with fewer than 8 concepts, prompts and seeds are resampled within these fixed concepts, so \
         the intervals say nothing about other concepts"
    };
    let over = match table.averaging {
        Averaging::Macro => "Mean over".to_string(),
        Averaging::Pooled => format!(
            "Mean over all images, for {} all pairs, of",
            Metric::photo_titles(table.metrics)
        ),
    };
    text.push_str(&format!(
        "\n{over} {count} concept(s), {seeds} [95 % bootstrap interval]; in brackets the difference to {} \
         [its interval], paired by prompt, noise and seed. Bootstrap: {how}. The rows in italics are \
         cosines of photos with each other: of one concept, and of one concept with the others.\n",
        table.variants.first().map_or("the first", String::as_str),
    ));
    text.push_str(&checks_markdown(table));
    text
}

/// The first two lines of a table.
fn header(titles: &[&str]) -> String {
    format!(
        "| variant | {} |\n|---|{}\n",
        titles.join(" | "),
        "---|".repeat(titles.len())
    )
}

/// The measures that the second table may have, each with its title.
fn check_columns(metrics: &[Metric]) -> Vec<(String, String)> {
    let mut columns = vec![("diversity".to_string(), "diversity".to_string())];
    if let Some(metric) = Metric::of_instances(metrics) {
        let title = format!("closest to a photo ({})", metric.title());
        columns.push(("closest".to_string(), title));
    }
    for metric in metrics {
        if metric.definition().worst_prompt_in_table() {
            columns.push((
                format!("lowest_{}", metric.column()),
                format!("lowest {} of a prompt", metric.title()),
            ));
        }
    }
    columns.push((
        "nothing_found".to_string(),
        "images without foreground".to_string(),
    ));
    columns
}

/// Diversity, closeness to the photos, the worst prompts and, of masked protocols, how often
/// nothing was found.
fn checks_markdown(table: &Table<'_>) -> String {
    let measured = |measure: &str| table.checks.iter().any(|row| row.measure == measure);
    let mut columns = check_columns(table.metrics);
    columns.retain(|(measure, _)| measured(measure));
    let titles: Vec<&str> = columns.iter().map(|(_, title)| title.as_str()).collect();
    let mut text = format!("\n{}", header(&titles));
    for variant in table.variants {
        let figure = |measure: &str| {
            let row = table.check(variant, measure);
            row.map_or("–".to_string(), |row| match row.place.as_str() {
                prompt if measure.starts_with("lowest") => format!("{:.4} ({prompt})", row.value),
                _ => format!("{:.4}", row.value),
            })
        };
        let cells: Vec<String> = columns.iter().map(|(measure, _)| figure(measure)).collect();
        text.push_str(&format!("| {variant} | {} |\n", cells.join(" | ")));
    }
    if let Some(metric) = Metric::of_instances(table.metrics) {
        let title = metric.title();
        text.push_str(&format!(
            "\nDiversity: 1 minus the mean {title} cosine between two images of one prompt. \
             Closest: the highest {title} cosine of an image to a photo; near 1 a photo was copied."
        ));
    }
    if measured("nothing_found") {
        text.push_str(
            " Images without foreground: those in which the mask judge did not find the class \
             word; they are compared as black pictures.",
        );
    }
    text.push('\n');
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
