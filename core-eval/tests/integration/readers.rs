//! Everything that reads a TOML or CSV file, given its bytes. Property tests (`untrusted.rs`) and the fuzz
//! targets (`fuzz/`) call the same functions.

#![allow(unreachable_pub, reason = "the fuzz targets are another crate")]

use std::fs;
use std::path::{Path, PathBuf};

use core_eval::checks::CheckRow;
use core_eval::curves::{self, CurveRow};
use core_eval::experiment::{EvaluationPrompt, Experiment};
use core_eval::merge::merge;
use core_eval::report::{ScoreTable, SummaryRow, TokenRow, read_rows};
use core_eval::rows;
use core_train::RunConfig;
use core_train::config::{ConceptConfig, Recipe, parse};
use core_train::pretrain::PretrainConfig;
use serde::Deserialize;

use crate::scratch::{said, scratch};

/// The repository's experiments without photos.
fn experiments() -> PathBuf {
    scratch("experiments", |folder| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
        copy_texts(&source, folder);
    })
}

fn copy_texts(source: &Path, target: &Path) {
    for entry in fs::read_dir(source).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = target.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            fs::create_dir(&target).expect("a scratch folder");
            copy_texts(&path, &target);
        } else if path.extension().is_none_or(|ending| ending != "png") {
            fs::copy(&path, &target).expect("a scratch file");
        }
    }
}

/// A file among the experiments with these bytes.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = experiments().join(name);
    fs::write(&path, bytes).expect("a scratch file");
    path
}

/// A run file. What is read is written as a run's `config.toml`, and read again.
pub fn run_file(bytes: &[u8]) {
    let path = file("run.toml", bytes);
    let Some(config) = said(RunConfig::load(&path, &[])) else {
        return;
    };
    let folder = experiments();
    let written = config.to_toml(&folder).expect("a config can be written");
    let again = RunConfig::load(&file("again.toml", written.as_bytes()), &[]);
    let again = again.expect("a config that was written can be read");
    assert_eq!(again.to_toml(&folder).expect("it can be written"), written);
}

/// A run file to which the lines of a text are applied as `--set` arguments.
pub fn set_arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let sets: Vec<String> = text.lines().map(String::from).collect();
    said(RunConfig::load(
        &experiments().join("spotted-dog.toml"),
        &sets,
    ));
}

/// A recipe, a `concept.toml`, a file of `core-train pretrain`.
pub fn recipe(bytes: &[u8]) {
    let path = file("recipe.toml", bytes);
    said(parse::<Recipe>(&path));
    said(parse::<ConceptConfig>(&path));
    said(PretrainConfig::load(&path));
}

/// An experiment, with all that is done before a model is read.
pub fn experiment(bytes: &[u8]) {
    let Some(experiment) = said(Experiment::load(&file("experiment.toml", bytes))) else {
        return;
    };
    experiment.concept_names();
    experiment.missing();
    for concept in &experiment.concepts {
        experiment.prompts_for(concept);
    }
    let baseline = experiment.variants[0].name.clone();
    said(experiment.only(&[baseline]));
}

/// A row of the file that `core-eval score --prompts` reads.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only reading it matters")]
struct ImagePrompt {
    image: String,
    prompt: String,
}

/// A file of prompts: for evaluation, or one per image.
pub fn prompts(bytes: &[u8]) {
    let path = file("prompts.csv", bytes);
    said(rows::read_rows::<EvaluationPrompt>(
        &path,
        "group,kind,prompt",
    ));
    said(rows::read_rows::<ImagePrompt>(&path, "image,prompt"));
}

/// A table of results. Scores that are read are written, and read again.
pub fn results(bytes: &[u8]) {
    let path = file("results.csv", bytes);
    if let Some(table) = said(ScoreTable::read(&path)) {
        let write = |table: &ScoreTable| {
            let path = experiments().join("again.csv");
            table.write(&path).expect("scores can be written");
            fs::read(path).expect("scores that were written")
        };
        let written = write(&table);
        let again = ScoreTable::read(&experiments().join("again.csv"));
        let again = again.expect("scores that were written can be read");
        assert_eq!(write(&again), written);
    }
    said(read_rows::<TokenRow>(&path));
    said(read_rows::<CurveRow>(&path));
    said(read_rows::<CheckRow>(&path));
    said(read_rows::<SummaryRow>(&path));
    said(curves::read(&path, "CoRe", "dog", 0));
}

/// A `protocol.json` beside scores, as `core-eval merge` reads it. It is merged with a folder in which the
/// scores of the same variant are others, so that nothing is drawn.
pub fn protocol(bytes: &[u8]) {
    let [ours, theirs] = ["0.5", "0.25"].map(|score| {
        let folder = scratch(&format!("scored-{score}"), |folder| {
            let scores = format!(
                "variant,concept,seed,group,kind,prompt,image,dino\n\
                 CoRe,dog,0,animate,plain,a {{}},0.png,{score}\n"
            );
            fs::write(folder.join("scores.csv"), scores).expect("a scratch file");
        });
        fs::write(folder.join("protocol.json"), bytes).expect("a scratch file");
        folder
    });
    let merged = merge(&[ours.clone(), theirs], None, &ours.join("merged"));
    assert!(said(merged).is_none());
}
