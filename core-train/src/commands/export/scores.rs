//! The scores of a run, from the folder of an experiment that scored it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use core_model::files::read_to_string;
use serde_json::Value;

/// The tables of a results folder: what is behind `summary` and `protocol` in the names of files.
const SUFFIXES: [&str; 2] = ["", "-core"];

/// The scores of one variant on one concept, under one protocol or more.
#[derive(Debug)]
pub(super) struct Scores {
    variant: String,
    tables: Vec<Table>,
}

/// Scores under one protocol.
#[derive(Debug)]
struct Table {
    /// Name and source.
    protocol: String,
    rows: Vec<Row>,
}

/// A row of `summary.csv`.
#[derive(Debug)]
struct Row {
    metric: String,
    mean: String,
    low: String,
    high: String,
    images: String,
}

impl Scores {
    /// Reads the tables of `folder`, a results folder of `core-eval`.
    ///
    /// # Errors
    /// No tables, damaged ones, no such variant or concept in them.
    pub(super) fn read(folder: &Path, variant: &str, concept: &str) -> Result<Self> {
        let mut tables = Vec::new();
        for suffix in SUFFIXES {
            let summary = folder.join(format!("summary{suffix}.csv"));
            if summary.is_file() {
                tables.push(Table {
                    protocol: protocol(&folder.join(format!("protocol{suffix}.json")))?,
                    rows: rows(&summary, variant, concept)?,
                });
            }
        }
        ensure!(
            !tables.is_empty(),
            "{}: holds no summary.csv; --scores names the results folder of an experiment",
            folder.display()
        );
        Ok(Self {
            variant: variant.to_string(),
            tables,
        })
    }

    /// A section of the card.
    pub(super) fn text(&self, concept: &str) -> String {
        let mut text = format!(
            "Means over images of `{concept}` and 95 % intervals, as the variant \"{}\" of an experiment.\n",
            self.variant
        );
        for Table { protocol, rows } in &self.tables {
            text += &format!(
                "\nProtocol {protocol}:\n\n| score | mean | interval | images |\n|---|---|---|---|\n"
            );
            for row in rows {
                text += &format!(
                    "| {} | {} | {} to {} | {} |\n",
                    row.metric, row.mean, row.low, row.high, row.images
                );
            }
        }
        text
    }
}

/// A protocol's name with where it comes from.
fn protocol(path: &Path) -> Result<String> {
    let text = read_to_string(path)?;
    let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let of = |key: &str| json["protocol"][key].as_str();
    match (of("name"), of("source")) {
        (Some(name), Some(source)) => Ok(format!("`{name}` ({source})")),
        (Some(name), None) => Ok(format!("`{name}`")),
        (None, _) => bail!("{}: names no protocol", path.display()),
    }
}

fn rows(path: &Path, variant: &str, concept: &str) -> Result<Vec<Row>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    let (mut rows, mut variants) = (Vec::new(), Vec::new());
    for row in reader.deserialize::<HashMap<String, String>>() {
        let row = row.with_context(|| path.display().to_string())?;
        let of = |key: &str| {
            let value = row.get(key).cloned();
            value.with_context(|| format!("{}: has no column `{key}`", path.display()))
        };
        let name = of("variant")?;
        if name == variant && of("concept")? == concept {
            rows.push(Row {
                metric: of("metric")?,
                mean: rounded(&of("mean")?, path)?,
                low: rounded(&of("low")?, path)?,
                high: rounded(&of("high")?, path)?,
                images: of("n")?,
            });
        }
        if !variants.contains(&name) {
            variants.push(name);
        }
    }
    ensure!(
        !rows.is_empty(),
        "{}: has no scores of the variant `{variant}` on the concept `{concept}`; its variants are {}",
        path.display(),
        variants.join(", ")
    );
    Ok(rows)
}

/// A number with three digits behind the point; an empty field stays empty.
fn rounded(text: &str, path: &Path) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let number: f64 = text
        .parse()
        .with_context(|| format!("{}: `{text}` is not a number", path.display()))?;
    Ok(format!("{number:.3}"))
}

/// The results folder in whose `runs` a run lies, if it does.
pub(super) fn results_of(run: &Path) -> Option<PathBuf> {
    let run = run.canonicalize().ok()?;
    let runs = run.parent()?;
    let results = runs.parent()?;
    (runs.file_name()? == "runs" && results.join("summary.csv").is_file())
        .then(|| results.to_path_buf())
}
