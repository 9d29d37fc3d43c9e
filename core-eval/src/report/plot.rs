//! Plots, each a function of the CSV files of a results folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use core_model::files::write_png;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::font::{self, FAMILY};
use super::{ALL_CONCEPTS, SummaryRow, TokenRow, read_rows};
use crate::curves::CurveRow;
use crate::metrics::Metric;
use crate::statistics::mean;

mod curves;
mod learning;

/// Colours that colour-blind readers tell apart (Okabe and Ito), then the same darker.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Widths of panels and of the legend beside them, in pixels.
const SCORE_PANEL: u32 = 260;
const TRADEOFF_PANEL: u32 = 450;
const LEGEND: u32 = 220;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws every plot for which the folder has rows, into `plots/`, and tells which.
///
/// # Errors
/// Unreadable CSV files, an unwritable folder.
pub fn draw_all(results: &Path) -> Result<Vec<PathBuf>> {
    font::register()?;
    let folder = results.join("plots");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let summary: Vec<SummaryRow> = read_rows(&results.join("summary.csv"))?;
    let tokens: Vec<TokenRow> = read_rows(&results.join("tokens.csv"))?;
    let curves: Vec<CurveRow> = read_rows(&results.join("curves.csv"))?;
    let mut drawn = Vec::new();
    let variants = names(summary.iter().map(|row| &row.variant));
    let overall: Vec<SummaryRow> = summary
        .into_iter()
        .filter(|row| row.concept == ALL_CONCEPTS)
        .collect();
    let metrics: Vec<Metric> = Metric::ALL
        .iter()
        .copied()
        .filter(|metric| overall.iter().any(|row| row.metric == *metric))
        .collect();
    if !metrics.is_empty() {
        let size = (SCORE_PANEL * metrics.len() as u32 + LEGEND, 420);
        drawn.push(draw(&folder, "scores.png", size, |area| {
            scores(area, &overall, &metrics, &variants)
        })?);
    }
    let tradeoffs = tradeoffs(&metrics);
    if !tradeoffs.is_empty() {
        let size = (TRADEOFF_PANEL * tradeoffs.len() as u32 + LEGEND, 440);
        drawn.push(draw(&folder, "tradeoff.png", size, |area| {
            tradeoff(area, &overall, &tradeoffs, &variants)
        })?);
    }
    if !curves.is_empty() {
        drawn.push(draw(&folder, "curves.png", (1000, 420), |area| {
            curves::draw_curves(area, &curves, &variants)
        })?);
    }
    if !tokens.is_empty() {
        drawn.push(draw(&folder, "tokens.png", (860, 460), |area| {
            draw_tokens(area, &tokens, &variants)
        })?);
    }
    let learning = learning::learning_curves(results)?;
    if !learning.is_empty() {
        let size = learning::size(&learning);
        drawn.push(draw(&folder, "learning.png", size, |area| {
            learning::draw_learning(area, &learning)
        })?);
    }
    Ok(drawn)
}

/// Names in order of first appearance.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Draws beside the file and renames.
fn draw(
    folder: &Path,
    name: &str,
    size: (u32, u32),
    paint: impl FnOnce(&Area) -> Result<()>,
) -> Result<PathBuf> {
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        area.fill(&WHITE).map_err(oops)?;
        paint(&area)?;
        area.present().map_err(oops)?;
    }
    let image = image::RgbImage::from_raw(size.0, size.1, pixels).context("a plot has pixels")?;
    let path = folder.join(name);
    write_png(&path, &image)?;
    Ok(path)
}

fn oops(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

fn color(variants: &[String], variant: &str) -> RGBColor {
    let index = variants
        .iter()
        .position(|other| other == variant)
        .unwrap_or(0);
    palette(index)
}

fn palette(index: usize) -> RGBColor {
    let RGBColor(r, g, b) = PALETTE[index % PALETTE.len()];
    let darker =
        |value: u8| (f64::from(value) * 0.55_f64.powi((index / PALETTE.len()) as i32)) as u8;
    RGBColor(darker(r), darker(g), darker(b))
}

fn text(size: u32) -> TextStyle<'static> {
    (FAMILY, size).into_font().color(&BLACK)
}

/// The span of values with a margin on both sides.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> std::ops::Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    let width = (high - low).max(1e-6);
    low - margin * width..high + margin * width
}

