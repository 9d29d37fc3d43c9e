//! Results of several machines and programs in one folder.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{Sandbox, core_eval};

/// Changes the environment that the first run of a finished experiment was made with.
fn edit_environment(sandbox: &Sandbox, edit: impl Fn(&mut Value)) {
    let runs = std::fs::read_dir(sandbox.path("results/small/runs")).unwrap();
    let mut runs: Vec<_> = runs.map(|entry| entry.unwrap().path()).collect();
    runs.retain(|path| path.is_dir());
    runs.sort();
    let path = runs[0].join("environment.json");
    let mut environment = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut environment);
    std::fs::write(path, environment.to_string()).unwrap();
}

/// What the plain command says on standard error, and the warnings in the head of its page.
fn said(sandbox: &Sandbox) -> (String, Vec<String>) {
    let output = sandbox.command("results").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let page: Value = serde_json::from_str(&sandbox.read("results/small/summary.json")).unwrap();
    let warnings = page["warnings"].as_array().unwrap().iter();
    let warnings = warnings.map(|warning| warning.as_str().unwrap().to_string());
    (errors, warnings.collect())
}

#[test]
fn a_mixture_of_instruction_sets_is_said_by_the_command_and_in_the_head_of_the_report() {
    let sandbox = Sandbox::finished();
    let (errors, warnings) = said(&sandbox);
    assert!(!errors.contains("Mixed machines"), "{errors}");
    assert!(
        !warnings.iter().any(|warning| warning.contains("machines")),
        "{warnings:?}"
    );
    edit_environment(&sandbox, |environment| {
        environment["instruction_set"] = "AVX of another kind".into();
    });
    let (errors, warnings) = said(&sandbox);
    for text in [&errors, &warnings[0]] {
        for part in ["Mixed machines", "instruction sets", "AVX of another kind"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // The command that writes the page again says the same there.
    let mut report = core_eval();
    report
        .arg("report")
        .arg(sandbox.path("results/small"))
        .assert()
        .success();
    assert!(
        sandbox
            .read("results/small/report.html")
            .contains("AVX of another kind")
    );
}

#[test]
fn several_devices_are_a_mixture_too() {
    let sandbox = Sandbox::finished();
    edit_environment(&sandbox, |environment| {
        environment["device"] = "cuda:1".into()
    });
    let (errors, warnings) = said(&sandbox);
    for text in [&errors, &warnings[0]] {
        assert!(text.contains("devices cpu and cuda"), "{text}");
    }
}

#[test]
fn programs_of_one_version_and_two_revisions_work_together_with_a_warning() {
    let sandbox = Sandbox::finished();
    let version = sandbox.command("results").arg("--worker").output().unwrap();
    assert!(version.status.success());
    // The entry of a process elsewhere, as this program would write it, from another revision.
    let mut first = Command::new(assert_cmd::cargo::cargo_bin("core-eval"))
        .arg(sandbox.path("experiment.toml"))
        .arg("--results")
        .arg(sandbox.path("other"))
        .arg("--worker")
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let claims = sandbox.path("other/small/claims");
    let entry = loop {
        let entries = std::fs::read_dir(&claims).into_iter().flatten().flatten();
        let mut paths = entries.map(|entry| entry.path());
        let is_entry = |path: &std::path::PathBuf| path.to_string_lossy().contains("process-");
        let content = paths
            .find(is_entry)
            .and_then(|path| std::fs::read(path).ok());
        if let Some(entry) = content.filter(|content| !content.is_empty()) {
            break entry;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    first.kill().unwrap();
    first.wait().unwrap();
    let mut entry: Value = serde_json::from_slice(&entry).unwrap();
    let own = entry["revision"].clone();
    entry["token"] = "elsewhere-1-x".into();
    entry["host"] = "elsewhere".into();
    entry["process"] = Value::Null;
    entry["images"] = serde_json::json!({});
    entry["revision"] = "0123456789".into();
    sandbox.write("results/small/claims/process-x", &entry.to_string());
    let output = sandbox.command("results").arg("--worker").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let own = own.as_str().unwrap_or("an unknown revision");
    for part in ["elsewhere", "revision 0123456789", own] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}
