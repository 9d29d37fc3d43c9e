//! One table of the variants of several experiments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::checks::{CheckRow, PHOTOS};
use crate::metrics::{Metric, Scores};
use crate::protocol::{Averaging, Protocol};
use crate::report::figures::{FigureOptions, draw_all};
use crate::report::{ScoreRow, ScoreTable, Tables, Weighting, read_protocol, read_rows};

/// Writes scores, summary, checks, tables, protocol and figures of all variants into the folder `out` and
/// returns the table. The first variant of the first folder is the baseline. Without `protocol`, the first
/// protocol of the first folder is taken.
///
/// # Errors
/// Scores under different protocols, encoders or photos, naming the first key that differs; a variant with
/// different scores in two folders; variants with different concepts, prompts or seeds; absent or damaged
/// files.
pub fn merge(folders: &[PathBuf], protocol: Option<&str>, out: &Path) -> Result<String> {
    let joined = join(folders, protocol)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let tables = Tables {
        scores: &joined.scores,
        checks: &joined.checks,
        weighting: joined.weighting(),
        protocol: &(serde_json::to_string_pretty(&joined.protocol)? + "\n"),
    };
    let written = tables.write(out, "")?;
    draw_all(out, &FigureOptions::default())?;
    Ok(written.markdown)
}

/// The scores of several folders under one protocol, as those of one experiment.
#[derive(Debug)]
pub struct Joined {
    /// The content of `protocol.json`, which is the same in all folders.
    pub protocol: Value,
    /// The score of every image; its file is named with its folder.
    pub scores: ScoreTable,
    /// The checks of all variants.
    pub checks: Vec<CheckRow>,
    averaging: Averaging,
    photos: BTreeMap<String, usize>,
}

impl Joined {
    /// How the scores of concepts are combined.
    pub fn weighting(&self) -> Weighting<'_> {
        Weighting {
            averaging: self.averaging,
            photos: &self.photos,
        }
    }
}

/// Reads the scores of folders. The variants of several folders must have the same images. Without
/// `protocol`, the first protocol of the first folder is taken.
///
/// # Errors
/// As [`merge`].
pub fn join(folders: &[PathBuf], protocol: Option<&str>) -> Result<Joined> {
    let mut parts = Vec::new();
    let mut wanted = protocol.map(str::to_string);
    for folder in folders {
        let part = Part::read(folder, wanted.as_deref())?;
        wanted.get_or_insert_with(|| part.name.clone());
        parts.push(part);
    }
    let (first, others) = parts.split_first().context("no folders")?;
    for other in others {
        if let Some(key) = difference(&first.protocol, &other.protocol, "") {
            bail!(
                "{} and {} were scored differently: `{key}` is not the same; score one of them \
                 again",
                first.folder.display(),
                other.folder.display()
            );
        }
    }
    let scores = union(&parts)?;
    let names: IndexSet<&str> = scores.rows.iter().map(|row| row.variant.as_str()).collect();
    let variants: Vec<&str> = names.into_iter().collect();
    if !others.is_empty() {
        check_same_images(&scores.rows, &variants)?;
    }
    Ok(Joined {
        checks: all_checks(&parts, &variants),
        averaging: Protocol::named(&first.name)?.averaging,
        photos: first.photo_counts(),
        protocol: first.protocol.clone(),
        scores,
    })
}

/// The checks of all parts, each once, in the order of the variants.
fn all_checks(parts: &[Part], variants: &[&str]) -> Vec<CheckRow> {
    let mut checks: Vec<CheckRow> = Vec::new();
    for row in parts.iter().flat_map(|part| &part.checks) {
        let is_same =
            |other: &CheckRow| (&other.variant, &other.measure) == (&row.variant, &row.measure);
        if !checks.iter().any(is_same) {
            checks.push(row.clone());
        }
    }
    checks.sort_by_key(|row| match row.variant.as_str() {
        PHOTOS => 0,
        name => 1 + variants.iter().position(|v| *v == name).unwrap_or(0),
    });
    checks
}

/// The scores of one folder under one protocol.
struct Part {
    folder: PathBuf,
    /// The name of the protocol.
    name: String,
    protocol: Value,
    scores: ScoreTable,
    checks: Vec<CheckRow>,
}

