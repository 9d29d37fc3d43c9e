//! The terms of the loss over the steps of training: one row per term, beside it the difference to the
//! first variant, since variants draw the same random numbers and their lines would coincide.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, Course, GRAY, color, course, drawing_error, legend, span};
use super::runs::{Step, StepsOf};
use crate::statistics::mean;

/// How many neighbours on both sides a step is averaged with: a single step is mostly noise.
const WINDOW: usize = 10;
/// Height of a row, width of a panel and of the legend, in pixels.
const ROW: u32 = 260;
const PANEL: u32 = 420;
const LEGEND: u32 = 220;

/// A line: step, from 1 over all stages, and value.
pub(super) type Points = Vec<(f64, f64)>;

/// The pixels that the rows need.
pub(super) fn size(terms: &[String]) -> (u32, u32) {
    (2 * PANEL + LEGEND, ROW * terms.len() as u32)
}

/// One row per term: means over concepts and seeds, thin lines for the single runs of the first
/// variant, and the differences of the others to it.
pub(super) fn draw_losses(
    area: &Area,
    steps: &StepsOf,
    terms: &[String],
    variants: &[String],
) -> Result<()> {
    let strips = area.split_evenly((terms.len(), 1));
    let end = steps.values().map(|runs| shortest(runs)).max().unwrap_or(1) as f64;
    let shown: Vec<String> = variants
        .iter()
        .filter(|v| steps.contains_key(*v))
        .cloned()
        .collect();
    for (term, strip) in terms.iter().zip(&strips) {
        let (plot, side) = strip.split_horizontally(2 * PANEL);
        let panels = plot.split_evenly((1, 2));
        let lines: Vec<(&String, Points)> = shown
            .iter()
            .map(|variant| (variant, smoothed(&steps[variant], term)))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let Some((first, baseline)) = lines.first() else {
            continue;
        };
        let single = steps[*first]
            .iter()
            .map(|run| smoothed(std::slice::from_ref(run), term));
        let thin: Vec<Points> = single.collect();
        let mean = 2 * WINDOW + 1;
        let title = format!(
            "{}, mean of {mean} steps (thin: single runs of {first})",
            name_of(term)
        );
        panel(&panels[0], &title, (&thin, &lines), end, (variants, steps))?;
        let others: Vec<(&String, Points)> = lines[1..]
            .iter()
            .map(|(variant, line)| (*variant, minus(line, baseline)))
            .collect();
        if !others.is_empty() {
            let title = format!("difference to {first}");
            panel(&panels[1], &title, (&[], &others), end, (variants, steps))?;
        }
        legend(&side, variants, &shown)?;
    }
    Ok(())
}

/// A term in words.
fn name_of(term: &str) -> String {
    match term {
        "loss" => "weighted total loss".into(),
        "diffusion" => "diffusion loss".into(),
        other => other.replace('_', " "),
    }
}

fn panel(
    area: &Area,
    title: &str,
    (thin, lines): (&[Points], &[(&String, Points)]),
    end: f64,
    (variants, steps): (&[String], &StepsOf),
) -> Result<()> {
    let points = || {
        thin.iter()
            .chain(lines.iter().map(|(_, line)| line))
            .flatten()
    };
    let y = span(points().map(|point| point.1), 0.06);
    let x = ("optimiser step; a gray line ends a stage", end, 6);
    let mut chart = course(area, title, x, y.clone())?;
    draw_stage_ends(&mut chart, steps, end, &y)?;
    for line in thin {
        let pale = color(variants, &variants[0]).mix(0.3).stroke_width(1);
        chart
            .draw_series(LineSeries::new(line.clone(), pale))
            .map_err(drawing_error)?;
    }
    for (variant, line) in lines {
        let style = color(variants, variant).stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.clone(), style))
            .map_err(drawing_error)?;
    }
    Ok(())
}

/// The number of steps that all runs have.
pub(super) fn shortest(runs: &[Vec<Step>]) -> usize {
    runs.iter().map(Vec::len).min().unwrap_or(0)
}

