//! What all plots share: pixels, colours, letters, legends and axes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use core_model::files::write_png;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::report::font::{FAMILY, wrapped};

/// Colours that colour-blind readers can distinguish (Okabe and Ito); after them come darker ones.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Where a plot is drawn.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws a plot of `size` pixels into a folder; the file appears when it is whole.
pub(super) fn draw(
    folder: &Path,
    name: &str,
    size: (u32, u32),
    paint: impl FnOnce(&Area) -> Result<()>,
) -> Result<PathBuf> {
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        area.fill(&WHITE).map_err(drawing_error)?;
        paint(&area)?;
        area.present().map_err(drawing_error)?;
    }
    let image = image::RgbImage::from_raw(size.0, size.1, pixels).context("a plot has pixels")?;
    let path = folder.join(name);
    write_png(&path, &image)?;
    Ok(path)
}

/// An error of the plotting library.
pub(super) fn drawing_error(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

/// The colour of a variant.
pub(super) fn color(variants: &[String], variant: &str) -> RGBColor {
    let index = variants
        .iter()
        .position(|other| other == variant)
        .unwrap_or(0);
    palette(index)
}

/// The colour of a number.
pub(super) fn palette(index: usize) -> RGBColor {
    let RGBColor(r, g, b) = PALETTE[index % PALETTE.len()];
    let darker =
        |value: u8| (f64::from(value) * 0.55_f64.powi((index / PALETTE.len()) as i32)) as u8;
    RGBColor(darker(r), darker(g), darker(b))
}

/// Black letters of this height in pixels.
pub(super) fn text(size: u32) -> TextStyle<'static> {
    (FAMILY, size).into_font().color(&BLACK)
}

/// The range of the finite values, with a margin on both sides; from 0 to 1 where there are none.
pub(super) fn span(values: impl Iterator<Item = f64>, margin: f64) -> std::ops::Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return 0.0..1.0;
    }
    let width = (high - low).max(1e-6);
    low - margin * width..high + margin * width
}

/// A column of coloured squares with names: those in `some`, in the colours that they have in `all`.
pub(super) fn legend(area: &Area, all: &[String], some: &[String]) -> Result<()> {
    let mut y = 50;
    for variant in some {
        y += legend_line(area, color(all, variant), variant, (6, y))?;
    }
    Ok(())
}

/// The most letters in a line of a legend.
pub(super) const LEGEND_WIDTH: usize = 25;

/// A coloured square and a name, in several lines where it is long; returns their height in pixels.
pub(super) fn legend_line(
    area: &Area,
    color: RGBColor,
    name: &str,
    (x, y): (i32, i32),
) -> Result<i32> {
    let square = Rectangle::new([(x, y), (x + 12, y + 12)], color.filled());
    area.draw(&square).map_err(drawing_error)?;
    let lines = wrapped(name, LEGEND_WIDTH);
    let mut at = y;
    for line in lines {
        let line = Text::new(line, (x + 18, at), text(14));
        area.draw(&line).map_err(drawing_error)?;
        at += 16;
    }
    Ok(at - y + 4)
}

/// Axes of a curve.
pub(super) type Course<'a> =
    ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Axes of a curve over x from 0 to `end`; `what` describes x, which has this many labels.
pub(super) fn course<'a>(
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
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .x_labels(labels)
        .x_desc(what)
        .axis_desc_style(text(14))
        .label_style(text(13))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawing_error)?;
    Ok(chart)
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
}
