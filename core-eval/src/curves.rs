//! The `metrics.csv` files of all runs as one table, `curves.csv`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One optimiser step of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
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
    /// The weighted total loss.
    pub loss: f64,
    /// The norm of the embedding after the step and rescaling; none where no vector is learned.
    pub embedding_norm: Option<f64>,
}

/// The columns of `metrics.csv` that the table keeps.
#[derive(Deserialize)]
struct Metrics {
    stage: String,
    step: u64,
    loss: f64,
    embedding_norm: Option<f64>,
}

/// Reads a run's `metrics.csv`.
///
/// # Errors
/// An unreadable file or a damaged row, naming the file.
pub fn read(metrics: &Path, variant: &str, concept: &str, seed: u64) -> Result<Vec<CurveRow>> {
    let mut reader =
        csv::Reader::from_path(metrics).with_context(|| metrics.display().to_string())?;
    let mut rows = Vec::new();
    for row in reader.deserialize() {
        let row: Metrics = row.with_context(|| metrics.display().to_string())?;
        rows.push(CurveRow {
            variant: variant.to_string(),
            concept: concept.to_string(),
            seed,
            stage: row.stage,
            step: row.step,
            loss: row.loss,
            embedding_norm: row.embedding_norm,
        });
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::read;

    #[test]
    fn a_run_without_a_learned_vector_has_no_norm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let text = "stage,step,loss,diffusion,embedding_norm,learning_rate\n\
                    a,1,0.5,0.5,,0.1\nb,1,0.25,0.25,1.5,0.1\n";
        std::fs::write(&path, text).unwrap();
        let rows = read(&path, "v", "dog", 0).unwrap();
        let norms: Vec<_> = rows.iter().map(|row| row.embedding_norm).collect();
        assert_eq!(norms, [None, Some(1.5)]);
    }
}
