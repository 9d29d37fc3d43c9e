//! What a page is made of, read from the files of one or several results folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, ensure};
use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value};

use super::durations::scoring;
use super::runs::RunFiles;
use crate::attention_file::{AttentionFile, PromptAttention};
use crate::checks::CheckRow;
use crate::curves::CurveRow;
use crate::effects::EffectRow;
use crate::image_rows::ImageRow;
use crate::merge::join;
use crate::protocol::Averaging;
use crate::report::{
    ScoreTable, SummaryRow, TokenRow, Weighting, protocol_suffixes, read_rows, summarize,
};
use crate::validation_scores::ValidationRow;

/// The table of a preference study, in a results folder.
const STUDY: &str = "study/study.csv";

/// What the page shows. Everything may be absent; the page then says so.
#[derive(Debug, Default)]
pub struct Source {
    /// The title.
    pub name: String,
    /// The command that makes the results again.
    pub command: String,
    /// The command that writes the page again from the tables.
    pub redraw: String,
    /// The scores, one entry for each protocol.
    pub protocols: Vec<ProtocolScores>,
    /// The photos of every concept.
    pub photos: BTreeMap<String, Vec<PathBuf>>,
    /// The class word of every concept.
    pub words: BTreeMap<String, String>,
    /// The cosines of context tokens.
    pub tokens: Vec<TokenRow>,
    /// Losses and norms.
    pub curves: Vec<CurveRow>,
    /// Scores of validation images.
    pub validation: Vec<ValidationRow>,
    /// Claims.
    pub effects: Vec<EffectRow>,
    /// The training runs.
    pub runs: Vec<RunFiles>,
    /// Seconds that scoring took, where the times of the files tell.
    pub scoring: Option<u64>,
    /// Images and attention maps of some prompts in every method.
    pub attention: Vec<PromptAttention>,
    /// Rows of `study/study.csv`.
    pub study: Vec<Map<String, Value>>,
    /// When the newest table was written.
    pub written: Option<SystemTime>,
    /// What could not be found, in whole sentences.
    pub missing: Vec<String>,
}

/// The scores of all images under one protocol.
#[derive(Debug)]
pub struct ProtocolScores {
    /// The content of `protocol.json`.
    pub protocol: Value,
    /// The scores; files are named with their folder.
    pub scores: ScoreTable,
    /// The checks beside them.
    pub checks: Vec<CheckRow>,
    /// What is known of single images.
    pub images: Vec<ImageRow>,
    /// Means and differences over all prompts.
    pub summary: Vec<SummaryRow>,
    averaging: Averaging,
    photos: BTreeMap<String, usize>,
}

impl ProtocolScores {
    /// Scores that need no folder of an experiment. Images of several variants are paired by concept, prompt,
    /// seed and order.
    pub fn new(
        protocol: Value,
        scores: ScoreTable,
        averaging: Averaging,
        photos: BTreeMap<String, usize>,
    ) -> Self {
        let mut scores = Self {
            protocol,
            scores,
            averaging,
            photos,
            checks: Vec::new(),
            images: Vec::new(),
            summary: Vec::new(),
        };
        scores.summary = summarize(&scores.scores, &scores.variants(), scores.weighting());
        scores
    }

    /// The variants in their order; the first is the baseline.
    pub fn variants(&self) -> Vec<String> {
        let names = self.scores.rows.iter().map(|row| &row.variant);
        let names: IndexSet<&String> = names.collect();
        names.into_iter().cloned().collect()
    }

    /// How the scores of concepts are combined.
    pub fn weighting(&self) -> Weighting<'_> {
        Weighting {
            averaging: self.averaging,
            photos: &self.photos,
        }
    }

    /// The name of the protocol.
    pub fn name(&self) -> &str {
        self.protocol["protocol"]["name"]
            .as_str()
            .unwrap_or("unknown")
    }
}

