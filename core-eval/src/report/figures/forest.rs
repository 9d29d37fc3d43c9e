//! Paired differences to the first variant with their intervals: the question that the table answers.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Anchor, Area, GRAY, color, drawing_error, rule, span, write};
use crate::metrics::Metric;
use crate::report::breakdown::by_chance;
use crate::report::font::wrapped;
use crate::report::{SummaryRow, Verdict};

/// Width of the column of names, of a panel, and of the column of numbers beside it, in pixels.
const NAMES: i32 = 230;
const PANEL: i32 = 250;
const NUMBERS: i32 = 150;
/// Height of a row, of what is above the rows, and of what is below them.
const ROW: i32 = 44;
const TOP: i32 = 64;
const BOTTOM: i32 = 76;
/// The radius of a point.
const POINT: i32 = 5;

/// The pixels that the figure needs.
pub(super) fn size(metrics: &[Metric], variants: &[String]) -> (u32, u32) {
    let width = NAMES + (PANEL + NUMBERS) * metrics.len() as i32;
    let height = TOP + ROW * variants.len() as i32 + BOTTOM;
    (width as u32, height as u32)
}

/// Rows are variants, panels are metrics. A filled point's interval excludes 0, a hollow one's does not.
pub(super) fn draw_forest(
    area: &Area,
    rows: &[SummaryRow],
    metrics: &[Metric],
    variants: &[String],
) -> Result<()> {
    let baseline = variants.first().map_or("", String::as_str);
    write(area, "variant", (10, TOP - 16), 15, Anchor::Left)?;
    for (row, variant) in variants.iter().enumerate() {
        let middle = middle(row);
        let name = match row {
            0 => format!("{variant} (baseline)"),
            _ => variant.clone(),
        };
        let lines = wrapped(&name, 30);
        let first = middle - 8 * (lines.len() as i32 - 1);
        for (line, words) in lines.iter().enumerate() {
            let y = first + 16 * line as i32;
            write(area, words, (10, y), 14, Anchor::Left)?;
        }
        let width = NAMES + (PANEL + NUMBERS) * metrics.len() as i32;
        rule(
            area,
            (0, middle - ROW / 2),
            (width, middle - ROW / 2),
            RGBColor(225, 225, 225),
        )?;
    }
    for (index, metric) in metrics.iter().enumerate() {
        let left = NAMES + (PANEL + NUMBERS) * index as i32;
        let of_metric: Vec<&SummaryRow> = rows.iter().filter(|row| row.metric == *metric).collect();
        draw_panel(area, left, (metric.title(), baseline), &of_metric, variants)?;
    }
    let bottom = TOP + ROW * variants.len() as i32 + BOTTOM - 14;
    let compared = rows.iter().filter(|row| row.difference.is_some()).count();
    if let Some(sentence) = by_chance(compared) {
        write(area, &sentence, (10, bottom), 13, Anchor::Left)?;
    }
    let note = "filled: the 95 % interval of the paired difference excludes 0; hollow: no difference \
                shown; arrow: outside the panel, see its number";
    write(area, note, (10, bottom - 18), 13, Anchor::Left)
}

/// The height of the middle of a row.
fn middle(row: usize) -> i32 {
    TOP + ROW * row as i32 + ROW / 2
}

fn draw_panel(
    area: &Area,
    left: i32,
    (title, baseline): (&str, &str),
    rows: &[&SummaryRow],
    variants: &[String],
) -> Result<()> {
    write(area, title, (left + PANEL / 2, 18), 17, Anchor::Center)?;
    let about = wrapped(&format!("difference to {baseline}"), 36);
    let about = about.first().map_or("", String::as_str);
    write(area, about, (left + PANEL / 2, 38), 13, Anchor::Center)?;
    write(
        area,
        "mean",
        (left + PANEL + 12, TOP - 16),
        13,
        Anchor::Left,
    )?;
    write(
        area,
        "difference",
        (left + PANEL + 62, TOP - 16),
        13,
        Anchor::Left,
    )?;
    let ends = rows
        .iter()
        .filter_map(|row| Some([row.difference_low?, row.difference_high?]));
    let panel = Panel {
        left,
        x: shown(&ends.flatten().collect::<Vec<_>>()),
    };
    let bottom = TOP + ROW * variants.len() as i32;
    let ticks = ticks(&panel.x);
    for tick in ticks.iter().copied() {
        let at = panel.across(tick);
        rule(area, (at, bottom), (at, bottom + 4), GRAY)?;
        let label = (at, bottom + 16);
        write(
            area,
            &signed(tick, decimals(&ticks)),
            label,
            13,
            Anchor::Center,
        )?;
    }
    rule(area, (left + 12, bottom), (left + PANEL - 12, bottom), GRAY)?;
    let zero = panel.across(0.0);
    rule(area, (zero, TOP - 4), (zero, bottom), BLACK)?;
    for row in rows {
        if let Some(place) = variants.iter().position(|v| *v == row.variant) {
            panel.draw_row(area, middle(place), row, color(variants, &row.variant))?;
        }
    }
    Ok(())
}

/// A panel's left edge and the differences that it spans.
struct Panel {
    left: i32,
    x: Range<f64>,
}

impl Panel {
    fn across(&self, value: f64) -> i32 {
        let Range { start, end } = self.x;
        let inner = f64::from(PANEL - 24);
        self.left + 12 + ((value.clamp(start, end) - start) / (end - start) * inner) as i32
    }

