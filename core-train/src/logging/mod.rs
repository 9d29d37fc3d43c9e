//! What a run writes while it trains: `metrics.csv` always, and what `report_to` names.
//!
//! A logger of your own is one file with a `Logger` and its line in the table.

mod csv;
mod jsonl;
mod lines;
mod row;
mod tensorboard;

use std::path::Path;

use core_model::files::copy_all;
use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::csv::METRICS;
pub use row::Row;

use crate::error::Result;

/// One step as loggers see it.
pub(crate) struct Logged<'a> {
    /// Its numbers.
    pub row: &'a Row,
    /// Steps done in all stages.
    pub total_step: usize,
    /// The validation images drawn after it, with their prompts.
    pub images: &'a [(String, RgbImage)],
}

/// A file that grows with every step.
pub(crate) trait Logger {
    /// Appends a step and hands it to the system before it returns.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when the disk is full or gone.
    fn log(&mut self, logged: &Logged<'_>) -> Result<()>;

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File).
    fn sync(&self) -> Result<()>;
}

/// From one line per logger to the values of `report_to`.
macro_rules! loggers {
    ($($(#[$doc:meta])* $module:ident :: $name:ident => $key:literal),+ $(,)?) => {
        /// Where the numbers of a run go beside `metrics.csv`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum ReportTo {
            $($(#[$doc])* #[serde(rename = $key)] $name,)+
        }

        impl ReportTo {
            /// Its file or folder in a run folder.
            fn file(self) -> &'static str {
                match self { $(Self::$name => $module::FILE,)+ }
            }

            fn open(self, folder: &Path, rows: usize) -> Result<Box<dyn Logger>> {
                Ok(match self { $(Self::$name => Box::new($module::$name::open(folder, rows)?),)+ })
            }
        }
    };
}

loggers! {
    /// `metrics.jsonl`, one JSON object per step.
    jsonl::MetricsJsonl => "jsonl",
    /// `tensorboard/`, event files with scalars and validation images.
    tensorboard::TensorBoard => "tensorboard",
}

/// What a run wants to be written.
pub(crate) struct Wanted<'a> {
    columns: Vec<&'static str>,
    report_to: &'a [ReportTo],
}

impl<'a> Wanted<'a> {
    /// Of a run with these terms beside the diffusion loss and these scores of validation images.
    pub(crate) fn new(
        terms: &[&'static str],
        scores: &[&'static str],
        report_to: &'a [ReportTo],
    ) -> Self {
        Self {
            columns: csv::columns(terms, scores),
            report_to,
        }
    }
}

/// Puts what an earlier run has logged, which had the first stages of this one, into its folder.
///
/// # Errors
/// An unreadable log, an unwritable folder.
pub(crate) fn copy_log(earlier: &Path, folder: &Path, wanted: &Wanted<'_>) -> Result<()> {
    csv::copy(earlier, folder, &wanted.columns)?;
    for kind in wanted.report_to {
        copy_all(&earlier.join(kind.file()), &folder.join(kind.file()))?;
    }
    Ok(())
}

/// All loggers of a run.
pub(crate) struct Log {
    loggers: Vec<Box<dyn Logger>>,
}

impl Log {
    /// Opens the files of a run folder and keeps what they say of the first `rows` steps, so that a
    /// resumed run continues where its state was saved. Makes them when `rows` is 0.
    ///
    /// # Errors
    /// Files that cannot be written, or that hold fewer steps.
    pub(crate) fn open(folder: &Path, wanted: Wanted<'_>, rows: usize) -> Result<Self> {
        let csv = csv::MetricsCsv::open(folder, wanted.columns, rows)?;
        let mut loggers: Vec<Box<dyn Logger>> = vec![Box::new(csv)];
        for kind in wanted.report_to {
            loggers.push(kind.open(folder, rows)?);
        }
        Ok(Self { loggers })
    }

    /// Appends a step to all of them.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) fn write(&mut self, logged: &Logged<'_>) -> Result<()> {
        self.loggers
            .iter_mut()
            .try_for_each(|logger| logger.log(logged))
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) fn sync(&self) -> Result<()> {
        self.loggers.iter().try_for_each(|logger| logger.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn row(step: usize) -> Row {
        Row {
            stage: "embedding".into(),
            step,
            loss: 0.1,
            terms: vec![("diffusion", 1.5e-7), ("context_embedding", 0.25)],
            embedding_norm: Some(1.0),
            learning_rate: 5e-3,
            scores: Vec::new(),
        }
    }

    pub(super) fn logged<'a>(row: &'a Row, images: &'a [(String, RgbImage)]) -> Logged<'a> {
        Logged {
            row,
            total_step: row.step,
            images,
        }
    }
}
