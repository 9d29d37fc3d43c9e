//! Photos to compare with that are not the photos to learn from, and the identity of people.

use std::path::Path;

use core_eval::experiment::Experiment;
use core_eval::plan::plan;
use serde_json::Value;

use crate::common::{Sandbox, core_eval};

/// Names the photos that images of a concept are compared with.
fn add_references(sandbox: &Sandbox, concept: &str, references: &str) {
    let file = format!("{concept}/concept.toml");
    let text = sandbox.read(&file);
    sandbox.write(&file, &format!("{text}references = \"{references}\"\n"));
}

fn addresses(file: &Path) -> Vec<String> {
    let (experiment, model) = Experiment::load(file).unwrap().located().unwrap();
    let cells = plan(&experiment, &model).unwrap().into_iter();
    cells.filter_map(|cell| Some(cell.run?.address)).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The rows of a table of scores that are about a concept.
fn rows_of(table: &str, concept: &str) -> Vec<String> {
    let rows = table
        .lines()
        .filter(|row| row.contains(&format!(",{concept},")));
    rows.map(String::from).collect()
}

#[test]
fn references_are_compared_with_and_change_no_run() {
    let sandbox = Sandbox::finished();
    let file = sandbox.path("experiment.toml");
    let before = (addresses(&file), sandbox.read("results/small/scores.csv"));
    add_references(&sandbox, "spotted-dog", "../striped-cup");
    assert_eq!(addresses(&file), before.0);
    let printed = sandbox.run("results");
    assert!(printed.contains("0 optimiser steps"), "{printed}");
    let scores = sandbox.read("results/small/scores.csv");
    let (dog, cup) = ("spotted-dog", "striped-cup");
    assert_eq!(rows_of(&scores, cup), rows_of(&before.1, cup));
    let (now, then) = (rows_of(&scores, dog), rows_of(&before.1, dog));
    assert!(!now.is_empty() && now.len() == then.len());
    assert!(now.iter().zip(&then).all(|(now, then)| now != then));
    let protocol = json(&sandbox.read("results/small/protocol.json"));
    assert_eq!(protocol["photos"][dog], protocol["photos"][cup]);
}

#[test]
fn references_that_are_not_there_or_empty_are_named_before_anything_is_trained() {
    for (make, part) in [(false, "nowhere"), (true, "holds no images")] {
        let sandbox = Sandbox::new();
        add_references(&sandbox, "spotted-dog", "../nowhere");
        if make {
            std::fs::create_dir(sandbox.path("nowhere")).unwrap();
        }
        let message = Sandbox::failure(sandbox.command("results"));
        for part in ["spotted-dog", "`references` in its concept.toml", part] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!sandbox.path("results").exists());
    }
}

#[test]
fn images_of_any_origin_are_compared_with_the_references_of_their_concept() {
    let sandbox = Sandbox::new();
    let score = |references: &str| {
        let mut command = core_eval();
        command.args(["score", "--prompt", "a photo of a dog"]);
        for (flag, name) in [
            ("--clip", "clip"),
            ("--dino", "dino"),
            ("--generated", "spotted-dog"),
            ("--references", references),
            ("--out", "out.csv"),
        ] {
            command.arg(flag).arg(sandbox.path(name));
        }
        command.assert().success();
        let protocol = json(&sandbox.read("out.protocol.json"));
        (sandbox.read("out.csv"), protocol["photos"].clone())
    };
    let (dog, cup) = (score("spotted-dog"), score("striped-cup"));
    assert_ne!(dog, cup);
    add_references(&sandbox, "spotted-dog", "../striped-cup");
    assert_eq!(score("spotted-dog"), cup);
}
