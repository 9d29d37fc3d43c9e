//! The files of an experiment: CSV tables, a table to read, plots, a picture grid.

mod font;
pub mod grid;
pub mod plot;
mod summary;
mod table;

use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use summary::{
    ALL_CONCEPTS, Grouped, METRICS, SummaryRow, TITLES, Weighting, grouped, summarize,
};
pub use table::{Table, table_markdown};

/// A row of `scores.csv`: one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    /// The method.
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
    /// Image and text by CLIP; empty where the protocol leaves the image out.
    pub clip_t: Option<f64>,
    /// Image and photos by CLIP; empty where the protocol leaves it out.
    pub clip_i: Option<f64>,
    /// The same by DINO.
    pub dino: Option<f64>,
}

impl ScoreRow {
    /// A score by its column.
    pub fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "clip_t" => self.clip_t,
            "clip_i" => self.clip_i,
            "dino" => self.dino,
            _ => None,
        }
    }
}

/// A row of `tokens.csv`: one context token of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The method.
    pub variant: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The template.
    pub prompt: String,
    /// In the prompt with the learned concept.
    pub position: usize,
    /// The word.
    pub token: String,
    /// Of its output embedding with the one in the super-category's prompt.
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

/// Reads rows; a file that is not there has none.
///
/// # Errors
/// An unreadable file or a damaged row.
pub fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let damaged = || {
        format!(
            "{}: not a table as this version writes it; give the experiment again, which writes a \
             new one from what is there",
            path.display()
        )
    };
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    reader
        .deserialize()
        .map(|row| row.with_context(damaged))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_written_in_the_documented_columns_and_read_back() {
        let row = ScoreRow {
            variant: "CoRe".into(),
            concept: "dog".into(),
            seed: 1,
            group: "animate".into(),
            kind: "style".into(),
            prompt: "a painting of a {}, old".into(),
            image: "images/CoRe/dog/1/0/00000.png".into(),
            clip_t: Some(0.1 + 0.2),
            clip_i: None,
            dino: Some(0.5),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        write_rows(&path, std::slice::from_ref(&row)).unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino
        CoRe,dog,1,animate,style,"a painting of a {}, old",images/CoRe/dog/1/0/00000.png,0.30000000000000004,,0.5
        "#);
        assert_eq!(read_rows::<ScoreRow>(&path).unwrap(), [row]);
    }
}
