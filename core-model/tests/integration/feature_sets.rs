//! Every crate of the workspace compiles its dependencies with one set of features (`core-features`).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// For each third-party package the sets of features with which it is compiled.
type Features = BTreeMap<String, BTreeSet<String>>;

/// What cargo would compile for some crates, with (`normal,build,dev`) or without their dev-dependencies.
fn features(edges: &str, crates: &[&str]) -> Features {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--offline", "--locked"])
        .args(["--prefix", "none", "--format", "{p}|{f}|", "--edges", edges])
        .args(crates)
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree failed: {errors}");
    let mut features = Features::new();
    let tree = String::from_utf8_lossy(&output.stdout);
    for line in tree.lines().filter(|line| !line.is_empty()) {
        // A package that was printed before has a mark after the last bar.
        let mut fields = line.split('|');
        let (Some(package), Some(set)) = (fields.next(), fields.next()) else {
            panic!("cargo tree printed `{line}`");
        };
        // Cargo prints the folder of a crate of the workspace, and none for one of a registry.
        if !package.contains(['/', '\\']) {
            let sets = features.entry(package.to_string()).or_default();
            sets.insert(set.to_string());
        }
    }
    features
}

#[test]
fn every_crate_compiles_its_dependencies_as_the_workspace_does() {
    let workspace = features("normal,build,dev", &["--workspace"]);
    assert!(
        workspace
            .keys()
            .any(|package| package.starts_with("burn-core "))
    );
    let mut differences = Vec::new();
    for name in [
        "core-model",
        "core-losses",
        "core-metrics",
        "core-train",
        "core-eval",
    ] {
        for edges in ["normal,build", "normal,build,dev"] {
            for (package, sets) in features(edges, &["--package", name]) {
                let wanted = workspace.get(&package);
                if wanted != Some(&sets) {
                    differences.push(format!(
                        "{package} below {name} ({edges}): {sets:?}, workspace {wanted:?}"
                    ));
                }
            }
        }
    }
    assert!(
        differences.is_empty(),
        "turn the workspace's features on in core-model/features/Cargo.toml:\n{}",
        differences.join("\n")
    );
}