impl Source {
    /// Reads the folders. Several folders must hold scores under the same protocols.
    ///
    /// # Errors
    /// A folder that holds no table; a damaged table or one of another version; folders that cannot be
    /// joined, as [`merge`](crate::merge::merge) says.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let mut source = Self::default();
        let mut names = Vec::new();
        for folder in folders {
            ensure!(
                folder.is_dir(),
                "{}: no such folder; name one that an experiment wrote, as results/ablation",
                folder.display()
            );
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let name = whole.file_name().unwrap_or_default().to_string_lossy();
            names.push(name.into_owned());
        }
        source.name = names.join(" and ");
        source.redraw = format!("core-eval report results/{}", names.join(" results/"));
        source.command = match names.as_slice() {
            [name] => format!("core-eval experiments/{name}.toml"),
            _ => format!("{} --out results/joined", source.redraw),
        };
        source.protocols = protocols(folders, &mut source.missing)?;
        for folder in folders {
            source.add(folder)?;
        }
        source.look_for_gaps();
        ensure!(
            !source.protocols.is_empty() || !source.tokens.is_empty() || !source.curves.is_empty(),
            "{}: holds no table of an experiment; expected scores.csv, tokens.csv or curves.csv",
            folders
                .first()
                .map_or(Path::new(""), PathBuf::as_path)
                .display()
        );
        Ok(source)
    }

    /// Adds what is not scores.
    fn add(&mut self, folder: &Path) -> Result<()> {
        let tokens = read_rows(&folder.join("tokens.csv"))?;
        add_variants(&mut self.tokens, tokens, |row: &TokenRow| &row.variant);
        let curves = read_rows(&folder.join("curves.csv"))?;
        add_variants(&mut self.curves, curves, |row: &CurveRow| &row.variant);
        let validation = read_rows(&folder.join("validation.csv"))?;
        add_variants(&mut self.validation, validation, |row: &ValidationRow| {
            &row.variant
        });
        self.effects.extend(read_rows(&folder.join("effects.csv"))?);
        self.study.extend(read_rows(&folder.join(STUDY))?);
        self.attention.extend(AttentionFile::read(folder)?.prompts);
        let runs = RunFiles::read_all(folder);
        let images = runs.iter().filter_map(|run| run.newest_image).max();
        let scoring = scoring(folder, images);
        self.scoring = self.scoring.into_iter().chain(scoring).reduce(|a, b| a + b);
        for run in runs {
            self.words
                .entry(run.concept.clone())
                .or_insert_with(|| run.word.clone());
            let photos = run.photos();
            if !photos.is_empty() {
                self.photos.entry(run.concept.clone()).or_insert(photos);
            }
            self.runs.push(run);
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_table = entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "csv");
            let written = entry.metadata().and_then(|file| file.modified());
            if let (true, Ok(written)) = (is_table, written) {
                self.written = self.written.max(Some(written));
            }
        }
        Ok(())
    }

    /// Notes what is absent as a whole.
    fn look_for_gaps(&mut self) {
        let gaps = [
            (
                self.protocols.is_empty(),
                "No scores.csv: there are no images and no scores to show.",
            ),
            (
                self.tokens.is_empty(),
                "No tokens.csv: the cosines of context tokens are not shown.",
            ),
            (
                self.attention.is_empty() && !self.tokens.is_empty(),
                "No attention.json: where images attend to the tokens of a prompt is not shown; \
                 `core-eval figures FOLDER --prompt TEMPLATE` computes it from the runs.",
            ),
            (
                self.curves.is_empty(),
                "No curves.csv: losses and norms are not shown.",
            ),
            (
                self.runs.is_empty(),
                "No training runs beside the tables: configurations and environments are not shown.",
            ),
        ];
        let gaps = gaps.iter().filter(|(is_absent, _)| *is_absent);
        self.missing
            .extend(gaps.map(|(_, text)| (*text).to_string()));
    }
}

/// Adds the rows of variants that have none yet: a variant may be in two folders.
fn add_variants<T>(rows: &mut Vec<T>, new: Vec<T>, variant: fn(&T) -> &String) {
    let known: BTreeSet<String> = rows.iter().map(variant).cloned().collect();
    let new = new.into_iter().filter(|row| !known.contains(variant(row)));
    rows.extend(new);
}

/// The scores under every protocol that all folders have.
fn protocols(folders: &[PathBuf], missing: &mut Vec<String>) -> Result<Vec<ProtocolScores>> {
    let Some(first) = folders.first() else {
        return Ok(Vec::new());
    };
    let files = folders.iter();
    let files = files.map(|folder| Ok((folder, protocol_suffixes(folder)?)));
    let files: Vec<(&PathBuf, IndexMap<String, String>)> = files.collect::<Result<_>>()?;
    let mut found = Vec::new();
    for (name, suffix) in protocol_suffixes(first)? {
        if !first.join(format!("scores{suffix}.csv")).is_file() {
            missing.push(format!(
                "No scores{suffix}.csv beside protocol{suffix}.json: protocol {name} is left out."
            ));
            continue;
        }
        if let Some((folder, _)) = files.iter().find(|(_, of)| !of.contains_key(&name)) {
            let folder = folder.display();
            missing.push(format!(
                "{folder} has no scores under protocol {name}, so it is left out."
            ));
            continue;
        }
        let joined = join(folders, Some(&name))?;
        let mut images = Vec::new();
        for (folder, suffixes) in &files {
            images.extend(ImageRow::read(folder, &suffixes[&name])?);
        }
        let Weighting { averaging, photos } = joined.weighting();
        let photos = photos.clone();
        found.push(ProtocolScores {
            checks: joined.checks,
            images,
            ..ProtocolScores::new(joined.protocol, joined.scores, averaging, photos)
        });
    }
    if let (true, [folder]) = (found.is_empty(), folders) {
        found.extend(without_protocol(folder, missing)?);
    }
    Ok(found)
}

/// Scores without the file that says how they were computed.
fn without_protocol(folder: &Path, missing: &mut Vec<String>) -> Result<Option<ProtocolScores>> {
    let mut scores = ScoreTable::read(&folder.join("scores.csv"))?;
    if scores.rows.is_empty() {
        return Ok(None);
    }
    missing.push("No protocol.json: how the images were scored is not known.".into());
    for row in &mut scores.rows {
        row.image = folder.join(&row.image).to_string_lossy().replace('\\', "/");
    }
    let photos = BTreeMap::new();
    Ok(Some(ProtocolScores {
        checks: read_rows(&folder.join("checks.csv"))?,
        images: ImageRow::read(folder, "")?,
        ..ProtocolScores::new(Value::Null, scores, Averaging::Macro, photos)
    }))
}
