//! Means and intervals: one panel per metric, and text against identity.

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, color, drawing_error, legend, span, text};
use crate::metrics::{Compared, Metric};
use crate::report::SummaryRow;

/// Width of a panel with one metric, and of one with two, in pixels.
pub(super) const SCORE_PANEL: u32 = 260;
pub(super) const TRADEOFF_PANEL: u32 = 450;

/// Whether mean and interval are finite; in a damaged file they may not be.
fn drawable(row: &SummaryRow) -> bool {
    [row.mean, row.low, row.high].iter().all(|v| v.is_finite())
}

/// A point with its interval for every variant, one panel per metric.
pub(super) fn draw_scores(
    area: &Area,
    rows: &[SummaryRow],
    metrics: &[Metric],
    variants: &[String],
) -> Result<()> {
    let (plot, side) = area.split_horizontally(SCORE_PANEL * metrics.len() as u32);
    let panels = plot.split_evenly((1, metrics.len()));
    for (metric, panel) in metrics.iter().zip(&panels) {
        let of_metric = |row: &&SummaryRow| row.metric == *metric && drawable(row);
        let rows: Vec<&SummaryRow> = rows.iter().filter(of_metric).collect();
        if rows.is_empty() {
            continue;
        }
        let y = span(rows.iter().flat_map(|row| [row.low, row.high]), 0.12);
        let x = -0.6..variants.len() as f64 - 0.4;
        let mut chart = ChartBuilder::on(panel)
            .caption(metric.title(), text(18))
            .margin(8)
            .y_label_area_size(54)
            .x_label_area_size(8)
            .build_cartesian_2d(x, y)
            .map_err(drawing_error)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_label_style(text(13))
            .y_label_formatter(&|value| format!("{value:.3}"))
            .light_line_style(WHITE)
            .draw()
            .map_err(drawing_error)?;
        for row in rows {
            let at = variants.iter().position(|v| *v == row.variant).unwrap_or(0) as f64;
            let color = color(variants, &row.variant);
            let line = PathElement::new(vec![(at, row.low), (at, row.high)], color.stroke_width(3));
            chart.draw_series([line]).map_err(drawing_error)?;
            chart
                .draw_series([Circle::new((at, row.mean), 6, color.filled())])
                .map_err(drawing_error)?;
        }
    }
    side.draw(&Text::new("mean, 95 % interval", (6, 22), text(14)))
        .map_err(drawing_error)?;
    legend(&side, variants, variants)
}

/// Every pair of a metric that compares with the text and one that compares with photos.
pub(super) fn tradeoffs(metrics: &[Metric]) -> Vec<[Metric; 2]> {
    let with = |compared| {
        let metrics = metrics.iter().copied();
        metrics.filter(move |metric| metric.compared_with() == compared)
    };
    let of_photos: Vec<Metric> = with(Compared::Photos).collect();
    let pairs = with(Compared::Text);
    pairs
        .flat_map(|text| of_photos.iter().map(move |photos| [text, *photos]))
        .collect()
}

/// How well variants show the photos against how well they follow the prompt: one panel per pair of
/// metrics.
pub(super) fn draw_tradeoffs(
    area: &Area,
    rows: &[SummaryRow],
    pairs: &[[Metric; 2]],
    variants: &[String],
) -> Result<()> {
    let (plot, side) = area.split_horizontally(TRADEOFF_PANEL * pairs.len() as u32);
    let panels = plot.split_evenly((1, pairs.len()));
    for (pair, panel) in pairs.iter().zip(&panels) {
        tradeoff_panel(panel, rows, variants, *pair)?;
    }
    side.draw(&Text::new("mean, 95 % intervals", (6, 22), text(14)))
        .map_err(drawing_error)?;
    legend(&side, variants, variants)
}

fn tradeoff_panel(
    panel: &Area,
    rows: &[SummaryRow],
    variants: &[String],
    [of_text, of_photos]: [Metric; 2],
) -> Result<()> {
    let find = |variant: &String, metric: Metric| {
        rows.iter()
            .find(|row| row.variant == *variant && row.metric == metric && drawable(row))
    };
    let points: Vec<(&String, &SummaryRow, &SummaryRow)> = variants
        .iter()
        .filter_map(|v| Some((v, find(v, of_text)?, find(v, of_photos)?)))
        .collect();
    if points.is_empty() {
        return Ok(());
    }
    let x = span(points.iter().flat_map(|(_, t, _)| [t.low, t.high]), 0.08);
    let y = span(points.iter().flat_map(|(_, _, d)| [d.low, d.high]), 0.08);
    let mut chart = ChartBuilder::on(panel)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y)
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .x_desc(format!("{}: follows the prompt", of_text.title()))
        .y_desc(format!("{}: looks like the photos", of_photos.title()))
        .axis_desc_style(text(15))
        .label_style(text(13))
        .x_label_formatter(&|value| format!("{value:.3}"))
        .y_label_formatter(&|value| format!("{value:.3}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawing_error)?;
    for (variant, t, d) in points {
        let color = color(variants, variant);
        let lines = [
            PathElement::new(
                vec![(t.low, d.mean), (t.high, d.mean)],
                color.stroke_width(2),
            ),
            PathElement::new(
                vec![(t.mean, d.low), (t.mean, d.high)],
                color.stroke_width(2),
            ),
        ];
        chart.draw_series(lines).map_err(drawing_error)?;
        chart
            .draw_series([Circle::new((t.mean, d.mean), 6, color.filled())])
            .map_err(drawing_error)?;
    }
    Ok(())
}
