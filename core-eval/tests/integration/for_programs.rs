//! What `core-eval` prints for other programs: JSON, completions, manual pages.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn core_eval(words: &[&str]) -> std::process::Output {
    Command::cargo_bin("core-eval")
        .unwrap()
        .args(words)
        .output()
        .unwrap()
}

fn json(words: &[&str]) -> Value {
    let output = core_eval(words);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn the_doctor_prints_versions_devices_and_checkpoints_as_json() {
    let models = checkout().join("models");
    let report = json(&["doctor", "--json", "--models", models.to_str().unwrap()]);
    assert_eq!(report["core_eval"], env!("CARGO_PKG_VERSION"));
    assert!(report["burn"].as_str().unwrap().starts_with("0.22"));
    assert!(report["instruction_set"].is_string());
    let cpu = &report["devices"][0];
    assert_eq!(cpu["name"], "cpu");
    assert_eq!(cpu["usable"], true);
    assert_eq!(cpu["difference_from_cpu"], 0.0);
    assert_eq!(cpu["gpu"], Value::Null);
    let checkpoints = report["checkpoints"].as_array().unwrap();
    assert!(checkpoints.len() >= 4);
    assert!(
        checkpoints
            .iter()
            .all(|checkpoint| checkpoint["usable"] == true)
    );

    // Faults are in the JSON too, and the program still fails.
    let output = core_eval(&["doctor", "--json", "--models", "absent"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["checkpoints"][0]["usable"], false);
}

#[test]
fn precision_says_what_an_experiment_of_other_sizes_would_see() {
    let folder = checkout().join("results/reference/effects");
    let experiment = checkout().join("experiments/table3.toml");
    let [folder, experiment] = [&folder, &experiment].map(|path| path.to_str().unwrap());
    let report = json(&["precision", folder, "--experiment", experiment, "--json"]);
    assert_eq!(report["sizes"], serde_json::json!([24, 16, 4]));
    for row in report["rows"].as_array().unwrap() {
        // Concepts are resampled there: t(.975, 23) = 2.0687 standard errors on both sides.
        let [concepts, prompts, images] =
            ["sd_concepts", "sd_prompts", "sd_images"].map(|sd| row[sd].as_f64().unwrap().powi(2));
        let variance = (concepts + (prompts + images / 4.0) / 16.0) / 24.0;
        let width = row["width_there"].as_f64().unwrap();
        assert!(
            (width - 2.0 * 2.068_66 * variance.sqrt()).abs() < 1e-4,
            "{row}"
        );
    }
    let table = core_eval(&["precision", folder, "--experiment", experiment]);
    let table = String::from_utf8(table.stdout).unwrap();
    for part in ["24 concepts, 16 prompts per concept", "| width there |"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn precision_prints_the_numbers_of_its_table_as_json() {
    let folder = checkout().join("results/reference/ablation");
    let folder = folder.to_str().unwrap();
    let report = json(&["precision", folder, "--width", "0.05", "--json"]);
    assert_eq!(report["width"], 0.05);
    let rows = report["rows"].as_array().unwrap();
    let table = core_eval(&["precision", folder, "--width", "0.05"]);
    let table = String::from_utf8(table.stdout).unwrap();
    let lines: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert_eq!(lines.len(), rows.len());
    for (line, row) in lines.iter().zip(rows) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let what = match row["baseline"].as_str() {
            Some(baseline) => format!("{} - {baseline}", row["variant"].as_str().unwrap()),
            None => row["variant"].as_str().unwrap().to_string(),
        };
        assert_eq!(cells[0], what);
        assert_eq!(cells[1], row["score"].as_str().unwrap());
        assert_eq!(
            cells[2],
            format!("{:.4}", row["sd_concepts"].as_f64().unwrap())
        );
        let needed = row["concepts_needed"].as_u64();
        assert_eq!(
            cells[5],
            needed.map_or("–".to_string(), |count| count.to_string())
        );
    }
    let output = core_eval(&["precision", "absent", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}

#[test]
fn completions_and_manual_pages_know_all_commands() {
    let output = core_eval(&["completions", "bash"]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("precision")
    );
    let folder = tempfile::tempdir().unwrap();
    let output = core_eval(&["man", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in ["core-eval.1", "core-eval-score.1", "core-eval-precision.1"] {
        assert!(folder.path().join(page).is_file(), "{page}");
    }
    let page = std::fs::read_to_string(folder.path().join("core-eval.1")).unwrap();
    assert!(page.contains("143 after SIGTERM"), "{page}");
}
