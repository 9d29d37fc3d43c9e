//! The files of an experiment: CSV tables, tables to read and to print, figures.

mod breakdown;
pub mod figures;
mod font;
mod latex;
mod scores;
mod summary;
mod table;
mod tables;

use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use scores::{ScoreRow, ScoreTable};
pub use summary::{ALL_CONCEPTS, Grouped, SummaryRow, Verdict, Weighting, grouped, summarize};
pub use tables::{Tables, Written, redraw_tables};
pub(crate) use tables::{protocol_suffixes, read_protocol};

/// A row of `tokens.csv`: one context token of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The variant.
    pub variant: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The template.
    pub prompt: String,
    /// The position in the prompt with the learned concept.
    pub position: usize,
    /// The token.
    pub token: String,
    /// The cosine of its output embedding with the one in the prompt with the super-category.
    pub cosine: f64,
}

/// Writes rows with their header.
///
/// # Errors
/// An unwritable file.
pub fn write_rows<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer
            .serialize(row)
            .with_context(|| path.display().to_string())?;
    }
    let bytes = writer
        .into_inner()
        .with_context(|| path.display().to_string())?;
    Ok(write_atomically(path, &bytes)?)
}

/// Reads rows; an absent file has none.
///
/// # Errors
/// An unreadable file or a damaged row.
pub fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    reader
        .deserialize()
        .map(|row| row.with_context(|| other_version(path)))
        .collect()
}

/// The message for a file that this version did not write.
fn other_version(path: &Path) -> String {
    format!(
        "{}: not as this version writes it; run the experiment again, which writes a new one from what \
         is there",
        path.display()
    )
}