    /// A variant: its point, its interval and its numbers.
    fn draw_row(&self, area: &Area, y: i32, row: &SummaryRow, color: RGBColor) -> Result<()> {
        let numbers = self.left + PANEL + 12;
        write(area, &short(row.mean), (numbers, y), 14, Anchor::Left)?;
        let (Some(difference), Some(low), Some(high)) =
            (row.difference, row.difference_low, row.difference_high)
        else {
            return write(area, "–", (numbers + 50, y), 14, Anchor::Left);
        };
        if [difference, low, high].iter().any(|v| !v.is_finite()) {
            return write(area, "NaN or infinite", (numbers + 50, y), 13, Anchor::Left);
        }
        let line = vec![(self.across(low), y), (self.across(high), y)];
        area.draw(&PathElement::new(line, color.stroke_width(2)))
            .map_err(drawing_error)?;
        if self.x.contains(&difference) {
            let hollow = row.verdict() == Some(Verdict::NoDifferenceShown);
            draw_point(area, (self.across(difference), y), color, hollow)?;
        } else {
            self.draw_arrow(area, y, difference, color)?;
        }
        let text = signed(difference, 3);
        write(area, &text, (numbers + 50, y - 7), 14, Anchor::Left)?;
        let interval = format!("[{}, {}]", signed(low, 3), signed(high, 3));
        write(area, &interval, (numbers + 50, y + 8), 11, Anchor::Left)
    }

    /// An arrow at the edge on the side of a difference that lies outside.
    fn draw_arrow(&self, area: &Area, y: i32, difference: f64, color: RGBColor) -> Result<()> {
        let (tip, back) = match difference < self.x.start {
            true => (self.left + 3, 10),
            false => (self.left + PANEL - 3, -10),
        };
        let corners = vec![(tip, y), (tip + back, y - 6), (tip + back, y + 6)];
        area.draw(&Polygon::new(corners, color.filled()))
            .map_err(drawing_error)
    }
}

fn draw_point(area: &Area, at: (i32, i32), color: RGBColor, hollow: bool) -> Result<()> {
    area.draw(&Circle::new(at, POINT + 1, color.filled()))
        .map_err(drawing_error)?;
    if hollow {
        area.draw(&Circle::new(at, POINT - 2, WHITE.filled()))
            .map_err(drawing_error)?;
    }
    Ok(())
}

/// The range of a panel. A few differences that are far larger than the others do not stretch it: they are
/// arrows at its edge.
fn shown(ends: &[f64]) -> Range<f64> {
    let finite = ends.iter().copied().filter(|end| end.is_finite());
    let mut sizes: Vec<f64> = finite.map(f64::abs).collect();
    sizes.sort_by(f64::total_cmp);
    let limit = FAR * sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
    let far = sizes.last().is_some_and(|largest| *largest > 2.0 * limit);
    let near = |end: &f64| !far || end.abs() <= limit;
    span(ends.iter().copied().filter(near).chain([0.0]), 0.12)
}

/// How many times as large as the middle one a difference may be.
const FAR: f64 = 4.0;

/// A number with its sign, without the zero before the point.
fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let text = text.strip_prefix('0').unwrap_or(&text);
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    match (is_zero, value < 0.0) {
        (true, _) => "0".into(),
        (false, true) => format!("−{text}"),
        (false, false) => format!("+{text}"),
    }
}

/// A score without the zero before the point.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    match text.strip_prefix("-0") {
        Some(rest) => format!("−{rest}"),
        None => text.strip_prefix('0').unwrap_or(&text).to_string(),
    }
}

/// Up to six round numbers in a range.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let width = range.end - range.start;
    let powers = (-4..=2).map(|power| 10.0_f64.powi(power));
    let mut steps = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * power));
    let step = steps.find(|step| width / step <= 4.5);
    let step = step.unwrap_or(width / 4.0);
    let first = (range.start / step).ceil() as i64;
    let last = (range.end / step).floor() as i64;
    let numbers = first..=last;
    numbers.map(|number| number as f64 * step).collect()
}

/// The decimals that ticks need.
fn decimals(ticks: &[f64]) -> usize {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).next();
    match step {
        Some(step) if step < 0.0099 => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_sign_and_no_zero_before_the_point() {
        assert_eq!(signed(-0.0144, 3), "−.014");
        assert_eq!(signed(0.2, 2), "+.20");
        assert_eq!(signed(-0.0001, 3), "0");
        assert_eq!(short(0.5713), ".571");
        assert_eq!(short(-0.04), "−.040");
        assert_eq!(short(1.0), "1.000");
    }

    #[test]
    fn differences_far_beyond_the_others_do_not_stretch_the_panel() {
        let near = [-0.014, 0.010, -0.026, -0.003, -0.03, 0.002];
        let all = [&near[..], &[-0.62, -0.44]].concat();
        assert_eq!(shown(&near), shown(&all));
        let even = shown(&[-0.5, 0.2, -0.3, 0.4]);
        assert!(even.start < -0.5 && even.end > 0.4, "{even:?}");
    }

    #[test]
    fn ticks_are_few_and_round() {
        assert_eq!(ticks(&(-0.02..0.015)), [-0.02, -0.01, 0.0, 0.01]);
        assert_eq!(ticks(&(-0.25..0.15)), [-0.2, -0.1, 0.0, 0.1]);
        assert_eq!(decimals(&[-0.005, 0.0, 0.005]), 3);
        assert_eq!(decimals(&[-0.1, 0.0]), 2);
    }
}
