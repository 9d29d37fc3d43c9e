//! How well variants follow the prompt against how much they resemble the photos: all of them, and
//! beside it the differences to the first variant of those that lie close to it.

use anyhow::Result;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::canvas::{Anchor, Area, GRAY, color, drawing_error, rule, span, text, write};
use super::surface::Surface;
use crate::metrics::{Compared, Metric};
use crate::report::SummaryRow;
use crate::report::font::wrapped;

/// Width of a panel, of the names beside it, and the height of both, in pixels.
const PANEL: u32 = 400;
const NAMES: u32 = 190;
const HEIGHT: u32 = 380;
/// Variants whose differences are below this share of the largest are shown closely.
const CLOSE: f64 = 0.25;

/// The pixels that the panels need.
pub(super) fn size(pairs: &[[Metric; 2]]) -> (u32, u32) {
    (2 * (PANEL + NAMES), HEIGHT * pairs.len() as u32)
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

/// A variant in a panel: value, low and high end along each axis.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    variant: String,
    x: [f64; 3],
    y: [f64; 3],
}

impl Mark {
    fn is_finite(&self) -> bool {
        self.x.iter().chain(&self.y).all(|value| value.is_finite())
    }
}

/// Two panels for each pair of metrics.
pub(super) fn draw_tradeoffs(
    area: &Area,
    rows: &[SummaryRow],
    pairs: &[[Metric; 2]],
    variants: &[String],
) -> Result<()> {
    let strips = area.split_evenly((pairs.len(), 1));
    for ([of_text, of_photos], strip) in pairs.iter().zip(&strips) {
        let (left, right) = strip.split_horizontally(PANEL + NAMES);
        let means = marks(rows, variants, [*of_text, *of_photos], mean);
        let titles = [
            format!("{}: follows the prompt", of_text.title()),
            format!("{}: resembles the photos", of_photos.title()),
        ];
        draw_panel(&left, "means, 95 % intervals", &titles, &means, variants)?;
        let paired = marks(rows, variants, [*of_text, *of_photos], difference);
        let near = close(&paired);
        if !near.is_empty() {
            let baseline = variants.first().map_or("", String::as_str);
            let title = match near.len() == paired.len() {
                true => format!("paired differences to {baseline}"),
                false => format!("those close to {baseline}: paired differences"),
            };
            let titles =
                [*of_text, *of_photos].map(|metric| format!("{}, difference", metric.title()));
            draw_panel(&right, &title, &titles, &near, variants)?;
        }
    }
    Ok(())
}

fn mean(row: &SummaryRow) -> Option<[f64; 3]> {
    Some([row.mean, row.low, row.high])
}

fn difference(row: &SummaryRow) -> Option<[f64; 3]> {
    Some([row.difference?, row.difference_low?, row.difference_high?])
}

/// The variants that have finite values by both metrics.
fn marks(
    rows: &[SummaryRow],
    variants: &[String],
    pair: [Metric; 2],
    value: fn(&SummaryRow) -> Option<[f64; 3]>,
) -> Vec<Mark> {
    let find = |variant: &String, metric: Metric| {
        let mut rows = rows.iter();
        value(rows.find(|row| row.variant == *variant && row.metric == metric)?)
    };
    let marks = variants.iter().filter_map(|variant| {
        Some(Mark {
            variant: variant.clone(),
            x: find(variant, pair[0])?,
            y: find(variant, pair[1])?,
        })
    });
    marks.filter(Mark::is_finite).collect()
}

/// The variants whose differences are small beside the largest; all where none are.
fn close(paired: &[Mark]) -> Vec<Mark> {
    let largest = |of: fn(&Mark) -> f64| paired.iter().map(of).fold(0.0, f64::max);
    let [x, y] = [largest(|m| m.x[0].abs()), largest(|m| m.y[0].abs())];
    let near = |mark: &&Mark| mark.y[0].abs() <= CLOSE * y && mark.x[0].abs() <= x;
    let close: Vec<Mark> = paired.iter().filter(near).cloned().collect();
    match close.len() {
        0 | 1 => paired.to_vec(),
        _ => close,
    }
}

