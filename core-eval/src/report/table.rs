//! `table.md`: the summary for readers.

use super::breakdown::{Breakdown, by_chance};
use super::summary::{ALL_CONCEPTS, SummaryRow, Verdict};
use crate::checks::{CheckRow, NO_FACE, PHOTOS};
use crate::metrics::Metric;
use crate::own_encoder::of_check;
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
/// the first variant; below them what photos score; then how to read it, a table of checks, and tables by
/// kind of prompt and by concept.
pub(super) fn table_markdown(table: &Table<'_>, breakdowns: &[Breakdown]) -> String {
    let titles: Vec<&str> = table.metrics.iter().map(|metric| metric.title()).collect();
    let mut text = header(&titles);
    for variant in table.variants {
        let cells = table.metrics.iter().map(|metric| {
            let mut rows = table.summary.iter().filter(|r| r.concept == ALL_CONCEPTS);
            cell(rows.find(|r| r.variant == *variant && r.metric == *metric))
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(&format!(
            "| {} | {} |\n",
            escaped(variant),
            cells.join(" | ")
        ));
    }
    for (name, figures) in photo_rows(table) {
        let figures = figures
            .into_iter()
            .map(|value| value.map_or("–".to_string(), |value| format!("{value:.4}")));
        let figures: Vec<String> = figures.collect();
        text.push_str(&format!("| *{name}* | {} |\n", figures.join(" | ")));
    }
    let mut photos =
        "The rows in italics are mean cosines between photos of one concept, and between \
                      photos of one concept and those of the others"
            .to_string();
    if photo_rows(table).len() > 2 {
        photos += "; then between the photos that are learned from and those that images are compared \
                   with, and between the latter after the autoencoder and the others of them";
    }
    text.push_str(&format!("\n{} {photos}.\n", plain_legend(table)));
    text.push_str(&checks_markdown(table));
    text.push_str(&breakdowns_markdown(table, breakdowns));
    text
}

/// A name in a cell: neither an end of the cell nor the beginning of an element.
fn escaped(name: &str) -> String {
    name.replace('|', "\\|").replace('<', "&lt;")
}

/// What photos score by every metric: those of one concept among each other, and those of two concepts;
/// where they are not learned from, also those that are, and what the autoencoder makes of them.
pub(super) fn photo_rows(table: &Table<'_>) -> Vec<(&'static str, Vec<Option<f64>>)> {
    let rows = [
        ("photos of one concept", "same"),
        ("photos of two concepts", "other"),
        ("photos learned from", "learned"),
        ("photos after the autoencoder", "decoded"),
    ];
    let rows = rows.into_iter().map(|(name, of)| {
        let figures = table.metrics.iter().map(|metric| {
            let row = table.check(PHOTOS, &format!("{}_{of}", metric.column()));
            row.map(|row| row.value)
        });
        (name, figures.collect::<Vec<_>>())
    });
    let measured = |figures: &[Option<f64>]| figures.iter().any(Option::is_some);
    let rows = rows.enumerate();
    let rows = rows.filter(|(index, (_, figures))| *index < 2 || measured(figures));
    rows.map(|(_, row)| row).collect()
}

/// Means by kind of prompt and by concept.
fn breakdowns_markdown(table: &Table<'_>, breakdowns: &[Breakdown]) -> String {
    let baseline = table.variants.first().map_or("the first", String::as_str);
    let mut text = String::new();
    for breakdown in breakdowns {
        let titles: Vec<String> = breakdown.columns.iter().map(|name| escaped(name)).collect();
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        text += &format!("\n{} by {}:\n\n", breakdown.metric.title(), breakdown.by);
        text += &header(&titles);
        for (variant, cells) in &breakdown.rows {
            let cells = cells
                .iter()
                .map(|row| row.as_ref().map_or("–".into(), marked));
            let cells: Vec<String> = cells.collect();
            text += &format!("| {} | {} |\n", escaped(variant), cells.join(" | "));
        }
    }
    if !breakdowns.is_empty() {
        text += &format!(
            "\n↑ and ↓: the 95 % interval of the paired difference to {} excludes 0.",
            escaped(baseline)
        );
        let cells = breakdowns.iter().map(Breakdown::compared).sum();
        text += &by_chance(cells).map_or(String::new(), |sentence| format!(" {sentence}"));
        text.push('\n');
    }
    text
}

/// A mean, with an arrow where its paired difference excludes 0.
fn marked(row: &SummaryRow) -> String {
    let mark = match row.verdict() {
        Some(Verdict::Higher) => " ↑",
        Some(Verdict::Lower) => " ↓",
        _ => "",
    };
    format!("{:.3}{mark}", row.mean)
}

/// How to read the table of scores.
pub(super) fn plain_legend(table: &Table<'_>) -> String {
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
        "{means} {concepts} with {seeds}; in square brackets 95 % bootstrap intervals. In \
         parentheses the difference to {baseline}, paired by prompt, noise and seed. The bootstrap \
         resamples {how}."
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

/// A measure that is a count.
const SMALL_FOREGROUNDS: &str = "small_foregrounds";

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
    columns.push((NO_FACE.to_string(), "images without a face".to_string()));
    for metric in metrics.iter().filter(|metric| metric.reads_faces()) {
        columns.push((
            format!("{}_zeros", metric.column()),
            format!("{}, those as 0", metric.title()),
        ));
    }
    columns.push((
        "nothing_found".to_string(),
        "images without foreground".to_string(),
    ));
    columns.push((
        SMALL_FOREGROUNDS.to_string(),
        "foregrounds under 3 %".to_string(),
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
                _ if [SMALL_FOREGROUNDS, NO_FACE].contains(&measure) => format!("{:.0}", row.value),
                _ => format!("{:.4}", row.value),
            })
        };
        let cells: Vec<String> = columns.iter().map(|(measure, _)| figure(measure)).collect();
        text.push_str(&format!(
            "| {} | {} |\n",
            escaped(variant),
            cells.join(" | ")
        ));
    }
    if let Some(metric) = Metric::of_instances(table.metrics) {
        let title = metric.title();
        text.push_str(&format!(
            "\nDiversity: 1 minus the mean {title} cosine between two images of one prompt. \
             Closest: the highest {title} cosine between an image and a photo; near 1, a photo was \
             copied."
        ));
    }
    if measured(NO_FACE) {
        text.push_str(
            " Images without a face: the number of images in which no face was found. The table of \
             scores leaves them out; the column beside the number has the mean in which they count as 0.",
        );
    }
    if measured("nothing_found") {
        text.push_str(
            " Images without foreground: the share in which the segmenter did not find the class \
             word; they are compared as black images.",
        );
    }
    if measured(SMALL_FOREGROUNDS) {
        text.push_str(
            " Foregrounds under 3 %: the number of images of which the mask shows less than that, \
             those without foreground included.",
        );
    }
    text.push('\n');
    let checks = table.checks.iter();
    for sentence in checks.filter_map(|row| of_check(&row.variant, &row.measure, &row.place)) {
        text.push_str(&format!("\n{}\n", escaped(&sentence)));
    }
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