/// A column of names beside coloured squares, in the colours that they have among all.
fn legend(area: &Area, all: &[String], some: &[String]) -> Result<()> {
    let mut y = 50;
    for variant in some {
        y += legend_line(area, color(all, variant), variant, (6, y))?;
    }
    Ok(())
}

/// Letters in a line of a legend.
const LEGEND_WIDTH: usize = 25;

/// A coloured square and a name, in several lines where it is long; tells how high they are.
fn legend_line(area: &Area, color: RGBColor, name: &str, (x, y): (i32, i32)) -> Result<i32> {
    let square = Rectangle::new([(x, y), (x + 12, y + 12)], color.filled());
    area.draw(&square).map_err(oops)?;
    let lines = wrapped(name, LEGEND_WIDTH);
    let mut at = y;
    for line in lines {
        let line = Text::new(line, (x + 18, at), text(14));
        area.draw(&line).map_err(oops)?;
        at += 16;
    }
    Ok(at - y + 4)
}

/// Words in lines of at most `width` letters; a longer word has a line of its own.
fn wrapped(name: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in name.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// Whether mean and interval are numbers; a damaged file may hold others.
fn drawable(row: &SummaryRow) -> bool {
    [row.mean, row.low, row.high].iter().all(|v| v.is_finite())
}

/// A point with its interval for every variant, one panel per metric.
fn scores(area: &Area, rows: &[SummaryRow], metrics: &[Metric], variants: &[String]) -> Result<()> {
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
            .map_err(oops)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_label_style(text(13))
            .y_label_formatter(&|value| format!("{value:.3}"))
            .light_line_style(WHITE)
            .draw()
            .map_err(oops)?;
        for row in rows {
            let at = variants.iter().position(|v| *v == row.variant).unwrap_or(0) as f64;
            let color = color(variants, &row.variant);
            let line = PathElement::new(vec![(at, row.low), (at, row.high)], color.stroke_width(3));
            chart.draw_series([line]).map_err(oops)?;
            chart
                .draw_series([Circle::new((at, row.mean), 6, color.filled())])
                .map_err(oops)?;
        }
    }
    side.draw(&Text::new("mean, 95 % interval", (6, 22), text(14)))
        .map_err(oops)?;
    legend(&side, variants, variants)
}

/// Every pair of a metric that compares with the text and one that compares with photos.
fn tradeoffs(metrics: &[Metric]) -> Vec<[Metric; 2]> {
    let (of_photos, of_text): (Vec<Metric>, Vec<Metric>) =
        metrics.iter().partition(|metric| metric.reads_photos());
    let pairs = of_text.into_iter();
    pairs
        .flat_map(|text| of_photos.iter().map(move |photos| [text, *photos]))
        .collect()
}

/// What is gained in identity and lost in text, or not: one panel per pair of metrics.
fn tradeoff(
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
        .map_err(oops)?;
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
        .map_err(oops)?;
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
        .map_err(oops)?;
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
        chart.draw_series(lines).map_err(oops)?;
        chart
            .draw_series([Circle::new((t.mean, d.mean), 6, color.filled())])
            .map_err(oops)?;
    }
    Ok(())
}

/// Axes on which something goes its course, from 0 to `end`.
type Course<'a> = ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn course<'a>(
    area: &Area<'a>,
    title: &str,
    (what, end, labels): (&str, f64, usize),
    y: std::ops::Range<f64>,
) -> Result<Course<'a>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(18))
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..end, y)
        .map_err(oops)?;
    chart
        .configure_mesh()
        .x_labels(labels)
        .x_desc(what)
        .axis_desc_style(text(14))
        .label_style(text(13))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(oops)?;
    Ok(chart)
}

/// The variants that have rows, in the order of all.
fn trained<'a>(rows: impl Iterator<Item = &'a String>, variants: &[String]) -> Vec<String> {
    let trained = names(rows);
    let known: Vec<String> = variants
        .iter()
        .filter(|variant| trained.contains(variant))
        .cloned()
        .collect();
    if known.is_empty() { trained } else { known }
}

