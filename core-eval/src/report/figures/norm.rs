//! The norm of the learned embedding over the steps of training, with the window of Eq. 6 in which it is
//! restored.

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Anchor, Area, color, course, drawing_error, legend, span, write};
use super::losses::{draw_stage_ends, means, shortest};
use super::runs::{EMBEDDING_NORM, StepsOf};

/// Width of the plot and of the legend, and the height of both, in pixels.
const PLOT: u32 = 640;
pub(super) const SIZE: (u32, u32) = (PLOT + 220, 420);

/// Means over concepts and seeds; `window` is shaded.
pub(super) fn draw_norm(
    area: &Area,
    steps: &StepsOf,
    window: Option<[f64; 2]>,
    variants: &[String],
) -> Result<()> {
    let (plot, side) = area.split_horizontally(PLOT);
    let shown: Vec<String> = variants
        .iter()
        .filter(|v| steps.contains_key(*v))
        .cloned()
        .collect();
    let lines: Vec<_> = shown
        .iter()
        .map(|v| (v, means(&steps[v], EMBEDDING_NORM)))
        .collect();
    let end = steps.values().map(|runs| shortest(runs)).max().unwrap_or(1) as f64;
    let y = span(
        lines.iter().flat_map(|(_, line)| line).map(|point| point.1),
        0.06,
    );
    let x = ("optimiser step; a gray line ends a stage", end, 11);
    let mut chart = course(&plot, "norm of the learned embedding", x, y.clone())?;
    if let Some([from, to]) = window {
        let corners = [(from, y.start), (to, y.end)];
        chart
            .draw_series([Rectangle::new(corners, RGBColor(238, 238, 238).filled())])
            .map_err(drawing_error)?;
    }
    draw_stage_ends(&mut chart, steps, end, &y)?;
    // Variants draw the same random numbers, so some lines coincide: the first is wider, so that it shows
    // below the others.
    for (index, (variant, line)) in lines.iter().enumerate() {
        let style = color(variants, variant).stroke_width(if index == 0 { 4 } else { 2 });
        chart
            .draw_series(LineSeries::new(line.clone(), style))
            .map_err(drawing_error)?;
    }
    legend(&side, variants, &shown)?;
    if let Some([from, to]) = window {
        let note = [
            "shaded: embedding rescaling".to_string(),
            format!("(Eq. 6), steps {} to {to:.0}", from + 1.0),
        ];
        for (line, words) in note.iter().enumerate() {
            let y = SIZE.1 as i32 - 60 + 16 * line as i32;
            write(&side, words, (6, y), 13, Anchor::Left)?;
        }
    }
    Ok(())
}
