//! The cosine of every context token of a prompt with that in the class word's prompt (the paper's Fig. 2).

use std::collections::BTreeMap;

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, color, drawing_error, legend_line, span, text};
use super::{names, trained};
use crate::report::TokenRow;
use crate::statistics::mean;

/// What stands for the concept on the axis and in the title.
pub(super) const CONCEPT: &str = "S*";
/// The cosine at which the axis begins, unless some are lower.
const LOWEST: f64 = 0.75;
/// Width of the plot and of the legend, and the height of both, in pixels.
pub(super) const PLOT: u32 = 560;
pub(super) const LEGEND: u32 = 220;
pub(super) const HEIGHT: u32 = 400;

/// A line of a panel.
#[derive(Debug, Clone)]
pub(super) struct TokenLine {
    pub(super) name: String,
    pub(super) color: RGBColor,
    /// Position, token and cosine.
    pub(super) points: Vec<(usize, String, f64)>,
}

/// One prompt with a line for each of some methods.
#[derive(Debug, Clone)]
pub(super) struct TokenPanel {
    pub(super) title: String,
    pub(super) lines: Vec<TokenLine>,
}

/// One panel for each group of concepts: of its prompts the one with the most words, means over its
/// concepts and seeds. With `prompt`, one panel for that prompt.
pub(super) fn panels(
    rows: &[TokenRow],
    groups: &BTreeMap<&str, &str>,
    prompt: Option<&str>,
    variants: &[String],
) -> Vec<TokenPanel> {
    let group = |row: &TokenRow| {
        groups
            .get(row.concept.as_str())
            .copied()
            .unwrap_or_default()
    };
    let all = names(
        rows.iter()
            .map(|row| group(row).to_string())
            .collect::<Vec<_>>()
            .iter(),
    );
    let mut panels = Vec::new();
    for name in all {
        let of_group: Vec<&TokenRow> = rows.iter().filter(|row| group(row) == name).collect();
        let prompts = names(of_group.iter().map(|row| &row.prompt));
        let words = |prompt: &&String| prompt.split_whitespace().count();
        let chosen = match prompt {
            Some(prompt) => prompts.iter().find(|other| *other == prompt),
            // Of equally long prompts the last.
            None => prompts.iter().max_by_key(words),
        };
        let Some(chosen) = chosen else { continue };
        let of_prompt: Vec<&TokenRow> = of_group
            .into_iter()
            .filter(|row| row.prompt == *chosen)
            .collect();
        let concepts = names(of_prompt.iter().map(|row| &row.concept));
        panels.push(TokenPanel {
            title: format!(
                "\"{}\": {}",
                chosen.replace("{}", CONCEPT),
                concepts.join(", ")
            ),
            lines: lines(&of_prompt, variants),
        });
    }
    panels
}

/// The mean cosines of every variant.
fn lines(rows: &[&TokenRow], variants: &[String]) -> Vec<TokenLine> {
    let trained = trained(rows.iter().map(|row| &row.variant), variants);
    let line = |variant: &String| {
        let mut points: BTreeMap<usize, (String, Vec<f64>)> = BTreeMap::new();
        for row in rows
            .iter()
            .filter(|row| row.variant == *variant && row.cosine.is_finite())
        {
            let point = points.entry(row.position).or_default();
            point.0.clone_from(&row.token);
            point.1.push(row.cosine);
        }
        let points = points.into_iter();
        TokenLine {
            name: variant.clone(),
            color: color(variants, variant),
            points: points
                .filter_map(|(position, (token, cosines))| Some((position, token, mean(cosines)?)))
                .collect(),
        }
    };
    trained.iter().map(line).collect()
}

