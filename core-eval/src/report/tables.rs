//! The result files of one protocol, of one experiment or of several.

use std::path::Path;

use anyhow::Result;
use core_model::files::write_atomically;
use indexmap::IndexSet;

use super::table::{Table, table_markdown};
use super::{ScoreTable, Weighting, summarize, write_rows};
use crate::checks::CheckRow;

/// What the files are made of.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// The score of every image; the first variant is the baseline.
    pub scores: &'a ScoreTable,
    /// The checks beside the scores.
    pub checks: &'a [CheckRow],
    /// How the scores of concepts are combined.
    pub weighting: Weighting<'a>,
    /// The text of `protocol.json`.
    pub protocol: &'a str,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The names of the files.
    pub files: Vec<String>,
    /// The text of `table.md`.
    pub markdown: String,
}

impl Tables<'_> {
    /// Writes scores, summary, checks, table and protocol into an existing folder. A suffix, such as
    /// `-core`, follows the stem of every name.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn write(&self, folder: &Path, suffix: &str) -> Result<Written> {
        let rows = || self.scores.rows.iter();
        let variants: IndexSet<&str> = rows().map(|row| row.variant.as_str()).collect();
        let variants: Vec<String> = variants.into_iter().map(String::from).collect();
        let seeds: IndexSet<u64> = rows().map(|row| row.seed).collect();
        let summary = summarize(self.scores, &variants, self.weighting);
        let markdown = table_markdown(&Table {
            metrics: &self.scores.metrics,
            summary: &summary,
            checks: self.checks,
            variants: &variants,
            seeds: seeds.len(),
            averaging: self.weighting.averaging,
        });
        let mut files = Vec::new();
        let mut name = |stem: &str, ending: &str| {
            let name = format!("{stem}{suffix}.{ending}");
            files.push(name.clone());
            folder.join(name)
        };
        self.scores.write(&name("scores", "csv"))?;
        write_rows(&name("summary", "csv"), &summary)?;
        write_rows(&name("checks", "csv"), self.checks)?;
        write_atomically(&name("table", "md"), markdown.as_bytes())?;
        write_atomically(&name("protocol", "json"), self.protocol.as_bytes())?;
        Ok(Written { files, markdown })
    }
}
