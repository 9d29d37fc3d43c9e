//! Loss and norm of the learned embedding over the steps of training.

use anyhow::Result;
use plotters::prelude::*;

use super::canvas::{Area, color, course, drawing_error, legend, span};
use super::trained;
use crate::curves::CurveRow;

/// A column of `curves.csv`.
type Column = fn(&CurveRow) -> Option<f64>;

/// Loss and embedding norm over the optimiser steps of all stages, means over concepts and seeds.
pub(super) fn draw_curves(area: &Area, rows: &[CurveRow], variants: &[String]) -> Result<()> {
    let (plot, side) = area.split_horizontally(780);
    let panels = plot.split_evenly((1, 2));
    let trained = trained(rows.iter().map(|row| &row.variant), variants);
    // The loss of a single step is mostly noise; the norm is not.
    let values: [(&str, Column, usize); 2] = [
        ("loss, mean of 21 steps", |row| Some(row.loss), 10),
        ("norm of the learned embedding", |row| row.embedding_norm, 0),
    ];
    for ((title, value, window), panel) in values.into_iter().zip(&panels) {
        let lines: Vec<(&String, Curve)> = trained
            .iter()
            .map(|variant| (variant, mean_curve(rows, variant, value, window)))
            .collect();
        let points = || lines.iter().flat_map(|(_, curve)| &curve.points);
        let steps = points().map(|point| point.0).fold(1.0, f64::max);
        let y = span(points().map(|point| point.1), 0.06);
        let x = ("optimiser step; a gray line ends a stage", steps, 11);
        let mut chart = course(panel, title, x, y.clone())?;
        let mut ends: Vec<f64> = lines.iter().flat_map(|(_, c)| c.ends.clone()).collect();
        ends.retain(|end| *end < steps);
        let gray = RGBColor(120, 120, 120).stroke_width(1);
        let ends = ends
            .into_iter()
            .map(|end| PathElement::new(vec![(end, y.start), (end, y.end)], gray));
        chart.draw_series(ends).map_err(drawing_error)?;
        // Variants draw the same random numbers, so their lines coincide: the first is wider, so
        // that it shows below the others.
        for (index, (variant, curve)) in lines.iter().enumerate() {
            let width = if index == 0 { 4 } else { 2 };
            let style = color(variants, variant).stroke_width(width);
            chart
                .draw_series(LineSeries::new(curve.points.clone(), style))
                .map_err(drawing_error)?;
        }
    }
    legend(&side, variants, &trained)
}

/// A line of a plot.
struct Curve {
    /// Step, from 1 over all stages, and value.
    points: Vec<(f64, f64)>,
    /// The last step of every stage.
    ends: Vec<f64>,
}

/// Means over runs, smoothed over `window` neighbours on both sides within the stage; no points where
/// a run has no value.
fn mean_curve(rows: &[CurveRow], variant: &str, value: Column, window: usize) -> Curve {
    let mut runs: Vec<((&str, u64), Vec<&CurveRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.variant == variant) {
        let run = (row.concept.as_str(), row.seed);
        match runs.iter_mut().find(|(other, _)| *other == run) {
            Some((_, steps)) => steps.push(row),
            None => runs.push((run, vec![row])),
        }
    }
    let lengths = runs.iter().map(|(_, steps)| steps.len());
    let steps = lengths.min().unwrap_or(0);
    let mean = |step: usize| {
        let values = runs
            .iter()
            .map(|(_, rows)| value(rows[step]).unwrap_or(f64::NAN));
        values.sum::<f64>() / runs.len() as f64
    };
    let means: Vec<f64> = (0..steps).map(mean).collect();
    let stage = |step: usize| runs[0].1[step].stage.as_str();
    let smooth = |step: usize| {
        let near = step.saturating_sub(window)..(step + window + 1).min(steps);
        let near: Vec<f64> = near
            .filter(|other| stage(*other) == stage(step))
            .map(|other| means[other])
            .collect();
        near.iter().sum::<f64>() / near.len() as f64
    };
    let last = |step: &usize| step + 1 == steps || stage(*step) != stage(step + 1);
    Curve {
        points: (0..steps)
            .map(|step| ((step + 1) as f64, smooth(step)))
            .filter(|(_, value)| value.is_finite())
            .collect(),
        ends: (0..steps)
            .filter(last)
            .map(|step| (step + 1) as f64)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_means_over_runs_smoothed_within_a_stage() {
        let row = |concept: &str, stage: &str, step: u64, loss: f64| CurveRow {
            variant: "v".into(),
            concept: concept.into(),
            seed: 0,
            stage: stage.into(),
            step,
            loss,
            embedding_norm: None,
        };
        let rows = [
            row("dog", "a", 1, 1.0),
            row("dog", "a", 2, 3.0),
            row("dog", "b", 1, 9.0),
            row("cat", "a", 1, 3.0),
            row("cat", "a", 2, 5.0),
            row("cat", "b", 1, 7.0),
        ];
        let curve = mean_curve(&rows, "v", |row| Some(row.loss), 1);
        assert_eq!(curve.points, [(1.0, 3.0), (2.0, 3.0), (3.0, 8.0)]);
        assert_eq!(curve.ends, [2.0, 3.0]);
        let raw = mean_curve(&rows, "v", |row| Some(row.loss), 0);
        assert_eq!(raw.points, [(1.0, 2.0), (2.0, 4.0), (3.0, 8.0)]);
        let norms = mean_curve(&rows, "v", |row| row.embedding_norm, 0);
        assert!(norms.points.is_empty(), "no vector is learned");
    }
}
