//! `table.tex`: the summary and its breakdowns for a paper, with the rules of booktabs.

use super::breakdown::{Breakdown, by_chance};
use super::summary::{ALL_CONCEPTS, SummaryRow, Verdict};
use super::table::{Table, photo_rows, plain_legend};

/// Columns of a breakdown that fit on a page.
const COLUMNS: usize = 7;

/// The whole file: the main table, then one table for each breakdown.
pub(super) fn table_latex(table: &Table<'_>, breakdowns: &[Breakdown]) -> String {
    let mut text = "% \\usepackage{booktabs} in the preamble\n".to_string();
    text += &main_table(table);
    for breakdown in breakdowns {
        for start in (0..breakdown.columns.len()).step_by(COLUMNS) {
            let end = (start + COLUMNS).min(breakdown.columns.len());
            text += &breakdown_table(breakdown, start..end, table);
        }
    }
    text
}

fn main_table(table: &Table<'_>) -> String {
    let titles = table
        .metrics
        .iter()
        .map(|metric| format!(" & {}", escaped(metric.title())));
    let mut body = format!("variant{} \\\\\n\\midrule\n", titles.collect::<String>());
    for (index, variant) in table.variants.iter().enumerate() {
        body += &escaped(variant);
        for metric in table.metrics {
            let mut rows = table
                .summary
                .iter()
                .filter(|row| row.concept == ALL_CONCEPTS);
            let row = rows.find(|row| row.variant == *variant && row.metric == *metric);
            body += &format!(
                " & {}",
                row.map_or("--".into(), |row| cell(row, index == 0))
            );
        }
        body += " \\\\\n";
    }
    body += "\\midrule\n";
    for (name, figures) in photo_rows(table) {
        let figures = figures.into_iter().map(|value| match value {
            Some(value) => format!(" & {}", number(value)),
            None => " & --".into(),
        });
        body += &format!("\\emph{{{name}}}{} \\\\\n", figures.collect::<String>());
    }
    let caption = format!(
        "{} A difference is bold where its interval excludes 0.",
        escaped(&plain_legend(table))
    );
    floating(table.metrics.len(), &body, &caption)
}

/// The mean with its interval and, of all but the baseline, the paired difference with its own.
fn cell(row: &SummaryRow, baseline: bool) -> String {
    let mean = format!(
        "{} [{}, {}]",
        number(row.mean),
        number(row.low),
        number(row.high)
    );
    let (Some(difference), Some(low), Some(high)) =
        (row.difference, row.difference_low, row.difference_high)
    else {
        return mean;
    };
    if baseline {
        return mean;
    }
    let difference = signed(difference);
    let difference = match row.verdict() {
        Some(Verdict::Higher | Verdict::Lower) => format!("\\textbf{{{difference}}}"),
        _ => difference,
    };
    format!("{mean} ({difference} [{}, {}])", signed(low), signed(high))
}

fn breakdown_table(of: &Breakdown, columns: std::ops::Range<usize>, table: &Table<'_>) -> String {
    let titles = of.columns[columns.clone()]
        .iter()
        .map(|name| format!(" & {}", escaped(name)));
    let mut body = format!("variant{} \\\\\n\\midrule\n", titles.collect::<String>());
    for (variant, cells) in &of.rows {
        body += &escaped(variant);
        for row in &cells[columns.clone()] {
            body += &match row {
                None => " & --".to_string(),
                Some(row) => format!(" & {}{}", number(row.mean), mark(row)),
            };
        }
        body += " \\\\\n";
    }
    let baseline = table.variants.first().map_or("the first", String::as_str);
    let caption = format!(
        "{} by {}. An arrow marks a mean whose paired difference to {} has a 95\\,\\% interval that \
         excludes 0.{}",
        escaped(of.metric.title()),
        of.by,
        escaped(baseline),
        by_chance(of.compared()).map_or(String::new(), |text| format!(" {}", escaped(&text)))
    );
    floating(columns.len(), &body, &caption)
}

fn mark(row: &SummaryRow) -> &'static str {
    match row.verdict() {
        Some(Verdict::Higher) => "$\\uparrow$",
        Some(Verdict::Lower) => "$\\downarrow$",
        _ => "",
    }
}

