//! One prompt in every method (the paper's Fig. 2 and 8), drawn: the cosines of its context tokens beside an
//! image and the cross-attention map of each token.

use anyhow::Result;
use core_train::phrase::SLOT;
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use plotters::prelude::*;

use super::canvas::{Anchor, Area, GRAY, color, drawing_error, write};
use super::placed::Placed;
use super::probe::{Choice, ProbeRow, PromptProbe, RowOf};
use super::tokens::{CONCEPT, HEIGHT, PLOT, TokenLine, TokenPanel, draw_panel};
use crate::report::font::wrapped;

/// The side of a map, the space between maps, and the width of the names, in pixels.
const CELL: u32 = 72;
const GAP: u32 = 4;
const NAMES: u32 = 170;
/// The height of the titles of columns.
const TOP: u32 = 56;

/// What is drawn for one prompt.
pub(super) struct PromptFigure<'a> {
    panel: TokenPanel,
    probe: &'a PromptProbe,
}

impl<'a> PromptFigure<'a> {
    /// The figure of a prompt; variants have the colours of their places in the experiment.
    pub(super) fn new(probe: &'a PromptProbe, choice: Choice<'_>, variants: &[String]) -> Self {
        let prompt = choice.prompt.replace(SLOT, CONCEPT);
        Self {
            panel: TokenPanel {
                title: format!("\"{prompt}\": {}", choice.concept),
                lines: probe.rows.iter().map(|row| line(row, variants)).collect(),
            },
            probe,
        }
    }

    /// The pixels that it needs.
    pub(super) fn size(&self) -> (u32, u32) {
        let columns = 1 + self.probe.tokens.len() as u32;
        let rows = self.probe.rows.len() as u32;
        let height = TOP + rows * (CELL + GAP) + 28;
        (
            PLOT + NAMES + columns * (CELL + GAP) + 10,
            height.max(HEIGHT),
        )
    }

    /// Images and maps; the maps of a token have one scale, from its lowest to its highest value in any
    /// row.
    pub(super) fn images(&self) -> Vec<Placed> {
        let mut images = Vec::new();
        let place = |row: usize, column: usize| {
            let x = PLOT + NAMES + column as u32 * (CELL + GAP);
            (x, TOP + row as u32 * (CELL + GAP))
        };
        let scales = self.probe.scales();
        for (number, row) in self.probe.rows.iter().enumerate() {
            images.push(Placed::new(row.image.clone(), place(number, 0), CELL));
            for (column, (values, ends)) in row.maps.iter().zip(&scales).enumerate() {
                let heat = heat_map(values, row.size, *ends);
                images.push(Placed::new(heat, place(number, column + 1), CELL));
            }
        }
        images
    }

    /// Draws what is no image.
    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let (plot, side) = area.split_horizontally(PLOT);
        let (top, _) = plot.split_vertically(HEIGHT.max(self.size().1.min(520)));
        draw_panel(&top, &self.panel)?;
        let titles = std::iter::once("image").chain(self.probe.tokens.iter().map(String::as_str));
        for (column, title) in titles.enumerate() {
            let x = NAMES + column as u32 * (CELL + GAP) + CELL / 2;
            write(
                &side,
                title,
                (x as i32, TOP as i32 - 12),
                14,
                Anchor::Center,
            )?;
        }
        let about =
            "cross-attention of each token, dark is low, bright is high; one scale per column";
        write(&side, about, (NAMES as i32, 18), 14, Anchor::Left)?;
        for (row, line) in self.panel.lines.iter().enumerate() {
            let middle = (TOP + row as u32 * (CELL + GAP) + CELL / 2) as i32;
            let square = Rectangle::new([(4, middle - 6), (16, middle + 6)], line.color.filled());
            side.draw(&square).map_err(drawing_error)?;
            let words = wrapped(&line.name, 20);
            let first = middle - 8 * (words.len() as i32 - 1);
            for (number, words) in words.iter().enumerate() {
                write(
                    &side,
                    words,
                    (22, first + 16 * number as i32),
                    14,
                    Anchor::Left,
                )?;
            }
        }
        Ok(())
    }
}

/// The line of a row in the plot of cosines.
fn line(row: &ProbeRow, variants: &[String]) -> TokenLine {
    let (name, color) = match &row.of {
        RowOf::ClassWord(_) => ("class word".to_string(), BLACK),
        RowOf::SiblingWord(word) => (format!("sibling word: {word}"), GRAY),
        RowOf::Variant(name) => (name.clone(), color(variants, name)),
    };
    let points = row.context.iter();
    TokenLine {
        name,
        color,
        points: points
            .map(|token| (token.position, token.token.clone(), token.cosine))
            .collect(),
    }
}

/// Black over purple and orange to pale yellow.
const HEAT: [[f32; 3]; 5] = [
    [0.0, 0.0, 4.0],
    [87.0, 16.0, 110.0],
    [188.0, 55.0, 84.0],
    [249.0, 142.0, 9.0],
    [252.0, 255.0, 164.0],
];

/// A map in colours, enlarged smoothly.
fn heat_map(values: &[f32], [height, width]: [usize; 2], [lowest, highest]: [f32; 2]) -> RgbImage {
    let range = (highest - lowest).max(f32::MIN_POSITIVE);
    let image = RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let value = (values[y as usize * width + x as usize] - lowest) / range;
        let place = value.clamp(0.0, 1.0) * (HEAT.len() - 1) as f32;
        let below = (place as usize).min(HEAT.len() - 2);
        let share = place - below as f32;
        let mixed = |channel: usize| {
            let [low, high] = [HEAT[below][channel], HEAT[below + 1][channel]];
            (low + share * (high - low)).round() as u8
        };
        Rgb([mixed(0), mixed(1), mixed(2)])
    });
    resize(&image, CELL, CELL, FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_maps_go_from_black_to_pale_yellow() {
        let image = heat_map(&[0.1, 0.1, 0.5, 0.5], [2, 2], [0.1, 0.5]);
        assert_eq!(image.get_pixel(0, 0).0, [0, 0, 4]);
        assert_eq!(image.get_pixel(0, CELL - 1).0, [252, 255, 164]);
    }
}
