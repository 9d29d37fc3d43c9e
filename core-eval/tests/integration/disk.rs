//! How much disk an experiment needs: what is said before, what is there afterwards, and what cannot fit.

use std::path::Path;

use serde_json::Value;

use crate::common::{Sandbox, checkout, core_eval};

/// `core-eval plan --json`, whether it succeeds or not, and what it says then.
fn plan(experiment: &Path, results: &Path, further: &[&str]) -> (Value, String) {
    let mut command = core_eval();
    command.args(["plan", "--json", "--results"]).arg(results);
    let output = command.arg(experiment).args(further).output().unwrap();
    let plan = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (plan, String::from_utf8(output.stderr).unwrap())
}

/// The bytes of a folder in blocks, as `du` counts them.
fn bytes(path: &Path) -> u64 {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let own = metadata.len().next_multiple_of(4096);
    if !metadata.is_dir() {
        return own;
    }
    let entries = std::fs::read_dir(path).unwrap();
    own + entries
        .map(|entry| bytes(&entry.unwrap().path()))
        .sum::<u64>()
}

fn total(of: &Value) -> u64 {
    of.as_object()
        .unwrap()
        .values()
        .map(|bytes| bytes.as_u64().unwrap())
        .sum()
}

#[test]
fn the_quick_ablation_takes_within_a_tenth_of_what_was_said() {
    for keep in ["everything", "images"] {
        let experiments = checkout().join("experiments");
        let folder = tempfile::tempdir_in(&experiments).unwrap();
        let text = std::fs::read_to_string(experiments.join("ablation.toml")).unwrap();
        let text = text.replace(
            "device = \"cpu\"",
            &format!("device = \"cpu\"\nkeep = {keep:?}"),
        );
        let text = ["../models", "concepts/", "recipes/", "prompts/"]
            .iter()
            .fold(text, |text, name| {
                text.replace(&format!("\"{name}"), &format!("\"../{name}"))
            });
        let experiment = folder.path().join("ablation.toml");
        std::fs::write(&experiment, text).unwrap();
        let results = tempfile::tempdir().unwrap();
        let (before, said) = plan(&experiment, results.path(), &["--quick"]);
        assert_eq!(said, "");
        let mut command = core_eval();
        command
            .arg(&experiment)
            .arg("--quick")
            .arg("--results")
            .arg(results.path());
        command.assert().success();
        let there = bytes(&results.path().join("ablation-quick"));
        let end = total(&before["disk"]["end"]);
        let off = end as f64 / there as f64 - 1.0;
        assert!(
            off.abs() < 0.1,
            "{keep}: {end} bytes were said, {there} are there: {off:+.3}"
        );
        assert!(total(&before["disk"]["peak"]) >= end, "{before}");
        let (after, _) = plan(&experiment, results.path(), &["--quick"]);
        assert_eq!(total(&after["disk"]["now"]), there - 4096, "{keep}");
        assert_eq!(after["runs_to_train"], 0);
    }
}

#[test]
fn what_cannot_fit_is_refused_by_every_command_before_anything_is_written() {
    let sandbox = Sandbox::new();
    sandbox.edit(
        "[sampling]",
        "[validation]\nevery = 1\nprompts = [\"a {}\"]\n\n[sampling]",
    );
    // Images of every step for longer than any disk has room for.
    let recipe = sandbox.read("recipe.toml");
    sandbox.write(
        "recipe.toml",
        &recipe.replace("steps = 12", "steps = 10000000000000"),
    );
    let mut messages = Vec::new();
    for arguments in [&["--dry-run"][..], &["--worker"], &["--shard", "0/2"], &[]] {
        let mut command = sandbox.command("results");
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        messages.push(String::from_utf8(output.stderr).unwrap());
        if arguments == ["--dry-run"] {
            let printed = String::from_utf8(output.stdout).unwrap();
            for part in ["disk at the end: about", "images", "features", "free: "] {
                assert!(printed.contains(part), "{part}: {printed}");
            }
        }
    }
    let (plan, said) = plan(
        &sandbox.path("experiment.toml"),
        &sandbox.path("results"),
        &[],
    );
    assert!(plan["disk"]["free"].as_u64().unwrap() < plan["disk_bytes"].as_u64().unwrap());
    messages.push(said);
    for message in messages {
        for part in ["results/small", "bytes are needed", "are free", "--results"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    assert!(!sandbox.path("results").exists());
}

#[test]
fn a_plan_counts_the_steps_that_sharing_saves() {
    let sandbox = Sandbox::new();
    let recipe = sandbox.read("recipe.toml");
    let (first, _) = recipe
        .split_once("[[stages]]\nname = \"identity\"")
        .unwrap();
    sandbox.write("first.toml", first);
    sandbox.edit(
        "[sampling]",
        "[[variants]]\nname = \"first\"\nrecipe = \"first.toml\"\n\n[sampling]",
    );
    let (plan, _) = plan(
        &sandbox.path("experiment.toml"),
        &sandbox.path("results"),
        &[],
    );
    // Of two concepts: three recipes of 18 steps and one of 12, which is the beginning of one of them.
    assert_eq!(plan["steps_without_sharing"], 2 * (3 * 18 + 12));
    assert_eq!(plan["steps_to_train"], 2 * 3 * 18);
    let mut dry_run = sandbox.command("results");
    let output = dry_run.arg("--dry-run").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("108 optimiser steps to take; 132 if stages"),
        "{printed}"
    );
}
