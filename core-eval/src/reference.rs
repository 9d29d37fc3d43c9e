//! How far an experiment's scores are from the committed ones.
//!
//! The last digits of a score depend on the processor, since other instruction sets add numbers in another
//! order. A difference of more than [`TOLERANCE`] has another cause.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indexmap::{IndexMap, IndexSet};

use crate::metrics::Metric;
use crate::report::{ScoreRow, ScoreTable};

/// The largest difference between processors.
pub const TOLERANCE: f64 = 1e-3;

/// The folder of references, beside those of experiments.
pub(crate) const FOLDER: &str = "reference";

/// How many differences are named; the rest is counted.
const NAMED: usize = 5;

/// The comparison of scores with a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviation {
    /// The folder of the reference.
    pub reference: PathBuf,
    /// Rows that both have.
    pub rows: usize,
    /// The largest difference of a score that both have.
    pub largest: f64,
    /// What differs by more than [`TOLERANCE`] or is in one of the two only, in words.
    pub different: Vec<String>,
}

/// The reference of the experiment in the folder `results`, where there is one.
pub fn reference_of(results: &Path) -> Option<PathBuf> {
    let folder = results.parent()?.join(FOLDER).join(results.file_name()?);
    folder.join("scores.csv").is_file().then_some(folder)
}

/// Compares all tables of scores that the reference has with those in the folder `results`. Variants
/// that were not run are no difference.
///
/// # Errors
/// A table that cannot be read.
pub fn compare(results: &Path, reference: &Path) -> Result<Deviation> {
    let mut deviation = Deviation {
        reference: reference.to_path_buf(),
        rows: 0,
        largest: 0.0,
        different: Vec::new(),
    };
    for file in score_files(reference)? {
        if results.join(&file).is_file() {
            let ours = ScoreTable::read(&results.join(&file))?;
            let theirs = ScoreTable::read(&reference.join(&file))?;
            deviation.add(&file, &ours, &theirs);
        }
    }
    Ok(deviation)
}

/// The names of the tables of scores in a folder, one per protocol.
fn score_files(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("scores") && name.ends_with(".csv") {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

impl Deviation {
    /// Whether everything is within [`TOLERANCE`].
    pub fn is_small(&self) -> bool {
        self.different.is_empty()
    }

    /// Adds the comparison of a file.
    fn add(&mut self, file: &str, ours: &ScoreTable, theirs: &ScoreTable) {
        let (here, there) = (by_image(ours), by_image(theirs));
        for (image, row) in &here {
            match there.get(image) {
                Some(other) => {
                    self.rows += 1;
                    let metrics = ours.metrics.iter().copied();
                    for metric in metrics.filter(|metric| theirs.metrics.contains(metric)) {
                        let scores = [row.scores[metric], other.scores[metric]];
                        self.compare(file, image, metric, scores);
                    }
                }
                None => self.differs(file, image, "is not in the reference"),
            }
        }
        let variants: IndexSet<&str> = ours.rows.iter().map(|row| row.variant.as_str()).collect();
        for (image, row) in &there {
            if variants.contains(row.variant.as_str()) && !here.contains_key(image) {
                self.differs(file, image, "is in the reference only");
            }
        }
    }

    fn compare(&mut self, file: &str, image: &str, metric: Metric, scores: [Option<f64>; 2]) {
        let column = metric.column();
        match scores {
            [Some(ours), Some(theirs)] => {
                let difference = (ours - theirs).abs();
                self.largest = self.largest.max(difference);
                if difference > TOLERANCE {
                    let figures = format!("{column} is {ours:.4} here and {theirs:.4} there");
                    self.differs(file, image, &figures);
                }
            }
            [None, None] => {}
            _ => self.differs(file, image, &format!("one of the two has no {column}")),
        }
    }

    fn differs(&mut self, file: &str, image: &str, how: &str) {
        self.different.push(format!("{file}: {image}: {how}"));
    }
}

/// Every image has one row.
fn by_image(table: &ScoreTable) -> IndexMap<&str, &ScoreRow> {
    let rows = table.rows.iter();
    rows.map(|row| (row.image.as_str(), row)).collect()
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "scores of {} images differ from {} by at most {:.1e}",
            self.rows,
            self.reference.display(),
            self.largest
        )?;
        if self.is_small() {
            return Ok(());
        }
        let count = self.different.len();
        write!(
            f,
            "; {count} by more than {TOLERANCE} or in one of the two only: "
        )?;
        let named = self.different.iter().take(NAMED).map(String::as_str);
        f.write_str(&named.collect::<Vec<_>>().join("; "))?;
        match count.saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, f64)]) -> ScoreTable {
        let metric = Metric::ALL[0];
        let row = |(variant, image, score): &(&str, &str, f64)| ScoreRow {
            variant: (*variant).into(),
            image: (*image).into(),
            scores: [(metric, Some(*score))].into_iter().collect(),
            ..ScoreRow::default()
        };
        ScoreTable {
            metrics: vec![metric],
            rows: rows.iter().map(row).collect(),
        }
    }

    /// The comparison of scores in `results/a` with those in `results/reference/a`.
    fn deviation(ours: &ScoreTable, theirs: &ScoreTable) -> Deviation {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("a");
        assert_eq!(reference_of(&results), None);
        let reference = folder.path().join("reference/a");
        for (folder, table) in [(&results, ours), (&reference, theirs)] {
            std::fs::create_dir_all(folder).unwrap();
            table.write(&folder.join("scores.csv")).unwrap();
        }
        assert_eq!(reference_of(&results).as_ref(), Some(&reference));
        compare(&results, &reference).unwrap()
    }

    #[test]
    fn the_largest_difference_is_said_and_only_large_ones_are_named() {
        let theirs = table(&[("CoRe", "0.png", 0.5), ("CoRe", "1.png", 0.25)]);
        let near = table(&[("CoRe", "1.png", 0.25), ("CoRe", "0.png", 0.5005)]);
        let near = deviation(&near, &theirs);
        assert!(near.is_small() && near.rows == 2, "{near:?}");
        assert!((near.largest - 5e-4).abs() < 1e-12, "{near:?}");
        assert!(near.to_string().ends_with("by at most 5.0e-4"), "{near}");
        let far = table(&[("CoRe", "0.png", 0.5), ("CoRe", "1.png", 0.75)]);
        let far = deviation(&far, &theirs);
        assert!(!far.is_small());
        let text = far.to_string();
        assert!(
            text.contains("1.png: clip_t is 0.7500 here and 0.2500 there"),
            "{text}"
        );
    }

    #[test]
    fn rows_of_one_side_only_are_differences_but_for_variants_that_were_not_run() {
        let theirs = table(&[
            ("CoRe", "0.png", 0.5),
            ("CoRe", "1.png", 0.5),
            ("class word", "2.png", 0.5),
        ]);
        let ours = table(&[("CoRe", "0.png", 0.5), ("CoRe", "3.png", 0.5)]);
        let deviation = deviation(&ours, &theirs);
        assert_eq!(
            deviation.different,
            [
                "scores.csv: 3.png: is not in the reference",
                "scores.csv: 1.png: is in the reference only",
            ]
        );
    }

    #[test]
    fn a_long_list_of_differences_is_cut() {
        let rows: Vec<String> = (0..8).map(|index| format!("{index}.png")).collect();
        let with = |score: f64| {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| ("CoRe", row.as_str(), score))
                .collect();
            table(&rows)
        };
        let text = deviation(&with(0.1), &with(0.2)).to_string();
        assert!(text.contains("4.png") && !text.contains("5.png"), "{text}");
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}
