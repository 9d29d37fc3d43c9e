//! `metrics.csv`: one row per optimiser step.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use core_losses::Losses;

use crate::error::{Error, Result};
use crate::fault::{Fault, finite};

/// The term that every file has a column for.
const DIFFUSION: &str = "diffusion";

/// The numbers of one step; sums are kept in double precision and written in single precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The stage's name.
    pub stage: String,
    /// From 1 in each stage.
    pub step: usize,
    /// The weighted total.
    pub loss: f64,
    /// The unweighted terms that were computed, by kind.
    pub terms: Vec<(&'static str, f64)>,
    /// Of all vectors together, after the step and rescaling; absent where no vector is learned.
    pub embedding_norm: Option<f32>,
    /// Of this step.
    pub learning_rate: f64,
}

impl Row {
    /// A step of which nothing was computed yet.
    pub fn new(stage: &str, step: usize, learning_rate: f64) -> Self {
        Self {
            stage: stage.to_string(),
            step,
            loss: 0.0,
            terms: Vec::new(),
            embedding_norm: None,
            learning_rate,
        }
    }

    /// Adds the values of one forward pass.
    ///
    /// # Errors
    /// A value that is NaN or infinite, by the name of its term.
    pub fn add(&mut self, losses: &Losses) -> Result<(), Fault> {
        for (kind, value) in &losses.terms {
            let Some(value) = value else { continue };
            let value = f64::from(finite(&named(kind), value.clone().into_scalar::<f32>())?);
            match self.terms.iter_mut().find(|(name, _)| name == kind) {
                Some((_, sum)) => *sum += value,
                None => self.terms.push((kind, value)),
            }
        }
        let total = losses.total.clone().into_scalar::<f32>();
        self.loss += f64::from(finite("the loss", total)?);
        Ok(())
    }

    /// Multiplies all values, to make means of sums.
    pub fn scale(&mut self, factor: f64) {
        self.loss *= factor;
        for (_, value) in &mut self.terms {
            *value *= factor;
        }
    }

    fn term(&self, kind: &str) -> String {
        let value = self.terms.iter().find(|(name, _)| *name == kind);
        value.map_or(String::new(), |(_, value)| shortest(*value as f32))
    }
}

/// A term in messages.
fn named(kind: &str) -> String {
    match kind {
        DIFFUSION => "the diffusion loss".into(),
        other => other.into(),
    }
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
    /// continues where its state was saved. Makes the file when `rows` is 0. `kinds` are the columns of
    /// the terms beside the diffusion loss.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written, [`Error::RunFolder`] when rows are missing.
    pub fn open(path: &Path, kinds: Vec<&'static str>, rows: usize) -> Result<Self> {
        let mut header = vec!["stage", "step", "loss", DIFFUSION];
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
    /// [`Error::File`] when the disk is full or gone.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let mut fields = vec![
            row.stage.clone(),
            row.step.to_string(),
            shortest(row.loss as f32),
            row.term(DIFFUSION),
        ];
        fields.extend(self.kinds.iter().map(|kind| row.term(kind)));
        fields.push(row.embedding_norm.map(shortest).unwrap_or_default());
        fields.push(format!("{:?}", row.learning_rate));
        let bytes = line(&self.path, &fields)?;
        self.file.write_all(&bytes).map_err(Error::io(&self.path))?;
        self.file.flush().map_err(Error::io(&self.path))
    }

    /// Waits until all rows are on the disk.
    ///
    /// # Errors
    /// [`Error::File`].
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
            terms: vec![(DIFFUSION, 1.5e-7), ("context_embedding", 0.25)],
            embedding_norm: Some(1.0),
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
