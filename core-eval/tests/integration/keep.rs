//! `keep = "images"`: weights are removed when nothing needs them any more, and nothing else changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use core_model::files::sha256;
use serde_json::Value;

use crate::common::{Sandbox, TABLES, core_eval, finished};

/// The small experiment under two protocols, of whose runs only images are kept.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::finished();
    sandbox.edit("name = \"small\"", "name = \"small\"\nkeep = \"images\"");
    sandbox
}

/// The run folders by address.
fn runs(sandbox: &Sandbox, results: &str) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(sandbox.path(&format!("{results}/small/runs"))).unwrap();
    let runs = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir());
    runs.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .collect()
}

fn removed(run: &Path) -> Value {
    let note = std::fs::read(run.join("removed.json")).unwrap();
    serde_json::from_slice(&note).unwrap()
}

fn assert_same_tables(sandbox: &Sandbox, one: &str, other: &str) {
    for file in TABLES {
        let [one, other] =
            [one, other].map(|results| sandbox.read(&format!("{results}/small/{file}")));
        assert_eq!(one, other, "{file}");
    }
}

/// No weights, no states, and nothing of what was worked on.
fn assert_only_images_are_kept(sandbox: &Sandbox, results: &str) {
    for (address, run) in runs(sandbox, results) {
        assert!(!address.contains("partial"), "{address}");
        for name in ["unet", "text_encoder", "lora.safetensors", "oft", "state"] {
            assert!(!run.join(name).exists(), "{address}: {name}");
        }
        for name in [
            "config.toml",
            "metrics.csv",
            "environment.json",
            "learned_embeds.safetensors",
        ] {
            assert!(run.join(name).is_file(), "{address}: {name}");
        }
        let hidden = std::fs::read_dir(&run).unwrap();
        let mut names = hidden.map(|entry| entry.unwrap().file_name());
        assert!(names.all(|name| !name.to_string_lossy().starts_with('.')));
    }
    assert!(!sandbox.path(&format!("{results}/small/claims")).exists());
}