/// A table with so many columns of numbers.
fn floating(columns: usize, body: &str, caption: &str) -> String {
    format!(
        "\n\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{l{}}}\n\\toprule\n{body}\\bottomrule\n\
         \\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n",
        "c".repeat(columns)
    )
}

fn number(value: f64) -> String {
    match value < 0.0 {
        true => format!("$-${:.3}", value.abs()),
        false => format!("{value:.3}"),
    }
}

fn signed(value: f64) -> String {
    let sign = if value < 0.0 { "$-$" } else { "+" };
    format!("{sign}{:.3}", value.abs())
}

/// A name as LaTeX prints it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{CheckRow, PHOTOS};
    use crate::metrics::Metric;
    use crate::protocol::Averaging;

    fn row(variant: &str, concept: &str, mean: f64, difference: Option<[f64; 3]>) -> SummaryRow {
        SummaryRow {
            variant: variant.into(),
            metric: Metric::named("dino").expect("a metric"),
            concept: concept.into(),
            mean,
            low: mean - 0.05,
            high: mean + 0.05,
            difference: difference.map(|d| d[0]),
            difference_low: difference.map(|d| d[1]),
            difference_high: difference.map(|d| d[2]),
            n: 2,
        }
    }

    #[test]
    fn names_of_variants_are_escaped() {
        assert_eq!(
            escaped("50 % & $x_1^2$ {~} <img> #\\"),
            "50 \\% \\& \\$x\\_1\\textasciicircum{}2\\$ \\{\\textasciitilde{}\\} \
             \\textless{}img\\textgreater{} \\#\\textbackslash{}"
        );
    }

    #[test]
    fn the_table_is_set_with_booktabs() {
        let metrics = [Metric::named("dino").expect("a metric")];
        let variants = ["CoRe".to_string(), "50 % off".to_string()];
        let summary = [
            row("CoRe", ALL_CONCEPTS, 0.571, None),
            row("CoRe", "dog", 0.6, None),
            row("CoRe", "cup", 0.54, None),
            row("50 % off", ALL_CONCEPTS, -0.02, Some([-0.591, -0.7, -0.5])),
            row("50 % off", "dog", 0.61, Some([0.01, -0.02, 0.03])),
            row("50 % off", "cup", 0.6, Some([0.06, 0.01, 0.1])),
        ];
        let checks = [CheckRow {
            variant: PHOTOS.into(),
            measure: "dino_same".into(),
            value: 0.872,
            place: String::new(),
        }];
        let table = Table {
            metrics: &metrics,
            summary: &summary,
            checks: &checks,
            variants: &variants,
            seeds: 1,
            averaging: Averaging::Macro,
        };
        let by_concept = super::super::breakdown::by_concept(&metrics, &summary, &variants);
        insta::assert_snapshot!(table_latex(&table, &by_concept), @r"
        % \usepackage{booktabs} in the preamble

        \begin{table}
        \centering
        \begin{tabular}{lc}
        \toprule
        variant & DINO \\
        \midrule
        CoRe & 0.571 [0.521, 0.621] \\
        50 \% off & $-$0.020 [$-$0.070, 0.030] (\textbf{$-$0.591} [$-$0.700, $-$0.500]) \\
        \midrule
        \emph{photos of one concept} & 0.872 \\
        \emph{photos of two concepts} & -- \\
        \bottomrule
        \end{tabular}
        \caption{Means over 2 concepts with one seed, so the intervals do not cover another training; in square brackets 95 \% bootstrap intervals. In parentheses the difference to CoRe, paired by prompt, noise and seed. The bootstrap resamples prompts and seeds within these fixed concepts, of which there are fewer than 8; so the intervals say nothing about other concepts. A difference is bold where its interval excludes 0.}
        \end{table}

        \begin{table}
        \centering
        \begin{tabular}{lcc}
        \toprule
        variant & dog & cup \\
        \midrule
        CoRe & 0.600 & 0.540 \\
        50 \% off & 0.610 & 0.600$\uparrow$ \\
        \bottomrule
        \end{tabular}
        \caption{DINO by concept. An arrow marks a mean whose paired difference to CoRe has a 95\,\% interval that excludes 0. Even if no method differed from another, about 0.1 of these 2 intervals at 95 \% would exclude 0 by chance.}
        \end{table}
        ");
    }
}
