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
    /// The checks.
    pub(super) checks: &'a [CheckRow],
    /// The variants in their order; the first is the baseline.
    pub(super) variants: &'a [String],
    /// How many seeds were averaged.
    pub(super) seeds: usize,
    /// How the scores of concepts are combined.
    pub(super) averaging: Averaging,
}

impl Table<'_> {
    fn check(&self, variant: &str, measure: &str) -> Option<&CheckRow> {
        let mut rows = self.checks.iter();
        rows.find(|row| row.variant == variant && row.measure == measure)
    }
}

/// Variants as rows and metrics as columns: mean, 95 % interval, and in parentheses the difference to
/// the first variant; below them what photos score; then how to read it, and a table of checks.
pub(super) fn table_markdown(table: &Table<'_>) -> String {
    let titles: Vec<&str> = table.metrics.iter().map(|metric| metric.title()).collect();
    let mut text = header(&titles);
    for variant in table.variants {
        let cells = table.metrics.iter().map(|metric| {
            let mut rows = table.summary.iter().filter(|r| r.concept == ALL_CONCEPTS);
            cell(rows.find(|r| r.variant == *variant && r.metric == *metric))
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(&format!("| {variant} | {} |\n", cells.join(" | ")));
    }
    for (name, of) in [
        ("photos of one concept", "same"),
        ("photos of two concepts", "other"),
    ] {
        let figures = table.metrics.iter().map(|metric| {
            let row = table.check(PHOTOS, &format!("{}_{of}", metric.column()));
            row.map_or("–".to_string(), |row| format!("{:.4}", row.value))
        });
        let figures: Vec<String> = figures.collect();
        text.push_str(&format!("| *{name}* | {} |\n", figures.join(" | ")));
    }
    text.push_str(&legend(table));
    text.push_str(&checks_markdown(table));
    text
}

/// How to read the table of scores.
fn legend(table: &Table<'_>) -> String {
    let overall = table
        .summary
        .iter()
        .filter(|row| row.concept == ALL_CONCEPTS);
    let count = overall.map(|row| row.n).max().unwrap_or(0);
    let concepts = match count {
        1 => "one concept".to_string(),
        count => format!("{count} concepts"),
    };
    let seeds = match table.seeds {
        1 => "one seed, so the intervals do not cover another training".to_string(),
        seeds => format!("{seeds} seeds"),
    };
    let means = match table.averaging {
        Averaging::Macro => "Means over".to_string(),
        Averaging::Pooled => format!(
            "Means over all images, for {} over all pairs of image and photo, of",
            Metric::photo_titles(table.metrics)
        ),
    };
    let how = if count >= ENOUGH_CONCEPTS {
        "concepts, after seeds were averaged"
    } else {
        "prompts and seeds within these fixed concepts, of which there are fewer than 8; so the \
         intervals say nothing about other concepts"
    };
    let baseline = table.variants.first().map_or("the first", String::as_str);
    format!(
        "\n{means} {concepts} with {seeds}; in square brackets 95 % bootstrap intervals. In \
         parentheses the difference to {baseline}, paired by prompt, noise and seed. The bootstrap \
         resamples {how}. The rows in italics are mean cosines between photos of one concept, and \
         between photos of one concept and those of the others.\n"
    )
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

/// Diversity, closeness to the photos, the lowest prompts and, under masked protocols, how often the
/// segmenter found no foreground.
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
             Closest: the highest {title} cosine between an image and a photo; near 1, a photo was \
             copied."
        ));
    }
    if measured("nothing_found") {
        text.push_str(
            " Images without foreground: the share in which the segmenter did not find the class \
             word; they are compared as black images.",
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