/// Draws a panel without its legend.
pub(super) fn draw_panel(area: &Area, panel: &TokenPanel) -> Result<()> {
    let places = places(&panel.lines);
    let cosines = panel.lines.iter().flat_map(|line| &line.points);
    let y = span(
        cosines.map(|(.., cosine)| *cosine).chain([LOWEST, 1.0]),
        0.04,
    );
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(16))
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
    for line in &panel.lines {
        let place = |position: usize| places.iter().position(|(other, _)| *other == position);
        let points: Vec<(f64, f64)> = line
            .points
            .iter()
            .filter_map(|(position, _, cosine)| Some((place(*position)? as f64, *cosine)))
            .collect();
        let circles: Vec<_> = points
            .iter()
            .map(|point| Circle::new(*point, 4, line.color.filled()))
            .collect();
        chart
            .draw_series(LineSeries::new(points, line.color.stroke_width(2)))
            .map_err(drawing_error)?;
        chart.draw_series(circles).map_err(drawing_error)?;
    }
    Ok(())
}

/// The pixels that panels need.
pub(super) fn size(panels: &[TokenPanel]) -> (u32, u32) {
    (PLOT + LEGEND, HEIGHT * panels.len() as u32)
}

/// Draws panels below each other, each with its legend.
pub(super) fn draw_tokens(area: &Area, panels: &[TokenPanel]) -> Result<()> {
    let strips = area.split_evenly((panels.len(), 1));
    for (panel, strip) in panels.iter().zip(&strips) {
        let (plot, side) = strip.split_horizontally(PLOT);
        draw_panel(&plot, panel)?;
        let mut y = 50;
        for line in &panel.lines {
            y += legend_line(&side, line.color, &line.name, (6, y))?;
        }
    }
    Ok(())
}

/// The positions of a prompt in order, each with its token. The concept's own have no rows.
fn places(lines: &[TokenLine]) -> Vec<(usize, String)> {
    let mut places: BTreeMap<usize, String> = BTreeMap::new();
    for (position, token, _) in lines.iter().flat_map(|line| &line.points) {
        places.entry(*position).or_insert_with(|| plain(token));
    }
    let end = places.keys().next_back().map_or(0, |last| last + 1);
    for position in 0..end {
        places
            .entry(position)
            .or_insert_with(|| CONCEPT.to_string());
    }
    places.into_iter().collect()
}

/// A token as readers know it.
pub(super) fn plain(token: &str) -> String {
    let token = token.trim_end_matches("</w>");
    token
        .replace("<|startoftext|>", "start")
        .replace("<|endoftext|>", "end")
}

/// The token at a whole number of the axis; nothing between them.
fn label(places: &[(usize, String)], value: f64) -> String {
    let index = value.round();
    let near = (value - index).abs() < 0.01 && index >= 0.0;
    let place = places.get(index as usize).filter(|_| near);
    place.map_or(String::new(), |(_, token)| token.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(variant: &str, concept: &str, prompt: &str, position: usize, cosine: f64) -> TokenRow {
        TokenRow {
            variant: variant.into(),
            concept: concept.into(),
            seed: 0,
            prompt: prompt.into(),
            position,
            token: format!("t{position}</w>"),
            cosine,
        }
    }

    #[test]
    fn each_group_has_its_longest_prompt_and_means_over_its_concepts() {
        let rows = [
            row("CoRe", "dog", "a {}", 0, 0.9),
            row("CoRe", "dog", "a {} in snow", 0, 0.8),
            row("CoRe", "cat", "a {} in snow", 0, 0.6),
            row("CoRe", "cup", "a {}", 0, 0.5),
            row("CoRe", "cup", "a {}", 2, 0.4),
        ];
        let groups = BTreeMap::from([("dog", "animate"), ("cat", "animate"), ("cup", "inanimate")]);
        let variants = ["CoRe".to_string()];
        let panels = panels(&rows, &groups, None, &variants);
        let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["\"a S* in snow\": dog, cat", "\"a S*\": cup"]);
        assert!((panels[0].lines[0].points[0].2 - 0.7).abs() < 1e-12);
        let places = places(&panels[1].lines);
        let tokens: Vec<&str> = places.iter().map(|(_, token)| token.as_str()).collect();
        assert_eq!(tokens, ["t0", CONCEPT, "t2"]);
    }
}
