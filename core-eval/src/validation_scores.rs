//! The scores of all runs' validation images as one table, `validation.csv`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// One mean over the validation images of one step of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationRow {
    /// The variant.
    pub variant: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The stage's name.
    pub stage: String,
    /// The step, from 1 in each stage.
    pub step: u64,
    /// The metric.
    pub metric: Metric,
    /// The mean over the validation prompts.
    pub mean: f64,
}

/// The scores in a run's `metrics.csv`, which has a column per metric.
///
/// # Errors
/// An unreadable file or a damaged row, naming the file.
pub fn read(metrics: &Path, variant: &str, concept: &str, seed: u64) -> Result<Vec<ValidationRow>> {
    let of_file = || metrics.display().to_string();
    let mut reader = csv::Reader::from_path(metrics).with_context(of_file)?;
    let header = reader.headers().with_context(of_file)?.clone();
    let place = |name: &str| header.iter().position(|column| column == name);
    let columns = Metric::ALL
        .iter()
        .filter_map(|metric| Some((*metric, place(metric.column())?)));
    let columns: Vec<(Metric, usize)> = columns.collect();
    let mut rows = Vec::new();
    if columns.is_empty() {
        return Ok(rows);
    }
    let [stage, step] = ["stage", "step"].map(place);
    for record in reader.records() {
        let record = record.with_context(of_file)?;
        let field = |at: Option<usize>| at.and_then(|at| record.get(at)).unwrap_or_default();
        for (metric, column) in &columns {
            let text = field(Some(*column));
            if text.is_empty() {
                continue;
            }
            let number = |text: &str| format!("{}: {text:?} is not a number", metrics.display());
            rows.push(ValidationRow {
                variant: variant.to_string(),
                concept: concept.to_string(),
                seed,
                stage: field(stage).to_string(),
                step: field(step).parse().with_context(|| number(field(step)))?,
                metric: *metric,
                mean: text.parse().with_context(|| number(text))?,
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::read;

    #[test]
    fn only_steps_with_validation_images_have_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let text = "stage,step,loss,diffusion,embedding_norm,learning_rate,clip_t,dino\n\
                    a,1,0.5,0.5,,0.1,,\na,2,0.25,0.25,1.5,0.1,0.5,-0.25\n";
        std::fs::write(&path, text).unwrap();
        let rows = read(&path, "v", "dog", 0).unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|r| (r.step, r.metric.column(), r.mean))
            .collect();
        assert_eq!(found, [(2, "clip_t", 0.5), (2, "dino", -0.25)]);
        std::fs::write(&path, text.replace("0.5,-0.25", "half,-0.25")).unwrap();
        let message = format!("{:#}", read(&path, "v", "dog", 0).unwrap_err());
        assert!(
            message.contains("metrics.csv") && message.contains("half"),
            "{message}"
        );
    }
}
