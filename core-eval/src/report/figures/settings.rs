//! Curves over a number of the recipe: for each setting that variants change alone, the paired differences to
//! the first variant.

use std::ops::Range;

use anyhow::Result;
use indexmap::IndexMap;
use plotters::prelude::*;

use super::canvas::{Anchor, Area, GRAY, drawing_error, number, palette, span, text, write};
use crate::metrics::Metric;
use crate::report::SummaryRow;
use crate::settings::SettingRow;

/// Width and height of a panel, in pixels.
const PANEL: (u32, u32) = (420, 270);
/// Room below a panel for the values of the setting and its name.
const BELOW: u32 = 46;

/// The settings with their values, in the order of the file.
pub(super) type Curves<'a> = IndexMap<&'a str, Vec<&'a SettingRow>>;

/// The rows by setting, each from the smallest value to the largest.
pub(super) fn curves(rows: &[SettingRow]) -> Curves<'_> {
    let mut curves = Curves::new();
    for row in rows {
        curves.entry(&row.name).or_default().push(row);
    }
    for points in curves.values_mut() {
        points.sort_by(|a, b| a.value.total_cmp(&b.value));
    }
    curves
}

/// The pixels that the panels need.
pub(super) fn size(metrics: &[Metric], curves: &Curves<'_>) -> (u32, u32) {
    (
        PANEL.0 * curves.len() as u32,
        PANEL.1 * metrics.len() as u32,
    )
}

/// One row of panels per metric, one column per setting.
pub(super) fn draw_settings(
    area: &Area,
    rows: &[SummaryRow],
    metrics: &[Metric],
    curves: &Curves<'_>,
    first: &str,
) -> Result<()> {
    let panels = area.split_evenly((metrics.len(), curves.len()));
    let mut panels = panels.iter();
    for (index, metric) in metrics.iter().enumerate() {
        let of_metric: Vec<&SummaryRow> = rows.iter().filter(|row| row.metric == *metric).collect();
        for (name, settings) in curves {
            let points: Vec<Point> = settings
                .iter()
                .filter_map(|setting| Point::of(setting, &of_metric))
                .collect();
            if let Some(panel) = panels.next() {
                let own = of_metric.iter().find(|row| row.variant == first);
                let own = own.map_or(String::new(), |row| format!(" ({:.3})", row.mean));
                let title = format!("{}, difference to {first}{own}", metric.title());
                draw_panel(panel, (&title, name), &points, palette(index))?;
            }
        }
    }
    Ok(())
}

/// A value of the setting with a difference and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    value: f64,
    difference: f64,
    low: f64,
    high: f64,
}

impl Point {
    /// Where the variant has finite scores; the first variant's difference to itself is 0.
    fn of(setting: &SettingRow, rows: &[&SummaryRow]) -> Option<Self> {
        let row = rows.iter().find(|row| row.variant == setting.variant)?;
        let [difference, low, high] = match row.difference {
            Some(difference) => [difference, row.difference_low?, row.difference_high?],
            None => [0.0; 3],
        };
        let point = Self {
            value: setting.value,
            difference,
            low,
            high,
        };
        [difference, low, high]
            .iter()
            .all(|v| v.is_finite())
            .then_some(point)
    }
}

/// Where a value lies along the axis: by its logarithm, unless a value is not above 0.
fn along(points: &[Point]) -> fn(f64) -> f64 {
    match points.iter().all(|point| point.value > 0.0) {
        true => f64::log10,
        false => |value| value,
    }
}

