//! The cosine of every context token of one prompt (the paper's Fig. 2).

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, color, drawing_error, legend, span, text};
use super::{names, trained};
use crate::report::TokenRow;
use crate::statistics::mean;

/// What stands for the concept on the axis and in the title.
const CONCEPT: &str = "S*";

/// The cosine of every token of one prompt with the token at its place in the super-category's prompt,
/// means over concepts and seeds.
pub(super) fn draw_tokens(area: &Area, rows: &[TokenRow], variants: &[String]) -> Result<()> {
    let prompts = names(rows.iter().map(|row| &row.prompt));
    // The longest prompt shows most; of equally long ones the last.
    let words = |prompt: &String| prompt.split_whitespace().count();
    let Some(prompt) = prompts.iter().max_by_key(|prompt| words(prompt)) else {
        return Ok(());
    };
    let of_prompt: Vec<&TokenRow> = rows.iter().filter(|row| row.prompt == *prompt).collect();
    let places = places(&of_prompt);
    let (plot, side) = area.split_horizontally(640);
    let y = span(of_prompt.iter().map(|row| row.cosine).chain([1.0]), 0.05);
    let mut chart = ChartBuilder::on(&plot)
        .caption(format!("\"{}\"", prompt.replace("{}", CONCEPT)), text(17))
        .margin(10)
        .x_label_area_size(50)
        .y_label_area_size(58)
        .build_cartesian_2d(-0.5..places.len() as f64 - 0.5, y)
        .map_err(drawing_error)?;
    chart
        .configure_mesh()
        .x_labels(2 * places.len() + 1)
        .x_label_formatter(&|value| label(&places, *value))
        .x_desc("context token")
        .y_desc("cosine with the class word's")
        .axis_desc_style(text(15))
        .label_style(text(13))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawing_error)?;
    let trained = trained(rows.iter().map(|row| &row.variant), variants);
    for variant in &trained {
        let color = color(variants, variant);
        let line = line(&of_prompt, variant, &places);
        let points: Vec<_> = line
            .iter()
            .map(|point| Circle::new(*point, 4, color.filled()))
            .collect();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))
            .map_err(drawing_error)?;
        chart.draw_series(points).map_err(drawing_error)?;
    }
    legend(&side, variants, &trained)
}

/// The positions of a prompt in order, each with its token. The concept's own have no rows.
fn places(rows: &[&TokenRow]) -> Vec<(usize, String)> {
    let mut places: Vec<(usize, String)> = Vec::new();
    for row in rows {
        if !places.iter().any(|(position, _)| *position == row.position) {
            places.push((row.position, row.token.clone()));
        }
    }
    let end = places.iter().map(|(position, _)| position + 1).max();
    for position in 0..end.unwrap_or(0) {
        if !places.iter().any(|(other, _)| *other == position) {
            places.push((position, CONCEPT.to_string()));
        }
    }
    places.sort();
    places
}

/// The token at a whole number of the axis; nothing between them.
fn label(places: &[(usize, String)], value: f64) -> String {
    let index = value.round();
    let near = (value - index).abs() < 0.01 && index >= 0.0;
    let place = places.get(index as usize).filter(|_| near);
    place.map_or(String::new(), |(_, token)| {
        token
            .replace("<|startoftext|>", "start")
            .replace("<|endoftext|>", "end")
    })
}

/// The mean cosine of a variant at every position that has rows.
fn line(rows: &[&TokenRow], variant: &str, places: &[(usize, String)]) -> Vec<(f64, f64)> {
    let places = places.iter().enumerate();
    places
        .filter_map(|(index, (position, _))| {
            let cosines = rows
                .iter()
                .filter(|row| row.variant == variant && row.position == *position)
                .map(|row| row.cosine)
                .filter(|cosine| cosine.is_finite());
            Some((index as f64, mean(cosines)?))
        })
        .collect()
}
