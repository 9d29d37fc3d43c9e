//! `metrics.csv`: one row per optimiser step.

use std::path::{Path, PathBuf};

use core_model::files::write_atomically;

use super::lines::LineFile;
use super::row::DIFFUSION;
use super::{Logged, Logger};
use crate::error::{Error, Result};

/// Its name in the run folder.
pub const METRICS: &str = "metrics.csv";

/// The table.
#[derive(Debug)]
pub(super) struct MetricsCsv {
    path: PathBuf,
    file: LineFile,
    columns: Vec<&'static str>,
}

impl MetricsCsv {
    /// Opens the table of a run folder and keeps its header and first `rows` rows. `columns` are those
    /// after stage and step.
    ///
    /// # Errors
    /// As [`LineFile::open`].
    pub(super) fn open(folder: &Path, columns: Vec<&'static str>, rows: usize) -> Result<Self> {
        let path = folder.join(METRICS);
        let header = line(&path, &with_stage_and_step(&columns))?;
        Ok(Self {
            file: LineFile::open(&path, &header, rows)?,
            path,
            columns,
        })
    }
}

/// The columns of a run after stage and step: the loss, its terms, and the scores of validation images.
pub(super) fn columns(terms: &[&'static str], scores: &[&'static str]) -> Vec<&'static str> {
    let ends = ["embedding_norm", "learning_rate"];
    [&["loss", DIFFUSION], terms, &ends, scores].concat()
}

fn with_stage_and_step(columns: &[&'static str]) -> Vec<&'static str> {
    [&["stage", "step"], columns].concat()
}

/// Writes the rows of an earlier run's table with the columns of another run, which has at least the
/// same.
///
/// # Errors
/// An unreadable table, an unwritable folder.
pub(super) fn copy(earlier: &Path, folder: &Path, columns: &[&'static str]) -> Result<()> {
    let path = earlier.join(METRICS);
    let damaged = |error: csv::Error| Error::run_folder(&path, error.to_string());
    let mut reader = csv::Reader::from_path(&path).map_err(damaged)?;
    let header = reader.headers().map_err(damaged)?.clone();
    let names = with_stage_and_step(columns);
    let mut table = line(&path, &names)?;
    for record in reader.records() {
        let record = record.map_err(damaged)?;
        let field = |name: &&str| {
            let place = header.iter().position(|other| other == *name);
            place
                .and_then(|place| record.get(place))
                .unwrap_or_default()
        };
        let fields: Vec<&str> = names.iter().map(field).collect();
        table.extend(line(&path, &fields)?);
    }
    Ok(write_atomically(&folder.join(METRICS), &table)?)
}

impl Logger for MetricsCsv {
    fn log(&mut self, logged: &Logged<'_>) -> Result<()> {
        let row = logged.row;
        let numbers = row.numbers();
        let number = |column: &&str| {
            let found = numbers.iter().find(|(name, _)| name == column);
            found.map_or(String::new(), |(_, text)| text.clone())
        };
        let mut fields = vec![row.stage.clone(), row.step.to_string()];
        fields.extend(self.columns.iter().map(number));
        self.file.append(&line(&self.path, &fields)?)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()
    }
}

fn line<T: AsRef<[u8]>>(path: &Path, fields: &[T]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |error: &dyn std::fmt::Display| Error::run_folder(path, error.to_string());
    let written = writer.write_record(fields);
    written.map_err(|error| failed(&error))?;
    writer.into_inner().map_err(|error| failed(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{logged, row};
    use super::{Logger, METRICS, MetricsCsv, columns, copy};

    #[test]
    fn rows_of_an_earlier_run_get_the_columns_of_the_one_that_continues_it() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = folder.path().join("earlier");
        std::fs::create_dir(&earlier).unwrap();
        let mut csv = MetricsCsv::open(&earlier, columns(&["context_embedding"], &[]), 0).unwrap();
        csv.log(&logged(&row(1), &[])).unwrap();
        let wanted = columns(&["other_term", "context_embedding"], &["dino"]);
        copy(&earlier, folder.path(), &wanted).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(METRICS)).unwrap(),
            "stage,step,loss,diffusion,other_term,context_embedding,embedding_norm,learning_rate,dino\n\
             embedding,1,0.1,1.5e-7,,0.25,1.0,0.005,\n"
        );
    }

    #[test]
    fn rows_have_the_columns_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let columns = columns(&["context_embedding", "context_attention"], &[]);
        let mut csv = MetricsCsv::open(folder.path(), columns, 0).unwrap();
        csv.log(&logged(&row(1), &[])).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(METRICS)).unwrap(),
            "stage,step,loss,diffusion,context_embedding,context_attention,embedding_norm,\
             learning_rate\nembedding,1,0.1,1.5e-7,0.25,,1.0,0.005\n"
        );
    }

    #[test]
    fn scores_of_validation_images_stand_in_the_rows_of_their_steps() {
        let folder = tempfile::tempdir().unwrap();
        let mut csv =
            MetricsCsv::open(folder.path(), columns(&[], &["clip_t", "dino"]), 0).unwrap();
        let mut scored = row(2);
        scored.scores = vec![("clip_t", 0.25), ("dino", -0.5)];
        csv.log(&logged(&row(1), &[])).unwrap();
        csv.log(&logged(&scored, &[])).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS)).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(rows[0].ends_with(",0.005,,"), "{text}");
        assert!(rows[1].ends_with(",0.005,0.25,-0.5"), "{text}");
    }

    #[test]
    fn reopening_cuts_what_came_after_the_saved_state() {
        let folder = tempfile::tempdir().unwrap();
        let open = |rows| MetricsCsv::open(folder.path(), columns(&[], &[]), rows);
        let log = |csv: &mut MetricsCsv, step| csv.log(&logged(&row(step), &[])).unwrap();
        let mut csv = open(0).unwrap();
        (1..=3).for_each(|step| log(&mut csv, step));
        let whole = std::fs::read(folder.path().join(METRICS)).unwrap();
        let mut csv = open(1).unwrap();
        (2..=3).for_each(|step| log(&mut csv, step));
        assert_eq!(std::fs::read(folder.path().join(METRICS)).unwrap(), whole);
        assert!(open(4).is_err());
    }
}