fn draw_panel(
    area: &Area,
    (title, name): (&str, &str),
    points: &[Point],
    color: RGBColor,
) -> Result<()> {
    let along = along(points);
    let x = span(points.iter().map(|point| along(point.value)), 0.08);
    let ends = points.iter().flat_map(|point| [point.low, point.high, 0.0]);
    let y: Range<f64> = span(ends, 0.08);
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(15))
        .margin(8)
        .x_label_area_size(BELOW)
        .y_label_area_size(66)
        .build_cartesian_2d(x.clone(), y)
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(5)
        .label_style(text(13))
        .y_label_formatter(&|value| format!("{value:+.3}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawing_error)?;
    let zero = vec![(x.start, 0.0), (x.end, 0.0)];
    let line = points
        .iter()
        .map(|point| (along(point.value), point.difference));
    chart
        .draw_series([PathElement::new(zero, GRAY.stroke_width(1))])
        .map_err(drawing_error)?;
    chart
        .draw_series(LineSeries::new(line, color.stroke_width(2)))
        .map_err(drawing_error)?;
    for point in points {
        let at = along(point.value);
        let interval = vec![(at, point.low), (at, point.high)];
        chart
            .draw_series([PathElement::new(interval, color.stroke_width(1))])
            .map_err(drawing_error)?;
        // Filled where the interval excludes 0, as in the forest plot.
        let is_clear = point.low > 0.0 || point.high < 0.0;
        let middle = (at, point.difference);
        let inside = if is_clear { color } else { WHITE };
        chart
            .draw_series([Circle::new(middle, 5, inside.filled())])
            .map_err(drawing_error)?;
        chart
            .draw_series([Circle::new(middle, 5, color.stroke_width(2))])
            .map_err(drawing_error)?;
    }
    let bottom = PANEL.1 as i32 - BELOW as i32;
    let left = area.get_pixel_range().0.start;
    for point in points {
        let (across, _) = chart.backend_coord(&(along(point.value), 0.0));
        let label = (across - left, bottom + 6);
        write(area, &short(point.value), label, 13, Anchor::Center)?;
    }
    let middle = (66 + (PANEL.0 as i32 - 74) / 2, bottom + 26);
    write(area, name, middle, 14, Anchor::Center)
}

/// A value in as few letters as it needs.
fn short(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(0.01..10_000.0).contains(&size) => format!("{value:e}"),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_settings_ascend() {
        assert_eq!(short(0.00015), "1.5e-4");
        assert_eq!(short(0.27), "0.27");
        assert_eq!(short(45.0), "45");
        assert_eq!(short(0.0), "0");
        let row = |name: &str, value: f64| SettingRow {
            key: "k".into(),
            name: name.into(),
            variant: value.to_string(),
            value,
        };
        let rows = [row("a", 2.0), row("a", 1.0), row("b", 3.0), row("a", 4.0)];
        let curves = curves(&rows);
        let values: Vec<f64> = curves["a"].iter().map(|row| row.value).collect();
        assert_eq!(values, [1.0, 2.0, 4.0]);
        assert_eq!(curves.len(), 2);
    }

    #[test]
    fn the_first_variant_lies_at_zero_and_a_variant_without_scores_has_no_point() {
        let setting = |variant: &str| SettingRow {
            key: "k".into(),
            name: "k".into(),
            variant: variant.into(),
            value: 2.0,
        };
        let row = |variant: &str, difference: Option<f64>| SummaryRow {
            variant: variant.into(),
            metric: Metric::ALL[0],
            concept: "all".into(),
            mean: 0.5,
            low: 0.4,
            high: 0.6,
            difference,
            difference_low: difference.map(|d| d - 0.1),
            difference_high: difference.map(|d| d + 0.1),
            n: 8,
        };
        let rows = [
            row("CoRe", None),
            row("more", Some(0.2)),
            row("diverged", Some(f64::NAN)),
        ];
        let rows: Vec<&SummaryRow> = rows.iter().collect();
        let first = Point::of(&setting("CoRe"), &rows).map(|point| (point.difference, point.low));
        assert_eq!(first, Some((0.0, 0.0)));
        let more = Point::of(&setting("more"), &rows).map(|point| point.difference);
        assert_eq!(more, Some(0.2));
        assert_eq!(Point::of(&setting("diverged"), &rows), None);
        assert_eq!(Point::of(&setting("absent"), &rows), None);
    }
}