/// A gray line where a stage ends before `end`, over the heights `y`.
pub(super) fn draw_stage_ends(
    chart: &mut Course<'_>,
    steps: &StepsOf,
    end: f64,
    y: &Range<f64>,
) -> Result<()> {
    let ends = steps
        .values()
        .flat_map(|runs| ends(runs))
        .filter(|at| *at < end);
    let ends =
        ends.map(|at| PathElement::new(vec![(at, y.start), (at, y.end)], GRAY.stroke_width(1)));
    chart.draw_series(ends).map_err(drawing_error)?;
    Ok(())
}

/// The last step of every stage.
fn ends(runs: &[Vec<Step>]) -> Vec<f64> {
    let Some(run) = runs.first() else {
        return Vec::new();
    };
    let steps = shortest(runs);
    let last = |step: &usize| step + 1 == steps || run[*step].stage != run[step + 1].stage;
    (0..steps)
        .filter(last)
        .map(|step| (step + 1) as f64)
        .collect()
}

/// Means of a column over runs; no points where a run has no value.
pub(super) fn means(runs: &[Vec<Step>], column: &str) -> Points {
    let at = |step: usize| {
        let values: Option<Vec<f64>> = runs.iter().map(|run| run[step].value(column)).collect();
        Some((
            (step + 1) as f64,
            mean(values?).filter(|mean| mean.is_finite())?,
        ))
    };
    (0..shortest(runs)).filter_map(at).collect()
}

/// The same, each averaged with its neighbours within the stage.
fn smoothed(runs: &[Vec<Step>], column: &str) -> Points {
    let means = means(runs, column);
    let Some(run) = runs.first() else {
        return means;
    };
    let stage = |at: f64| run[at as usize - 1].stage.as_str();
    let smooth = |(index, (at, _)): (usize, &(f64, f64))| {
        let near = index.saturating_sub(WINDOW)..(index + WINDOW + 1).min(means.len());
        let near = means[near].iter().filter(|(other, _)| {
            stage(*other) == stage(*at) && (other - at).abs() <= WINDOW as f64
        });
        Some((*at, mean(near.map(|point| point.1))?))
    };
    means.iter().enumerate().filter_map(smooth).collect()
}

/// The difference of two lines where both have a point.
fn minus(line: &[(f64, f64)], baseline: &[(f64, f64)]) -> Points {
    let of = |(step, value): &(f64, f64)| {
        let mut points = baseline.iter();
        let (_, other) = points.find(|(other, _)| other == step)?;
        Some((*step, value - other))
    };
    line.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[(&str, f64)]) -> Vec<Step> {
        let step = |(stage, loss): &(&str, f64)| Step {
            stage: (*stage).into(),
            values: vec![("loss".into(), Some(*loss))],
        };
        values.iter().map(step).collect()
    }

    #[test]
    fn curves_are_means_over_runs_smoothed_within_a_stage() {
        let runs = [
            run(&[("a", 1.0), ("a", 3.0), ("b", 9.0)]),
            run(&[("a", 3.0), ("a", 5.0), ("b", 7.0)]),
        ];
        assert_eq!(means(&runs, "loss"), [(1.0, 2.0), (2.0, 4.0), (3.0, 8.0)]);
        assert_eq!(
            smoothed(&runs, "loss"),
            [(1.0, 3.0), (2.0, 3.0), (3.0, 8.0)]
        );
        assert_eq!(ends(&runs), [2.0, 3.0]);
        assert!(
            means(&runs, "embedding_norm").is_empty(),
            "no vector is learned"
        );
    }

    #[test]
    fn differences_are_taken_step_by_step() {
        let line = [(1.0, 3.0), (2.0, 5.0), (4.0, 1.0)];
        let baseline = [(1.0, 1.0), (2.0, 5.0), (3.0, 0.0)];
        assert_eq!(minus(&line, &baseline), [(1.0, 2.0), (2.0, 0.0)]);
    }
}
