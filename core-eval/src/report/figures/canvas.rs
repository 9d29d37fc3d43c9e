//! What all figures share: files, colours, letters, legends and axes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use core_model::files::{write_atomically, write_png};
use image::RgbImage;
use image::imageops::overlay;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::placed::Placed;
use super::surface::Surface;
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

/// Lines that are no data.
pub(super) const GRAY: RGBColor = RGBColor(120, 120, 120);

/// Where a figure is drawn.
pub(super) type Area<'a> = DrawingArea<Surface<'a>, Shift>;

/// A figure before it is drawn.
pub(super) struct Figure<'a> {
    /// The folder of figures.
    pub(super) folder: &'a Path,
    /// The name of its files, without an ending.
    pub(super) name: &'a str,
    /// Its size in pixels.
    pub(super) size: (u32, u32),
}

impl Figure<'_> {
    /// Draws a figure into `NAME.png` and `NAME.svg`, and lays images over it; files appear when they are
    /// whole.
    pub(super) fn draw(
        &self,
        images: &[Placed],
        paint: impl Fn(&Area) -> Result<()>,
    ) -> Result<Vec<PathBuf>> {
        Ok(vec![
            self.draw_png(images, &paint)?,
            self.draw_svg(images, &paint)?,
        ])
    }

    fn draw_png(&self, images: &[Placed], paint: &impl Fn(&Area) -> Result<()>) -> Result<PathBuf> {
        let (width, height) = self.size;
        let mut pixels = vec![0; (width * height * 3) as usize];
        {
            let surface = BitMapBackend::with_buffer(&mut pixels, self.size);
            paint_on(Surface::Pixels(surface), paint)?;
        }
        let sheet = RgbImage::from_raw(width, height, pixels);
        let mut sheet = sheet.context("a figure has pixels")?;
        for placed in images {
            let (image, (x, y)) = placed.pixels();
            overlay(&mut sheet, &image, i64::from(x), i64::from(y));
        }
        let path = self.folder.join(format!("{}.png", self.name));
        write_png(&path, &sheet)?;
        Ok(path)
    }

    fn draw_svg(&self, images: &[Placed], paint: &impl Fn(&Area) -> Result<()>) -> Result<PathBuf> {
        let mut text = String::new();
        {
            let surface = SVGBackend::with_string(&mut text, self.size);
            paint_on(Surface::Vectors(surface), paint)?;
        }
        let end = text.rfind("</svg>").context("an SVG file has an end")?;
        let mut elements = String::new();
        for placed in images {
            elements += &placed.element()?;
        }
        text.insert_str(end, &elements);
        let path = self.folder.join(format!("{}.svg", self.name));
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

fn paint_on(surface: Surface<'_>, paint: &impl Fn(&Area) -> Result<()>) -> Result<()> {
    let area = surface.into_drawing_area();
    area.fill(&WHITE).map_err(drawing_error)?;
    paint(&area)?;
    area.present().map_err(drawing_error)
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

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    /// To the right of the point, at its height.
    Left,
    /// Around the point.
    Center,
}

/// Writes a line of text.
pub(super) fn write(
    area: &Area,
    line: &str,
    at: (i32, i32),
    size: u32,
    anchor: Anchor,
) -> Result<()> {
    let h = match anchor {
        Anchor::Left => HPos::Left,
        Anchor::Center => HPos::Center,
    };
    let style = text(size).pos(Pos::new(h, VPos::Center));
    area.draw(&Text::new(line.to_string(), at, style))
        .map_err(drawing_error)
}

/// A straight line between two points.
pub(super) fn rule(area: &Area, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<()> {
    area.draw(&PathElement::new(vec![from, to], color.stroke_width(1)))
        .map_err(drawing_error)
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
        write(area, &line, (x + 18, at + 6), 14, Anchor::Left)?;
        at += 16;
    }
    Ok(at - y + 4)
}

/// A number on an axis, without zeros at its end.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

/// Axes of a curve.
pub(super) type Course<'a> =
    ChartContext<'a, Surface<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Axes of a curve over x from 0 to `end`; `what` describes x, which has this many labels.
pub(super) fn course<'a>(
    area: &Area<'a>,
    title: &str,
    (what, end, labels): (&str, f64, usize),
    y: std::ops::Range<f64>,
) -> Result<Course<'a>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(15))
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(66)
        .build_cartesian_2d(0.0..end, y)
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .x_labels(labels)
        .y_labels(6)
        .x_desc(what)
        .axis_desc_style(text(14))
        .label_style(text(13))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| number(*value))
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

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(number(0.00025), "0.00025");
        assert_eq!(number(-1e-9), "0");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(20.0), "20");
    }

    #[test]
    fn a_figure_is_written_as_pixels_and_as_vectors_with_text_and_escaped_names() {
        crate::report::font::register().expect("the font");
        let folder = tempfile::tempdir().expect("a folder");
        let figure = Figure {
            folder: folder.path(),
            name: "f",
            size: (120, 40),
        };
        let image = RgbImage::from_pixel(2, 2, image::Rgb([255, 0, 0]));
        let placed = Placed::new(image, (10, 10), 8);
        let files = figure
            .draw(&[placed], |area| {
                write(area, "<img> & \"x\"", (40, 20), 14, Anchor::Left)
            })
            .expect("files");
        let png = image::open(&files[0]).expect("an image").to_rgb8();
        assert_eq!(png.dimensions(), (120, 40));
        assert_eq!(png.get_pixel(12, 12).0, [255, 0, 0]);
        let dark = png
            .enumerate_pixels()
            .filter(|(x, _, p)| *x > 38 && p.0[0] < 100);
        assert!(dark.count() > 20, "letters");
        let svg = std::fs::read_to_string(&files[1]).expect("a text");
        assert!(svg.contains("&lt;img&gt; &amp; &quot;x&quot;"), "{svg}");
        assert!(svg.contains("<text") && !svg.contains("<img>"), "{svg}");
        assert!(
            svg.contains("<image x=\"10\" y=\"10\" width=\"8\""),
            "{svg}"
        );
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
