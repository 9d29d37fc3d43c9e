//! The shipped experiment files, and what happens to wrong ones.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use core_eval::experiment::Experiment;
use core_eval::protocol::Protocol;
use core_eval::reference::{compare, reference_of};
use core_eval::report::ScoreTable;
use core_eval::statistics::ENOUGH_CONCEPTS;
use core_model::photos::PhotoFolder;
use core_train::config::Group;

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments")
}

fn core_eval() -> Command {
    Command::cargo_bin("core-eval").unwrap()
}

/// The ablation with one edit, beside the files that it refers to.
fn edited(from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(experiments().join("ablation.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    let folder = tempfile::tempdir_in(experiments()).unwrap();
    let path = folder.path().join("edited.toml");
    let text = text
        .replace(from, to)
        .replace("\"../models", "\"../../models")
        .replace("\"concepts/", "\"../concepts/")
        .replace("\"recipes/", "\"../recipes/")
        .replace("\"prompts/", "\"../prompts/");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn failure(from: &str, to: &str) -> String {
    let (_folder, path) = edited(from, to);
    let output = core_eval().arg(&path).arg("--dry-run").output().unwrap();
    assert!(!output.status.success(), "{from} -> {to} was accepted");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    message
}

#[test]
fn every_shipped_experiment_parses() {
    for name in [
        "ablation.toml",
        "comparison.toml",
        "comparison-development.toml",
        "effects.toml",
        "faces.toml",
        "faces-five.toml",
        "second-stage.toml",
        "table3.toml",
        "test-time.toml",
        "weights.toml",
        "paper/table1.toml",
        "paper/table3.toml",
        "paper/test-time.toml",
        "paper/faces.toml",
        "paper/face2diffusion.toml",
    ] {
        let experiment = Experiment::load(&experiments().join(name)).unwrap();
        assert!(!experiment.variants.is_empty(), "{name}");
        assert!(experiment.quick().name.ends_with("-quick"));
    }
}

#[test]
fn people_are_compared_with_the_same_photos_that_neither_experiment_learns_from() {
    let load = |name: &str| Experiment::load(&experiments().join(name)).unwrap();
    let (two, five) = (load("faces.toml"), load("faces-five.toml"));
    let metrics = two.metrics();
    assert!(metrics.iter().any(|metric| metric.column() == "identity"));
    assert_eq!(metrics, five.metrics());
    let names = |experiment: &Experiment| -> Vec<String> {
        let variants = experiment.variants.iter();
        variants.map(|variant| variant.name.clone()).collect()
    };
    assert_eq!(names(&two), names(&five));
    assert_eq!([two.concepts.len(), five.concepts.len()], [4; 2]);
    for (two, five) in two.concepts.iter().zip(&five.concepts) {
        assert_eq!(five.name, format!("{}-five", two.name));
        let photos = |folder: &Path| -> Vec<Vec<u8>> {
            let files = PhotoFolder::read(folder).unwrap().files.into_iter();
            files.map(|file| std::fs::read(file).unwrap()).collect()
        };
        let compared = photos(two.reference_photos());
        assert_eq!(compared, photos(five.reference_photos()));
        let (two, five) = (photos(&two.images), photos(&five.images));
        assert_eq!([two.len(), five.len(), compared.len()], [2, 5, 6]);
        assert_eq!(two, five[..2]);
        assert!(five.iter().all(|photo| !compared.contains(photo)));
    }
}

#[test]
fn every_reference_has_the_images_of_its_experiment() {
    let references = std::fs::read_dir(experiments().join("../results/reference")).unwrap();
    let names = references.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.collect();
    assert!(names.contains(&"ablation".to_string()), "{names:?}");
    for name in &names {
        let experiment = Experiment::load(&experiments().join(format!("{name}.toml"))).unwrap();
        let results = experiments().join("../results").join(name);
        let reference = reference_of(&results).unwrap_or_else(|| panic!("no reference of {name}"));
        let mut expected = Vec::new();
        for variant in &experiment.variants {
            for concept in &experiment.concepts {
                for seed in &experiment.seeds {
                    for (prompt, _) in experiment.prompts_for(concept).iter().enumerate() {
                        for image in 0..experiment.sampling.images_per_prompt {
                            let (variant, concept) = (&variant.name, &concept.name);
                            expected.push(format!(
                                "images/{variant}/{concept}/{seed}/{prompt}/{image:05}.png"
                            ));
                        }
                    }
                }
            }
        }
        let scores = ScoreTable::read(&reference.join("scores.csv")).unwrap();
        let images: Vec<String> = scores.rows.into_iter().map(|row| row.image).collect();
        assert_eq!(images, expected, "{name}");
        let itself = compare(&reference, &reference).unwrap();
        assert!(itself.is_small() && itself.largest == 0.0, "{itself}");
        let protocols = experiment.evaluation.protocols().unwrap().len();
        assert_eq!(itself.rows, protocols * images.len(), "{name}");
    }
}

#[test]
fn the_readme_describes_every_protocol_and_no_other() {
    let text = std::fs::read_to_string(experiments().join("README.md")).unwrap();
    let (_, text) = text.split_once("\n## Protocols\n").unwrap();
    let (text, _) = text.split_once("\n## ").unwrap_or((text, ""));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let described: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let protocols: Vec<&str> = Protocol::names().collect();
    assert_eq!(described, protocols);
    let help = core_eval().args(["score", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for name in protocols {
        assert!(help.contains(name), "{name}: {help}");
    }
}

#[test]
fn the_ablation_is_as_large_as_it_claims_to_be() {
    let experiment = Experiment::load(&experiments().join("ablation.toml")).unwrap();
    let names: Vec<&str> = experiment
        .variants
        .iter()
        .map(|v| v.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "CoRe",
            "without context embedding",
            "without context attention",
            "without rescaling",
            "Textual Inversion",
            "Textual Inversion and second stage",
            "class word"
        ]
    );
    assert!(experiment.concepts.len() >= 3);
    assert!(experiment.sampling.images_per_prompt >= 2);
    for concept in &experiment.concepts {
        assert!(experiment.prompts_for(concept).len() >= 10);
    }
}

#[test]
fn table_3_has_24_unseen_concepts_of_both_groups_and_prompts_that_chose_nothing() {
    let load = |name: &str| Experiment::load(&experiments().join(name)).unwrap();
    let table3 = load("table3.toml");
    let of_group = |group: Group| {
        let concepts = table3.concepts.iter();
        concepts.filter(move |c| c.group == Some(group)).count()
    };
    assert_eq!(
        (of_group(Group::Animate), of_group(Group::Inanimate)),
        (12, 12)
    );
    let names: HashSet<String> = table3.concept_names().into_iter().collect();
    assert_eq!(names.len(), 24);
    assert!(
        table3.concepts.len() >= ENOUGH_CONCEPTS,
        "concepts are resampled"
    );
    for concept in &table3.concepts {
        assert_eq!(table3.prompts_for(concept).len(), 16);
    }
    // Neither the curve over the weights nor the choice of learning rates saw a concept or a prompt of it.
    for name in [
        "weights.toml",
        "development.toml",
        "comparison-development.toml",
    ] {
        let chosen = load(name);
        assert!(
            chosen
                .concept_names()
                .iter()
                .all(|concept| !names.contains(concept)),
            "{name}"
        );
        let prompts = |experiment: &Experiment| -> HashSet<(bool, String)> {
            let prompts = experiment.prompts.iter();
            let prompts = prompts.map(|p| (p.group == Group::Animate, p.prompt.clone()));
            prompts.collect()
        };
        assert!(prompts(&table3).is_disjoint(&prompts(&chosen)), "{name}");
    }
    let ablation = load("ablation.toml");
    for variant in &ablation.variants {
        let mut others = table3.variants.iter();
        let same = others.find(|other| other.name == variant.name).unwrap();
        assert_eq!(same.recipe, variant.recipe, "{}", variant.name);
    }
}

#[test]
fn a_variant_differs_from_the_recipe_by_exactly_what_it_says() {
    let experiment = Experiment::load(&experiments().join("ablation.toml")).unwrap();
    let stages = |index: usize| experiment.variants[index].recipe.clone().unwrap().stages;
    let full = stages(0);
    assert_eq!(full[0].regularizers.len(), 2);
    assert_eq!(stages(1)[0].regularizers.len(), 1);
    assert_ne!(stages(1)[0].regularizers, stages(2)[0].regularizers);
    assert!(full[0].rescale_window().is_some());
    assert!(stages(3)[0].rescale_window().is_none());
    assert_eq!(stages(3)[0].regularizers, full[0].regularizers);
    let untuned = experiment.variants.last().unwrap();
    assert!(untuned.recipe.is_none());
}

#[test]
fn a_dry_run_without_model_and_photos_lists_the_runs_and_succeeds() {
    let output = core_eval()
        .arg(experiments().join("paper/table3.toml"))
        .arg("--dry-run")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("without context attention / cat / seed 0"),
        "{text}"
    );
    assert!(text.contains("no estimate: model not present"), "{text}");
    assert!(text.contains("concept folder not present"), "{text}");
}

#[test]
fn a_real_run_without_model_is_one_message_and_writes_nothing() {
    let results = tempfile::tempdir().unwrap();
    let output = core_eval()
        .arg(experiments().join("paper/table3.toml"))
        .args(["--device", "cpu", "--results"])
        .arg(results.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("model not present"), "{message}");
    assert_eq!(std::fs::read_dir(results.path()).unwrap().count(), 0);
}

#[test]
fn an_unknown_key_is_named() {
    let message = failure("seeds = [0]", "seeds = [0]\nsteps = 3");
    assert!(
        message.contains("edited.toml") && message.contains("steps"),
        "{message}"
    );
}

#[test]
fn an_unknown_regularizer_to_remove_is_named() {
    let message = failure("\"context_embedding\"", "\"context_embeding\"");
    assert!(message.contains("context_embeding"), "{message}");
    assert!(message.contains("without context embedding"), "{message}");
}

#[test]
fn an_unknown_path_to_set_is_named() {
    let message = failure(
        "\"stages.0.rescale\" = false",
        "\"stages.0.rescaling\" = false",
    );
    assert!(message.contains("rescaling"), "{message}");
    let message = failure(
        "\"stages.0.rescale\" = false",
        "\"stages.7.rescale\" = false",
    );
    assert!(message.contains("stages.7.rescale"), "{message}");
}

#[test]
fn an_unknown_protocol_scheduler_or_variant_is_refused() {
    let message = failure("\"dpmpp-2m\"", "\"dpm\"");
    assert!(message.contains("dpmpp-2m"), "{message}");
    let (_folder, path) = edited("seeds = [0]", "seeds = [1]");
    let output = core_eval()
        .arg(&path)
        .args(["--dry-run", "--variant", "Core"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("without rescaling"), "{message}");
}

#[test]
fn a_truncation_needs_a_variant_with_a_mapper_of_that_many_units() {
    let said = failure("steps = 20", "steps = 20\ntruncation = 64");
    for part in ["sampling.truncation", "64", "`neti`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mapper = "name = \"Textual Inversion\"\nset = { \"stages.0.train\" = [\"neti\"] }";
    let kept = |units: usize| {
        let (folder, path) = edited("name = \"Textual Inversion\"", mapper);
        let text = std::fs::read_to_string(&path).unwrap();
        let more = format!("steps = 20\ntruncation = {units}");
        std::fs::write(&path, text.replace("steps = 20", &more)).unwrap();
        let output = core_eval().arg(&path).arg("--dry-run").output().unwrap();
        drop(folder);
        String::from_utf8(output.stderr).unwrap()
    };
    let said = kept(129);
    assert!(
        said.contains("129") && said.contains("128 hidden units"),
        "{said}"
    );
    assert!(!kept(128).contains("truncation"));
}

#[test]
fn a_negative_margin_of_a_claim_is_refused() {
    let said = failure(
        "name = \"class word\"\nuntuned = true",
        "name = \"class word\"\nuntuned = true\n[[effects]]\nkind = \"score_difference\"\n\
         name = \"kept\"\nmetric = \"dino\"\nvariant = \"CoRe\"\nbaseline = \"class word\"\n\
         margin = -0.1\n[[variants]]\nname = \"another\"",
    );
    for part in ["`kept`", "`margin` is -0.1", "0 or more"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_claim_about_embeddings_of_a_variant_with_a_mapper_is_refused() {
    let said = failure(
        "name = \"Textual Inversion\"",
        "name = \"Textual Inversion\"\nset = { \"stages.0.train\" = [\"neti\"] }\n[[effects]]\n\
         kind = \"context_drift\"\nname = \"drift\"\nvariant = \"Textual Inversion\"\n[[variants]]\n\
         name = \"another\"",
    );
    for part in ["`drift`", "`Textual Inversion`", "`neti`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_device_that_is_absent_is_refused_before_any_work() {
    let results = tempfile::tempdir().unwrap();
    let output = core_eval()
        .arg(experiments().join("ablation.toml"))
        .args(["--device", "cuda", "--results"])
        .arg(results.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("cuda"), "{message}");
    assert_eq!(std::fs::read_dir(results.path()).unwrap().count(), 0);
}

#[test]
fn the_doctor_refuses_a_word_that_is_no_instruction_set_and_shows_one_that_is() {
    let doctor = |set: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("core-eval"));
        command.arg("doctor").env("CORE_MAX_CPU_ISA", set);
        command.output().unwrap()
    };
    let refused = doctor("sse9");
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("CORE_MAX_CPU_ISA is `sse9`"), "{message}");
    let shown = String::from_utf8(doctor("baseline").stdout).unwrap();
    assert!(shown.contains("baseline of the architecture"), "{shown}");
}

#[test]
fn nothing_to_do_takes_no_time_at_all() {
    let nothing: f64 = std::iter::empty::<f64>().sum();
    assert_eq!(core_train::cost::duration(nothing), "0 s");
}

#[test]
fn the_doctor_finds_the_shipped_checkpoints_and_tells_absent_ones() {
    let models = experiments().join("../models");
    let output = core_eval()
        .args(["doctor", "--models"])
        .arg(models)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in ["device cpu: present", "generator", "CLIP, ", "DINO, "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let empty = tempfile::tempdir().unwrap();
    let output = core_eval()
        .args(["doctor", "--models"])
        .arg(empty.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("mini, mini-clip, mini-dino, mini-clipseg"),
        "{message}"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    use std::process::{Command, Stdio};
    let mut doctor = Command::new(assert_cmd::cargo::cargo_bin("core-eval"))
        .arg("doctor")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(doctor.stdout.take());
    let output = doctor.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}
