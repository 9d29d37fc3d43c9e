//! Quality on held-out scenes against the number of scenes that a network of the mini world was trained
//! on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::canvas::{Area, course, drawing_error, legend_line, palette, span};

/// The first columns of a learning curve; the figures of quality follow.
const COLUMNS: [&str; 4] = ["step", "images", "seconds", "loss"];

/// One learning curve, as `core-train pretrain` writes it.
#[derive(Debug, PartialEq)]
pub(super) struct LearningCurve {
    /// The name of the file without its ending.
    name: String,
    /// Every figure of quality with its values by the number of scenes seen.
    figures: Vec<(String, Vec<(f64, f64)>)>,
}

/// The learning curves in a folder, by name.
///
/// # Errors
/// An unreadable folder or a damaged row of a learning curve.
pub(super) fn learning_curves(folder: &Path) -> Result<Vec<LearningCurve>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(|| folder.display().to_string())?;
    files.retain(|file| file.extension().is_some_and(|end| end == "csv"));
    files.sort();
    let mut curves = Vec::new();
    for file in files {
        curves.extend(read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(curves)
}

/// `None` for a table of another kind.
fn read(file: &Path) -> Result<Option<LearningCurve>> {
    let mut reader = csv::Reader::from_path(file)?;
    let header = reader.headers()?.clone();
    if header.len() <= COLUMNS.len() || COLUMNS.iter().zip(&header).any(|(a, b)| *a != b) {
        return Ok(None);
    }
    let mut figures: Vec<(String, Vec<(f64, f64)>)> = header
        .iter()
        .skip(COLUMNS.len())
        .map(|name| (name.replace('_', " "), Vec::new()))
        .collect();
    for row in reader.records() {
        let row = row?;
        let number = |column: usize| -> Result<f64> {
            row[column].parse().with_context(|| {
                format!(
                    "`{}` in column {} is not a number",
                    &row[column], &header[column]
                )
            })
        };
        for (index, (_, points)) in figures.iter_mut().enumerate() {
            let point = (number(1)?, number(COLUMNS.len() + index)?);
            if point.0.is_finite() && point.1.is_finite() {
                points.push(point);
            }
        }
    }
    let name = file.file_stem().unwrap_or_default();
    Ok(Some(LearningCurve {
        name: name.to_string_lossy().into_owned(),
        figures,
    }))
}

/// One panel per network, three in a row.
pub(super) fn draw_learning(area: &Area, curves: &[LearningCurve]) -> Result<()> {
    let panels = area.split_evenly((rows(curves), PANELS));
    for (curve, panel) in curves.iter().zip(&panels) {
        let points = || curve.figures.iter().flat_map(|(_, points)| points);
        let images = points().map(|point| point.0).fold(1.0, f64::max);
        let y = span(points().map(|point| point.1), 0.06);
        let (plot, side) = panel.split_horizontally(SIZE.0 as i32 - 120);
        let x = ("thousand scenes seen", images / 1e3, 6);
        let mut chart = course(&plot, &curve.name, x, y)?;
        for (index, (_, points)) in curve.figures.iter().enumerate() {
            let color = palette(index);
            let line = points.iter().map(|(images, value)| (images / 1e3, *value));
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)))
                .map_err(drawing_error)?;
        }
        let mut y = 40;
        for (index, (name, _)) in curve.figures.iter().enumerate() {
            y += legend_line(&side, palette(index), name, (6, y))?;
        }
    }
    Ok(())
}

/// Panels in a row, and the pixels of one.
const PANELS: usize = 3;
const SIZE: (u32, u32) = (440, 300);

fn rows(curves: &[LearningCurve]) -> usize {
    curves.len().div_ceil(PANELS)
}

/// The pixels that the panels need.
pub(super) fn size(curves: &[LearningCurve]) -> (u32, u32) {
    (SIZE.0 * PANELS as u32, SIZE.1 * rows(curves) as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_learning_curve_is_told_from_other_tables() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("scores.csv", "variant,concept\na,b\n").unwrap();
        let rows = "8,16,1,0.5,20.5\n16,32,2,NaN,NaN\n24,48,3,0.4,21\n";
        write(
            "vae.csv",
            &format!("step,images,seconds,loss,psnr_db\n{rows}"),
        )
        .unwrap();
        let curves = learning_curves(folder.path()).unwrap();
        let expected = LearningCurve {
            name: "vae".into(),
            figures: vec![("psnr db".into(), vec![(16.0, 20.5), (48.0, 21.0)])],
        };
        assert_eq!(curves, [expected]);
        write(
            "vae.csv",
            "step,images,seconds,loss,psnr_db\n8,16,1,0.5,high\n",
        )
        .unwrap();
        let message = format!("{:#}", learning_curves(folder.path()).unwrap_err());
        assert!(
            message.contains("vae.csv") && message.contains("`high`"),
            "{message}"
        );
    }
}
