//! The result files of one protocol, of one experiment or of several.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::files::{read_to_string, write_atomically};
use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use super::breakdown::{by_concept, by_kind};
use super::latex::table_latex;
use super::table::{Table, table_markdown};
use super::{ScoreTable, SummaryRow, Weighting, other_version, summarize, write_rows};
use crate::checks::CheckRow;
use crate::merge::join;
use crate::protocol::Protocol;

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
    /// Writes scores, summary, checks, tables and protocol into an existing folder. A suffix, such as
    /// `-core`, follows the stem of every name.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn write(&self, folder: &Path, suffix: &str) -> Result<Written> {
        let rendered = self.render();
        let mut files = Vec::new();
        let mut name = |stem: &str, ending: &str| {
            let name = format!("{stem}{suffix}.{ending}");
            files.push(name.clone());
            folder.join(name)
        };
        self.scores.write(&name("scores", "csv"))?;
        write_rows(&name("summary", "csv"), &rendered.summary)?;
        write_rows(&name("checks", "csv"), self.checks)?;
        write_atomically(&name("table", "md"), rendered.markdown.as_bytes())?;
        write_atomically(&name("table", "tex"), rendered.latex.as_bytes())?;
        write_atomically(&name("protocol", "json"), self.protocol.as_bytes())?;
        Ok(Written {
            files,
            markdown: rendered.markdown,
        })
    }

    /// Means and intervals, and the tables that show them.
    fn render(&self) -> Rendered {
        let rows = || self.scores.rows.iter();
        let variants: IndexSet<&str> = rows().map(|row| row.variant.as_str()).collect();
        let variants: Vec<String> = variants.into_iter().map(String::from).collect();
        let seeds: IndexSet<u64> = rows().map(|row| row.seed).collect();
        let summary = summarize(self.scores, &variants, self.weighting);
        let mut breakdowns = by_kind(self.scores, &variants, self.weighting);
        breakdowns.extend(by_concept(&self.scores.metrics, &summary, &variants));
        let table = Table {
            metrics: &self.scores.metrics,
            summary: &summary,
            checks: self.checks,
            variants: &variants,
            seeds: seeds.len(),
            averaging: self.weighting.averaging,
        };
        Rendered {
            markdown: table_markdown(&table, &breakdowns),
            latex: table_latex(&table, &breakdowns),
            summary,
        }
    }
}

/// What is computed from scores and checks.
struct Rendered {
    summary: Vec<SummaryRow>,
    markdown: String,
    latex: String,
}

/// Writes `table.md` and `table.tex` of every protocol of a results folder again, from its scores and
/// checks, and returns their files. A folder without scores has none.
///
/// # Errors
/// Damaged files, or files of another version; an unwritable folder.
pub fn redraw_tables(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, suffix) in protocol_suffixes(folder)? {
        if !folder.join(format!("scores{suffix}.csv")).is_file() {
            continue;
        }
        let joined = join(&[folder.to_path_buf()], Some(&name))?;
        let rendered = Tables {
            scores: &joined.scores,
            checks: &joined.checks,
            weighting: joined.weighting(),
            protocol: "",
        }
        .render();
        for (ending, text) in [("md", &rendered.markdown), ("tex", &rendered.latex)] {
            let path = folder.join(format!("table{suffix}.{ending}"));
            write_atomically(&path, text.as_bytes())?;
            files.push(path);
        }
    }
    Ok(files)
}

/// The protocols of a results folder: their names, and the ends of the names of their files. The first is the one
/// whose files have no such end.
///
/// # Errors
/// An unreadable folder; a `protocol.json` that is damaged or of another version.
pub(crate) fn protocol_suffixes(folder: &Path) -> Result<IndexMap<String, String>> {
    let at = || folder.display().to_string();
    let mut suffixes = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(at)? {
        let name = entry.with_context(at)?.file_name();
        let name = name.to_string_lossy();
        let suffix = name.strip_prefix("protocol");
        let suffix = suffix.and_then(|name| name.strip_suffix(".json"));
        let is_end = |end: &&str| end.is_empty() || end.starts_with('-');
        if let Some(suffix) = suffix.filter(is_end) {
            suffixes.push(suffix.to_string());
        }
    }
    suffixes.sort();
    let named = suffixes.into_iter().map(|suffix| {
        let path = folder.join(format!("protocol{suffix}.json"));
        Ok((read_protocol(&path)?.0, suffix))
    });
    named.collect()
}

/// The name in a `protocol.json`, and all of its content.
///
/// # Errors
/// A file that is damaged or of another version.
pub(crate) fn read_protocol(path: &Path) -> Result<(String, Value)> {
    let protocol = serde_json::from_str(&read_to_string(path)?);
    let protocol: Value = protocol.with_context(|| other_version(path))?;
    let name = protocol["protocol"]["name"].as_str();
    let name = name.with_context(|| other_version(path))?.to_string();
    Protocol::named(&name).with_context(|| path.display().to_string())?;
    Ok((name, protocol))
}
