//! `metrics.csv`: one row per optimiser step.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The numbers of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The stage's name.
    pub stage: String,
    /// From 1 in each stage.
    pub step: usize,
    /// The weighted total.
    pub loss: f32,
    /// The diffusion loss.
    pub diffusion: f32,
    /// The unweighted regularisers that were computed, by kind.
    pub terms: Vec<(&'static str, f32)>,
    /// Of all vectors together, after the step and rescaling.
    pub embedding_norm: f32,
    /// Of this step.
    pub learning_rate: f64,
}

/// Appends rows and makes sure that each is on its way to the disk before the next step.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    kinds: Vec<&'static str>,
}

impl MetricsWriter {
    /// Opens the file at `path` and keeps its header and first `rows` rows, so that a resumed run
    /// continues where its state was saved. Makes the file when `rows` is 0.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be written, [`Error::RunFolder`] when rows are missing.
    pub fn open(path: &Path, kinds: Vec<&'static str>, rows: usize) -> Result<Self> {
        let mut header = vec!["stage", "step", "loss", "diffusion"];
        header.extend(&kinds);
        header.extend(["embedding_norm", "learning_rate"]);
        let header = line(path, &header)?;
        let kept = if rows == 0 {
            core_model::files::write_atomically(path, &header)?;
            header.len()
        } else {
            let text = core_model::files::read(path)?;
            let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let end = ends.map(|(at, _)| at + 1).nth(rows);
            end.ok_or_else(|| {
                let reason = "has fewer rows than the saved state has steps; remove the run \
                              folder and start again";
                Error::run_folder(path, reason)
            })?
        };
        let mut file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(Error::io(path))?;
        file.set_len(kept as u64).map_err(Error::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            kinds,
        })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`Error::Model`] when the disk is full or gone.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let mut fields = vec![
            row.stage.clone(),
            row.step.to_string(),
            shortest(row.loss),
            shortest(row.diffusion),
        ];
        for kind in &self.kinds {
            let value = row.terms.iter().find(|(name, _)| name == kind);
            fields.push(value.map(|(_, value)| shortest(*value)).unwrap_or_default());
        }
        fields.push(shortest(row.embedding_norm));
        fields.push(format!("{:?}", row.learning_rate));
        let bytes = line(&self.path, &fields)?;
        self.file.write_all(&bytes).map_err(Error::io(&self.path))?;
        self.file.flush().map_err(Error::io(&self.path))
    }

    /// Waits until all rows are on the disk.
    ///
    /// # Errors
    /// [`Error::Model`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }
}

/// The fewest digits that give the same number back.
fn shortest(value: f32) -> String {
    format!("{value:?}")
}

fn line<T: AsRef<[u8]>>(path: &Path, fields: &[T]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: &dyn std::fmt::Display| Error::run_folder(path, error.to_string());
    writer
        .write_record(fields)
        .map_err(|error| failed(&error))?;
    writer.into_inner().map_err(|error| failed(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(step: usize) -> Row {
        Row {
            stage: "embedding".into(),
            step,
            loss: 0.1,
            diffusion: 1.5e-7,
            terms: vec![("context_embedding", 0.25)],
            embedding_norm: 1.0,
            learning_rate: 5e-3,
        }
    }

    #[test]
    fn rows_have_the_columns_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let kinds = vec!["context_embedding", "context_attention"];
        MetricsWriter::open(&path, kinds, 0)
            .unwrap()
            .write(&row(1))
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "stage,step,loss,diffusion,context_embedding,context_attention,embedding_norm,\
             learning_rate\nembedding,1,0.1,1.5e-7,0.25,,1.0,0.005\n"
        );
    }

    #[test]
    fn reopening_cuts_what_came_after_the_saved_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut writer = MetricsWriter::open(&path, vec![], 0).unwrap();
        for step in 1..=3 {
            writer.write(&row(step)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let mut writer = MetricsWriter::open(&path, vec![], 1).unwrap();
        for step in 2..=3 {
            writer.write(&row(step)).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert!(MetricsWriter::open(&path, vec![], 4).is_err());
    }
}