/// What a command prints and says, which must succeed.
fn success(command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    errors + &String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_images_and_digests_stay_and_all_tables_are_the_same() {
    let sandbox = sandbox();
    let printed = success(&mut sandbox.command("images"));
    assert!(printed.contains("6 runs trained"), "{printed}");
    assert_same_tables(&sandbox, "results", "images");
    assert_only_images_are_kept(&sandbox, "images");
    let whole = runs(&sandbox, "results");
    for (address, run) in runs(&sandbox, "images") {
        let note = removed(&run);
        let files = note["files"].as_object().unwrap();
        assert_eq!(files.len(), 2, "{note}");
        for (name, digest) in files {
            assert_eq!(
                digest,
                &sha256(&whole[&address].join(name)).unwrap(),
                "{name}"
            );
        }
        assert!(
            note["reason"]
                .as_str()
                .unwrap()
                .contains("keep = \"images\"")
        );
    }
    let again = success(&mut sandbox.command("images"));
    assert!(again.contains("none, everything was there"), "{again}");
    let mut plan = core_eval();
    let plan = plan
        .args(["plan", "--json", "--results"])
        .arg(sandbox.path("images"));
    let plan = plan.arg(sandbox.path("experiment.toml")).output().unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(
        [&plan["runs_to_train"], &plan["images_to_generate"]],
        [0, 0]
    );
    assert_eq!(plan["disk"]["end"]["weights"], 0);
}

#[test]
fn a_folder_in_which_everything_was_kept_loses_weights_and_nothing_else() {
    let sandbox = sandbox();
    let before = std::fs::read(sandbox.path("results/small/scores.csv")).unwrap();
    let printed = success(&mut sandbox.command("results"));
    assert!(printed.contains("none, everything was there"), "{printed}");
    assert_only_images_are_kept(&sandbox, "results");
    assert_eq!(
        before,
        std::fs::read(sandbox.path("results/small/scores.csv")).unwrap()
    );
}

#[test]
fn more_images_train_the_runs_again_and_say_why() {
    let sandbox = sandbox();
    success(&mut sandbox.command("images"));
    let prompts = sandbox.read("prompts.csv");
    sandbox.write(
        "prompts.csv",
        &format!("{prompts}animate,plain,a blue {{}}\n"),
    );
    let mut dry_run = sandbox.command("images");
    let planned = success(dry_run.arg("--dry-run"));
    assert!(
        planned.contains("to train again, since its weights were removed"),
        "{planned}"
    );
    assert_eq!(planned.matches("3 runs to train").count(), 1, "{planned}");
    let printed = success(&mut sandbox.command("images"));
    assert_eq!(
        printed.matches("it is trained again").count(),
        3,
        "{printed}"
    );
    assert!(printed.contains("3 runs trained"), "{printed}");
    assert_only_images_are_kept(&sandbox, "images");
    // The same as an experiment that has kept everything.
    sandbox.edit("keep = \"images\"", "keep = \"everything\"");
    let printed = success(&mut sandbox.command("results"));
    assert!(!printed.contains("runs trained"), "{printed}");
    assert_same_tables(&sandbox, "results", "images");
}

#[test]
fn an_image_that_was_lost_is_drawn_again_with_the_same_bytes() {
    let sandbox = sandbox();
    success(&mut sandbox.command("results"));
    let image = sandbox.path("results/small/images/CoRe/spotted-dog/0/1/00000.png");
    let before = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let printed = success(&mut sandbox.command("results"));
    assert!(printed.contains("1 runs trained"), "{printed}");
    assert_eq!(before, std::fs::read(&image).unwrap());
    assert_only_images_are_kept(&sandbox, "results");
}

#[test]
fn a_run_without_its_weights_says_where_they_are() {
    let sandbox = sandbox();
    success(&mut sandbox.command("results"));
    let (_, run) = runs(&sandbox, "results").pop_first().unwrap();
    let refused = core_train::Run::open(&run).and_then(|run| {
        let base = run.base_model("cpu")?;
        run.pipeline(&base)
    });
    let message = refused.unwrap_err().to_string();
    for part in [
        "unet",
        "was removed",
        "keep = \"images\"",
        "core-train train",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn shared_stages_text_encoders_and_low_rank_changes_are_removed_too() {
    let sandbox = sandbox();
    let recipe = sandbox.read("recipe.toml");
    let (first, second) = recipe
        .split_once("[[stages]]\nname = \"identity\"")
        .unwrap();
    sandbox.write("first.toml", first);
    let with = |sets: &str| {
        let second = second.replace("train = [\"unet\"]", &format!("train = [{sets}]"));
        format!("{first}[[stages]]\nname = \"identity\"{second}")
    };
    sandbox.write(
        "text.toml",
        &with("\"text_encoder\", \"cross_attention_kv\""),
    );
    sandbox.write(
        "lora.toml",
        &with("{ kind = \"lora\", rank = 2, text_encoder = true }"),
    );
    let more = ["first", "text", "lora"]
        .map(|name| format!("[[variants]]\nname = \"{name}\"\nrecipe = \"{name}.toml\"\n\n"));
    sandbox.edit("[sampling]", &format!("{}[sampling]", more.concat()));
    let printed = success(&mut sandbox.command("images"));
    assert_only_images_are_kept(&sandbox, "images");
    // 12 steps of two concepts are trained once for four variants.
    assert!(printed.contains("132 optimiser steps"), "{printed}");
    // What prompts need is known, so that nothing is trained again for tokens.csv.
    let again = success(&mut sandbox.command("images"));
    assert!(again.contains("none, everything was there"), "{again}");
    sandbox.edit("keep = \"images\"", "keep = \"everything\"");
    success(&mut sandbox.command("results"));
    assert_same_tables(&sandbox, "results", "images");
    let states = runs(&sandbox, "results").into_values();
    assert_eq!(states.filter(|run| run.join("state").exists()).count(), 2);
}

fn worker(sandbox: &Sandbox, results: &str, arguments: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("core-eval"))
        .arg(sandbox.path("experiment.toml"))
        .arg("--results")
        .arg(sandbox.path(results))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn three_workers_of_which_one_is_killed_again_and_again_lose_nothing() {
    let sandbox = sandbox();
    let start = || worker(&sandbox, "shared", &["--worker"]);
    let others = [start(), start()];
    for milliseconds in [200, 350, 500, 650, 800, 950] {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for child in others {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        assert!(!errors.contains("trained again"), "{errors}");
    }
    let printed = success(&mut sandbox.command("shared"));
    assert!(!printed.contains("runs trained"), "{printed}");
    assert!(!printed.contains("images generated"), "{printed}");
    assert_same_tables(&sandbox, "results", "shared");
    assert_only_images_are_kept(&sandbox, "shared");
}

#[test]
fn files_that_a_killed_process_had_half_written_are_removed() {
    let sandbox = sandbox();
    success(&mut sandbox.command("results"));
    let leave = |folder: &Path| std::fs::write(folder.join(".scratch-a1B2c3"), "half").unwrap();
    for run in runs(&sandbox, "results").values() {
        leave(run);
    }
    success(&mut sandbox.command("results"));
    assert_only_images_are_kept(&sandbox, "results");
    let images = sandbox.path("results/small/images/CoRe");
    let drawn = std::fs::read_dir(images).unwrap().next().unwrap().unwrap();
    let cell = drawn.path().join("0");
    let prompt = cell.join("0");
    std::fs::remove_file(prompt.join("00000.png")).unwrap();
    leave(&cell);
    leave(&prompt);
    success(&mut sandbox.command("results"));
    for folder in [&cell, &prompt] {
        assert!(!folder.join(".scratch-a1B2c3").exists(), "{folder:?}");
    }
}

#[test]
fn a_worker_that_knows_a_part_of_the_experiment_removes_nothing_that_others_need() {
    let sandbox = sandbox();
    let whole = worker(&sandbox, "shared", &["--worker"]);
    let part = ["--worker", "--variant", "CoRe"];
    for _ in 0..3 {
        let output = worker(&sandbox, "shared", &part)
            .wait_with_output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
    }
    assert!(whole.wait_with_output().unwrap().status.success());
    success(&mut sandbox.command("shared"));
    assert_same_tables(&sandbox, "results", "shared");
    assert_only_images_are_kept(&sandbox, "shared");
}

#[test]
fn another_value_is_refused_with_those_that_there_are() {
    let sandbox = sandbox();
    sandbox.edit("keep = \"images\"", "keep = \"nothing\"");
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("`nothing`") && message.contains("`everything` or `images`"),
        "{message}"
    );
    // The finished experiment of the other tests is as it was.
    assert!(finished().sandbox.path("results/small/runs").exists());
}
