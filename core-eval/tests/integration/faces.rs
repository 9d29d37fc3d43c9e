//! Photos to compare with that are not the photos to learn from, and the identity of people. That of aligned faces is in
//! `aligned_faces`.

use std::path::Path;

use core_eval::experiment::Experiment;
use core_eval::plan::plan;
use serde_json::Value;

use crate::common::{Sandbox, core_eval};

/// Names the photos that images of a concept are compared with.
pub(crate) fn add_references(sandbox: &Sandbox, concept: &str, references: &str) {
    let file = format!("{concept}/concept.toml");
    let text = sandbox.read(&file);
    sandbox.write(&file, &format!("{text}references = \"{references}\"\n"));
}

fn addresses(file: &Path) -> Vec<String> {
    let (experiment, model) = Experiment::load(file).unwrap().located().unwrap();
    let cells = plan(&experiment, &model).unwrap().into_iter();
    cells.filter_map(|cell| Some(cell.run?.address)).collect()
}

pub(crate) fn json(text: &str) -> Value {
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
    assert!(!printed.contains("optimiser steps"), "{printed}");
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

/// The finished small experiment, scored again with the DINO as identity encoder and with other photos to
/// compare the dog with.
fn with_identity() -> Sandbox {
    let sandbox = Sandbox::finished();
    add_references(&sandbox, "spotted-dog", "../striped-cup");
    sandbox.edit("dino = \"dino\"", "dino = \"dino\"\nidentity = \"dino\"");
    sandbox
}

/// The value of a measure in `checks.csv`.
pub(crate) fn measured(checks: &str, variant: &str, measure: &str) -> f64 {
    let start = format!("{variant},{measure},");
    let row = checks.lines().find_map(|row| row.strip_prefix(&start));
    let value = row.unwrap_or_else(|| panic!("{start}: {checks}"));
    value.split(',').next().unwrap().parse().unwrap()
}

/// The scores of a table by row and column; none where a cell is empty.
pub(crate) fn columns(table: &str, names: [&str; 2]) -> Vec<[Option<f64>; 2]> {
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let header = reader.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|of| of == name).unwrap();
    let places = names.map(place);
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| places.map(|at| row[at].parse().ok()))
        .collect()
}