/// The cosine of every token of one prompt with what the super-category leaves there (Fig. 2),
/// means over concepts and seeds.
fn draw_tokens(area: &Area, rows: &[TokenRow], variants: &[String]) -> Result<()> {
    let prompts = names(rows.iter().map(|row| &row.prompt));
    // The prompt with the most words that all concepts of the first one's group share.
    let words = |prompt: &String| prompt.split_whitespace().count();
    let Some(prompt) = prompts.iter().max_by_key(|prompt| words(prompt)) else {
        return Ok(());
    };
    let of_prompt: Vec<&TokenRow> = rows.iter().filter(|row| row.prompt == *prompt).collect();
    let mut places: Vec<(usize, String)> = Vec::new();
    for row in &of_prompt {
        if !places.iter().any(|(position, _)| *position == row.position) {
            places.push((row.position, row.token.clone()));
        }
    }
    // The positions of the concept have no rows.
    let end = places.iter().map(|(position, _)| position + 1).max();
    for position in 0..end.unwrap_or(0) {
        if !places.iter().any(|(other, _)| *other == position) {
            places.push((position, "S*".to_string()));
        }
    }
    places.sort();
    let order = trained(rows.iter().map(|row| &row.variant), variants);
    let (plot, side) = area.split_horizontally(640);
    let y = span(of_prompt.iter().map(|row| row.cosine).chain([1.0]), 0.05);
    let mut chart = ChartBuilder::on(&plot)
        .caption(format!("\"{}\"", prompt.replace("{}", "S*")), text(17))
        .margin(10)
        .x_label_area_size(50)
        .y_label_area_size(58)
        .build_cartesian_2d(-0.5..places.len() as f64 - 0.5, y)
        .map_err(oops)?;
    let label = |value: &f64| {
        let index = value.round();
        let near = (value - index).abs() < 0.01 && index >= 0.0;
        places
            .get(index as usize)
            .filter(|_| near)
            .map_or(String::new(), |(_, token)| {
                token
                    .replace("<|startoftext|>", "start")
                    .replace("<|endoftext|>", "end")
            })
    };
    chart
        .configure_mesh()
        .x_labels(2 * places.len() + 1)
        .x_label_formatter(&label)
        .x_desc("context token")
        .y_desc("cosine with the class word's")
        .axis_desc_style(text(15))
        .label_style(text(13))
        .light_line_style(WHITE)
        .draw()
        .map_err(oops)?;
    for variant in &order {
        let color = color(variants, variant);
        let line: Vec<(f64, f64)> = places
            .iter()
            .enumerate()
            .filter_map(|(index, (position, _))| {
                let cosines = of_prompt
                    .iter()
                    .filter(|row| row.variant == *variant && row.position == *position)
                    .map(|row| row.cosine)
                    .filter(|cosine| cosine.is_finite());
                Some((index as f64, mean(cosines)?))
            })
            .collect();
        let points: Vec<_> = line
            .iter()
            .map(|point| Circle::new(*point, 4, color.filled()))
            .collect();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))
            .map_err(oops)?;
        chart.draw_series(points).map_err(oops)?;
    }
    legend(&side, variants, &order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_of_a_dozen_variants_have_one_colour() {
        let colors: Vec<RGBColor> = (0..12).map(palette).collect();
        for (index, color) in colors.iter().enumerate() {
            assert!(!colors[..index].contains(color), "{index}");
        }
    }

    #[test]
    fn long_names_are_wrapped_between_words() {
        let lines = wrapped("without context embedding regularization", 25);
        assert_eq!(lines, ["without context embedding", "regularization"]);
        assert_eq!(wrapped("CoRe", 25), ["CoRe"]);
    }

    #[test]
    fn values_that_are_no_numbers_are_left_out_of_a_plot() {
        let folder = tempfile::tempdir().expect("a folder");
        let header =
            "variant,metric,concept,mean,low,high,difference,difference_low,difference_high,n";
        let row = |variant: &str, metric: &str, mean: &str| {
            format!("{variant},{metric},all,{mean},0.1,0.3,,,,3\n")
        };
        let mut text = format!("{header}\n");
        for metric in Metric::ALL {
            text += &row("CoRe", metric.column(), "0.2");
            text += &row("diverged", metric.column(), "NaN");
        }
        std::fs::write(folder.path().join("summary.csv"), text).expect("a file");
        assert_eq!(draw_all(folder.path()).expect("plots").len(), 2);
    }

    #[test]
    fn variants_keep_their_colours_when_some_are_left_out() {
        let all: Vec<String> = ["class word", "TI", "CoRe"].map(String::from).to_vec();
        let rows = ["CoRe", "TI"].map(String::from);
        let some = trained(rows.iter(), &all);
        assert_eq!(some, ["TI", "CoRe"]);
        assert_eq!(color(&all, "TI"), PALETTE[1]);
    }
}