fn draw_panel(
    area: &Area,
    title: &str,
    [x_title, y_title]: &[String; 2],
    marks: &[Mark],
    variants: &[String],
) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let (plot, _) = area.split_horizontally(PANEL);
    let zero = marks.iter().any(|mark| mark.x[1] < 0.0);
    let origin = if zero { Some(0.0) } else { None };
    let x = span(marks.iter().flat_map(|mark| mark.x).chain(origin), 0.08);
    let y = span(marks.iter().flat_map(|mark| mark.y).chain(origin), 0.08);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, text(15))
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(6)
        .x_desc(x_title)
        .y_desc(y_title)
        .axis_desc_style(text(14))
        .label_style(text(13))
        .x_label_formatter(&|value| format!("{value:.3}"))
        .y_label_formatter(&|value| format!("{value:.3}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawing_error)?;
    if origin.is_some() {
        for line in [
            [(x.start, 0.0), (x.end, 0.0)],
            [(0.0, y.start), (0.0, y.end)],
        ] {
            chart
                .draw_series([PathElement::new(line.to_vec(), GRAY.stroke_width(1))])
                .map_err(drawing_error)?;
        }
    }
    for mark in marks {
        draw_mark(&mut chart, mark, color(variants, &mark.variant))?;
    }
    draw_names(area, &chart, marks, variants)
}

type Chart<'a> = ChartContext<'a, Surface<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A point and its intervals.
fn draw_mark(chart: &mut Chart<'_>, mark: &Mark, color: RGBColor) -> Result<()> {
    let (at_x, at_y) = (mark.x[0], mark.y[0]);
    for line in [
        [(mark.x[1], at_y), (mark.x[2], at_y)],
        [(at_x, mark.y[1]), (at_x, mark.y[2])],
    ] {
        chart
            .draw_series([PathElement::new(line.to_vec(), color.stroke_width(1))])
            .map_err(drawing_error)?;
    }
    chart
        .draw_series([Circle::new((at_x, at_y), 5, color.filled())])
        .map_err(drawing_error)?;
    Ok(())
}

/// The names of variants in a column beside the panel, in the order of their heights, each with a line
/// to its point, so that names of points on one spot can be read.
fn draw_names(area: &Area, chart: &Chart<'_>, marks: &[Mark], variants: &[String]) -> Result<()> {
    let (left, top) = {
        let (x, y) = area.get_pixel_range();
        (x.start, y.start)
    };
    let mut places: Vec<(i32, i32, &Mark)> = Vec::new();
    for mark in marks {
        let (x, y) = chart.backend_coord(&(mark.x[0], mark.y[0]));
        places.push((x - left, y - top, mark));
    }
    places.sort_by_key(|(x, y, _)| (*y, -*x));
    let heights: Vec<i32> = places.iter().map(|(_, y, _)| *y).collect();
    let tall: Vec<i32> = places
        .iter()
        .map(|(.., mark)| 15 * lines(mark) + 5)
        .collect();
    let spread = spread(&heights, &tall, (24, HEIGHT as i32 - 24));
    for ((x, y, mark), at) in places.into_iter().zip(spread) {
        let color = color(variants, &mark.variant);
        let begin = PANEL as i32 + 8;
        rule(area, (x + 6, y), (begin - 3, at), RGBColor(190, 190, 190))?;
        let square = Rectangle::new([(begin, at - 5), (begin + 10, at + 5)], color.filled());
        area.draw(&square).map_err(drawing_error)?;
        let words = wrapped(&mark.variant, NAME);
        let first = at - 15 * (words.len() as i32 - 1) / 2;
        for (line, words) in words.iter().enumerate() {
            let y = first + 15 * line as i32;
            write(area, words, (begin + 16, y), 13, Anchor::Left)?;
        }
    }
    Ok(())
}

/// The most letters in a line of a name.
const NAME: usize = 24;

fn lines(mark: &Mark) -> i32 {
    wrapped(&mark.variant, NAME).len() as i32
}

/// Heights for names of these sizes near wanted ones, which ascend, so that none overlap.
fn spread(wanted: &[i32], sizes: &[i32], (top, bottom): (i32, i32)) -> Vec<i32> {
    let mut places: Vec<i32> = Vec::new();
    let mut free = top;
    for (want, size) in wanted.iter().zip(sizes) {
        let at = (*want).max(free + size / 2);
        places.push(at);
        free = at + size - size / 2;
    }
    // What hangs over the lower edge pushes those above it up.
    let mut limit = bottom;
    for (place, size) in places.iter_mut().zip(sizes).rev() {
        *place = (*place).min(limit - (size - size / 2));
        limit = *place - size / 2;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_near_one_height_are_spread_without_overlap() {
        let places = spread(&[100, 100, 101, 300], &[20, 20, 40, 20], (0, 310));
        assert_eq!(places, [100, 120, 150, 300]);
        // The last name stays inside, and those before it make room.
        assert_eq!(spread(&[95, 99], &[20, 20], (0, 100)), [70, 90]);
    }

    #[test]
    fn variants_far_from_the_baseline_are_left_out_of_the_close_panel() {
        let mark = |variant: &str, y: f64| Mark {
            variant: variant.into(),
            x: [0.01, 0.0, 0.02],
            y: [y, y - 0.01, y + 0.01],
        };
        let all = [mark("a", -0.01), mark("b", 0.02), mark("TI", -0.5)];
        let near: Vec<String> = close(&all).into_iter().map(|mark| mark.variant).collect();
        assert_eq!(near, ["a", "b"]);
        assert_eq!(close(&all[1..]).len(), 2, "one alone is not shown apart");
    }
}