#[test]
fn identity_is_a_column_like_any_other_and_images_without_a_face_are_counted() {
    let before = Sandbox::finished().read("results/small/checks.csv");
    let sandbox = with_identity();
    let printed = sandbox.run("results");
    assert!(!printed.contains("optimiser steps"), "{printed}");
    let scores = columns(
        &sandbox.read("results/small/scores.csv"),
        ["identity", "dino"],
    );
    let without = scores.iter().filter(|[identity, _]| identity.is_none());
    let without = without.count() as f64;
    for [identity, dino] in &scores {
        // The same network reads the same whole images.
        assert!(identity.is_none() || identity == dino);
    }
    let checks = sandbox.read("results/small/checks.csv");
    let variants = [
        "CoRe",
        "no rescaling",
        "no terms",
        "CoRe again",
        "class word",
    ];
    let counted = variants.map(|variant| measured(&checks, variant, "no_face"));
    assert_eq!(counted.iter().sum::<f64>(), without);
    let zeros: f64 = variants
        .map(|variant| measured(&checks, variant, "identity_zeros"))
        .iter()
        .sum();
    let all: f64 = scores.iter().filter_map(|[identity, _]| *identity).sum();
    let mean = all / scores.len() as f64;
    assert!((zeros / 5.0 - mean).abs() < 1e-9, "{zeros} {mean}");
    for file in ["summary.csv", "table.md", "report.html"] {
        let text = sandbox.read(&format!("results/small/{file}"));
        assert!(text.contains("identity"), "{file}");
    }
    let table = sandbox.read("results/small/table.md");
    for part in [
        "images without a face",
        "photos learned from",
        "identity, those as 0",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    // Photos of the dog against those of the cup, whether as another concept or as its own references.
    let learned = measured(&checks, "photos", "dino_learned");
    let other = measured(&before, "photos", "dino_other");
    assert!((learned - other).abs() < 1e-9, "{learned} {other}");
    let decoded = measured(&checks, "photos", "dino_decoded");
    assert!((-1.0..=1.0).contains(&decoded), "{decoded}");
    let protocol = json(&sandbox.read("results/small/protocol.json"));
    assert!(protocol["faces"].as_str().unwrap().contains("no alignment"));
    assert!(protocol["identity"]["sha256"].is_object() && protocol["clipseg"].is_object());
    let again = sandbox.run("results");
    assert!(again.contains("none, everything was there"), "{again}");
}

#[test]
fn identity_without_masks_is_refused_before_anything_is_trained() {
    let sandbox = Sandbox::new();
    sandbox.edit("dino = \"dino\"", "dino = \"dino\"\nidentity = \"dino\"");
    let message = Sandbox::failure(sandbox.command("results"));
    for part in ["`identity` needs masks", "`clipseg` below [evaluation]"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!sandbox.path("results").exists());
}

#[test]
fn a_photo_without_a_face_is_refused_and_one_of_two_people_is_told() {
    let two = |x: u32| !(20..44).contains(&x);
    for (white, part) in [
        (&(|_: u32| false) as &dyn Fn(u32) -> bool, "no foreground"),
        (&two, "more than one person"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.compare_foregrounds();
        sandbox.edit(
            "[\"dreambooth\", \"core\"]",
            "\"dreambooth\"\nidentity = \"dino\"",
        );
        sandbox.edit("concepts = [\"spotted-dog\", ", "concepts = [");
        let mask =
            image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if white(x) { 255 } else { 0 }]));
        sandbox.mask_photos("striped-cup", &mask);
        let mut command = sandbox.command("results");
        // What is trained does not matter here.
        let output = command.args(["--variant", "class word"]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(part) && message.contains("0.png"),
            "{message}"
        );
        assert_eq!(
            output.status.success(),
            part != "no foreground",
            "{message}"
        );
    }
}

#[test]
fn images_of_any_origin_without_a_face_have_no_identity_and_count_as_zero_beside_it() {
    let sandbox = Sandbox::new();
    let masks = sandbox.path("generated-masks");
    std::fs::create_dir(&masks).unwrap();
    for image in 0..5 {
        let level = if image == 2 { 0 } else { 255 };
        let mask = image::GrayImage::from_pixel(64, 64, image::Luma([level]));
        mask.save(masks.join(format!("{image}.png"))).unwrap();
    }
    sandbox.mask_photos(
        "spotted-dog",
        &image::GrayImage::from_pixel(64, 64, image::Luma([255])),
    );
    let mut command = core_eval();
    command.args(["score", "--prompt", "a photo of a cup", "--json"]);
    for (flag, name) in [
        ("--clip", "clip"),
        ("--dino", "dino"),
        ("--identity", "dino"),
        ("--generated", "striped-cup"),
        ("--references", "spotted-dog"),
        ("--generated-masks", "generated-masks"),
        ("--out", "out.csv"),
        ("--results", "scored"),
    ] {
        command.arg(flag).arg(sandbox.path(name));
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows = columns(&sandbox.read("out.csv"), ["identity", "dino"]);
    for (image, [identity, dino]) in rows.iter().enumerate() {
        assert_eq!(*identity, dino.filter(|_| image != 2));
    }
    let checks = sandbox.read("scored/checks.csv");
    assert_eq!(measured(&checks, "striped-cup", "no_face"), 1.0);
    let four: f64 = rows.iter().filter_map(|[identity, _]| *identity).sum();
    let zeros = measured(&checks, "striped-cup", "identity_zeros");
    assert!((zeros - four / 5.0).abs() < 1e-12);
    let printed = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(printed["images"][2]["no_face"], true);
    assert_eq!(printed["images"][3]["no_face"], false);
}
