//! `metrics.jsonl`: one object per optimiser step, for programs that read JSON.

use std::path::Path;

use super::lines::LineFile;
use super::{Logged, Logger};
use crate::error::{Error, Result};

/// Its name in the run folder.
pub(super) const FILE: &str = "metrics.jsonl";

/// The file.
#[derive(Debug)]
pub(super) struct MetricsJsonl {
    file: LineFile,
}

impl MetricsJsonl {
    /// Opens the file of a run folder and keeps its first `rows` lines.
    ///
    /// # Errors
    /// As [`LineFile::open`].
    pub(super) fn open(folder: &Path, rows: usize) -> Result<Self> {
        let file = LineFile::open(&folder.join(FILE), b"", rows)?;
        Ok(Self { file })
    }
}

impl Logger for MetricsJsonl {
    fn log(&mut self, logged: &Logged<'_>) -> Result<()> {
        let row = logged.row;
        let mut object = serde_json::Map::new();
        object.insert("stage".into(), row.stage.as_str().into());
        object.insert("step".into(), row.step.into());
        object.insert("total_step".into(), logged.total_step.into());
        for (name, text) in row.numbers() {
            let number = serde_json::from_str(&text);
            let number =
                number.map_err(|_| Error::run_folder(FILE, format!("{name} is {text}")))?;
            object.insert(name.into(), number);
        }
        let line = format!("{}\n", serde_json::Value::Object(object));
        self.file.append(line.as_bytes())
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{logged, row};
    use super::*;

    #[test]
    fn a_line_holds_the_numbers_that_the_step_has_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut jsonl = MetricsJsonl::open(folder.path(), 0).unwrap();
        let mut scored = row(2);
        scored.embedding_norm = None;
        scored.scores = vec![("clip_t", 0.25)];
        jsonl.log(&logged(&row(1), &[])).unwrap();
        jsonl.log(&logged(&scored, &[])).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(FILE)).unwrap(),
            "{\"stage\":\"embedding\",\"step\":1,\"total_step\":1,\"loss\":0.1,\"diffusion\":1.5e-7,\
             \"context_embedding\":0.25,\"embedding_norm\":1.0,\"learning_rate\":0.005}\n\
             {\"stage\":\"embedding\",\"step\":2,\"total_step\":2,\"loss\":0.1,\"diffusion\":1.5e-7,\
             \"context_embedding\":0.25,\"learning_rate\":0.005,\"clip_t\":0.25}\n"
        );
    }
}