impl Part {
    /// Reads the files of the named protocol, or of the first protocol.
    fn read(folder: &Path, name: Option<&str>) -> Result<Self> {
        let suffixes = name.map_or(vec![String::new()], |name| {
            vec![String::new(), format!("-{name}")]
        });
        for suffix in suffixes {
            let file = folder.join(format!("protocol{suffix}.json"));
            if !file.exists() {
                continue;
            }
            let (found, protocol) = read_protocol(&file)?;
            if name.is_some_and(|name| name != found) {
                continue;
            }
            let scores_file = folder.join(format!("scores{suffix}.csv"));
            let mut scores = ScoreTable::read(&scores_file)?;
            ensure!(
                !scores.rows.is_empty(),
                "{}: no rows",
                scores_file.display()
            );
            for row in &mut scores.rows {
                let image = folder.join(&row.image);
                row.image = image.to_string_lossy().replace('\\', "/");
            }
            return Ok(Self {
                folder: folder.to_path_buf(),
                name: found,
                protocol,
                scores,
                checks: read_rows(&folder.join(format!("checks{suffix}.csv")))?,
            });
        }
        bail!(
            "{}: holds no scores{}; name a folder that an experiment with this protocol wrote, as \
             results/reference/ablation",
            folder.display(),
            name.map_or(String::new(), |name| format!(" under protocol `{name}`"))
        )
    }

    /// How many photos each concept has.
    fn photo_counts(&self) -> BTreeMap<String, usize> {
        let concepts = self.protocol["photos"].as_object().into_iter().flatten();
        let count = |files: &Value| files.as_object().map_or(1, serde_json::Map::len);
        concepts
            .map(|(concept, files)| (concept.clone(), count(files)))
            .collect()
    }
}

/// The first key whose value differs, with dots between levels.
fn difference(ours: &Value, theirs: &Value, at: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: IndexSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let (a, b) = (a.get(key), b.get(key));
                let at = format!("{at}{}{key}", if at.is_empty() { "" } else { "." });
                difference(a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null), &at)
            })
        }
        _ => (ours != theirs).then(|| at.to_string()),
    }
}

/// The rows of all parts. A variant in two parts must have the same scores in both.
fn union(parts: &[Part]) -> Result<ScoreTable> {
    let metrics = Metric::ALL.iter().copied();
    let ran = |metric: &Metric| {
        parts
            .iter()
            .any(|part| part.scores.metrics.contains(metric))
    };
    let metrics = metrics.filter(ran).collect();
    let mut variants: IndexMap<&str, (&Path, Vec<&ScoreRow>)> = IndexMap::new();
    for part in parts {
        let mut ours: IndexMap<&str, Vec<&ScoreRow>> = IndexMap::new();
        for row in &part.scores.rows {
            ours.entry(&row.variant).or_default().push(row);
        }
        for (name, rows) in ours {
            let Some((folder, known)) = variants.get(name) else {
                variants.insert(name, (&part.folder, rows));
                continue;
            };
            let figures =
                |rows: &[&ScoreRow]| -> Vec<Scores> { rows.iter().map(|row| row.scores).collect() };
            ensure!(
                figures(known) == figures(&rows),
                "{} and {} both have a variant `{name}`, with other scores; give one of them \
                 another name in its experiment",
                folder.display(),
                part.folder.display()
            );
        }
    }
    let rows = variants.into_values().flat_map(|(_, rows)| rows);
    Ok(ScoreTable {
        metrics,
        rows: rows.cloned().collect(),
    })
}

/// Refuses variants with images of different concepts, prompts or seeds.
fn check_same_images(scores: &[ScoreRow], variants: &[&str]) -> Result<()> {
    type Place<'a> = (&'a str, &'a str, u64);
    let places = |variant: &str| {
        let mut counts: BTreeMap<Place<'_>, usize> = BTreeMap::new();
        for row in scores.iter().filter(|row| row.variant == variant) {
            let place = (row.concept.as_str(), row.prompt.as_str(), row.seed);
            *counts.entry(place).or_default() += 1;
        }
        counts
    };
    let Some((first, others)) = variants.split_first() else {
        return Ok(());
    };
    let expected = places(first);
    for variant in others {
        let found = places(variant);
        let different = expected.keys().chain(found.keys());
        let mut different = different.filter(|place| expected.get(*place) != found.get(*place));
        if let Some(place) = different.next() {
            let (concept, prompt, seed) = place;
            bail!(
                "`{first}` has {} images of `{prompt}` for {concept} with seed {seed}, `{variant}` \
                 {}; only variants with the same images can be compared",
                expected.get(place).unwrap_or(&0),
                found.get(place).unwrap_or(&0)
            );
        }
    }
    Ok(())
}
