//! `scores.csv`: one row per image and one column per metric that ran.

use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::write_atomically;

use crate::metrics::{Metric, Scores};

/// The columns before those of the metrics.
const COLUMNS: [&str; 7] = [
    "variant", "concept", "seed", "group", "kind", "prompt", "image",
];

/// The scores of one image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreRow {
    /// The variant.
    pub variant: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// animate or inanimate.
    pub group: String,
    /// The kind of prompt.
    pub kind: String,
    /// The template.
    pub prompt: String,
    /// The file, relative to the results.
    pub image: String,
    /// The scores; empty in the file where the protocol leaves the image out.
    pub scores: Scores,
}

/// The rows of `scores.csv` with the metrics that have a column.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreTable {
    /// In the order of the table of metrics.
    pub metrics: Vec<Metric>,
    /// In the order of the file.
    pub rows: Vec<ScoreRow>,
}

/// A row as the file holds it.
type Record = (
    String,
    String,
    u64,
    String,
    String,
    String,
    String,
    Vec<Option<f64>>,
);

impl ScoreTable {
    /// Writes the rows with their header.
    ///
    /// # Errors
    /// An unwritable file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let at = || path.display().to_string();
        let mut writer = csv::WriterBuilder::new()
            .has_headers(false)
            .from_writer(Vec::new());
        let metrics = self.metrics.iter().map(|metric| metric.column());
        writer
            .write_record(COLUMNS.into_iter().chain(metrics))
            .with_context(at)?;
        for row in &self.rows {
            let metrics = self.metrics.iter();
            let scores: Vec<Option<f64>> = metrics.map(|metric| row.scores[*metric]).collect();
            let record = (
                &row.variant,
                &row.concept,
                row.seed,
                &row.group,
                &row.kind,
                &row.prompt,
                &row.image,
                scores,
            );
            writer.serialize(record).with_context(at)?;
        }
        let bytes = writer.into_inner().with_context(at)?;
        Ok(write_atomically(path, &bytes)?)
    }

    /// Reads a file; an absent file has no rows.
    ///
    /// # Errors
    /// An unreadable file, other columns, a damaged row.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let at = || path.display().to_string();
        let damaged = || super::other_version(path);
        let mut reader = csv::Reader::from_path(path).with_context(at)?;
        let header = reader.headers().with_context(damaged)?.clone();
        let begins = COLUMNS.into_iter().eq(header.iter().take(COLUMNS.len()));
        let metrics = header.iter().skip(COLUMNS.len()).map(Metric::named);
        let metrics: Option<Vec<Metric>> = metrics.collect();
        let metrics = metrics.filter(|_| begins).with_context(damaged)?;
        let mut rows = Vec::new();
        for record in reader.records() {
            let record: Record = record
                .and_then(|record| record.deserialize(None))
                .with_context(damaged)?;
            let (variant, concept, seed, group, kind, prompt, image, scores) = record;
            rows.push(ScoreRow {
                variant,
                concept,
                seed,
                group,
                kind,
                prompt,
                image,
                scores: metrics.iter().copied().zip(scores).collect(),
            });
        }
        Ok(Self { metrics, rows })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_in_the_documented_columns_and_read_back() {
        let values = [Some(0.1 + 0.2), None, Some(0.5)];
        let metrics = ["clip_t", "clip_i", "dino"].map(|column| Metric::named(column).unwrap());
        let table = ScoreTable {
            metrics: metrics.to_vec(),
            rows: vec![ScoreRow {
                variant: "CoRe".into(),
                concept: "dog".into(),
                seed: 1,
                group: "animate".into(),
                kind: "style".into(),
                prompt: "a painting of a {}, old".into(),
                image: "images/CoRe/dog/1/0/00000.png".into(),
                scores: metrics.into_iter().zip(values).collect(),
            }],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        table.write(&path).unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino
        CoRe,dog,1,animate,style,"a painting of a {}, old",images/CoRe/dog/1/0/00000.png,0.30000000000000004,,0.5
        "#);
        assert_eq!(ScoreTable::read(&path).unwrap(), table);
    }

    #[test]
    fn only_the_metrics_that_ran_have_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        let table = ScoreTable {
            metrics: vec![Metric::ALL[1]],
            rows: vec![ScoreRow::default()],
        };
        table.write(&path).unwrap();
        assert_eq!(ScoreTable::read(&path).unwrap(), table);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines().next().unwrap().ends_with(",image,clip_i"),
            "{text}"
        );
        std::fs::write(&path, text.replace("clip_i", "clip_z")).unwrap();
        let message = format!("{:#}", ScoreTable::read(&path).unwrap_err());
        assert!(
            message.contains("scores.csv") && message.contains("again"),
            "{message}"
        );
    }
}
