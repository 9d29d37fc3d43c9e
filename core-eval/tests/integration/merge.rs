//! `core-eval merge`: tables of several experiments in one, or the reason why not.

use crate::common::{Sandbox, core_eval};
use assert_cmd::Command;

/// A folder of results with one protocol file, two prompts of one concept and one score each.
fn results(sandbox: &Sandbox, name: &str, clip: &str, variants: &[(&str, f64)]) {
    let protocol = format!(
        r#"{{"protocol": {{"name": "dreambooth"}}, "clip": {{"sha256": {{"model.safetensors": "{clip}"}}}},
            "photos": {{"dog": {{"0.png": "a", "1.png": "b"}}}}}}"#
    );
    sandbox.write(&format!("{name}/protocol.json"), &protocol);
    let mut scores =
        String::from("variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino\n");
    let mut checks = String::from("variant,measure,value,place\nphotos,dino_same,0.9,\n");
    for (variant, score) in variants {
        for prompt in ["a {}", "a red {}"] {
            scores += &format!(
                "{variant},dog,0,animate,plain,{prompt},images/{variant}/0.png,{score},{score},{score}\n"
            );
        }
        checks += &format!("{variant},diversity,{score},\n");
    }
    sandbox.write(&format!("{name}/scores.csv"), &scores);
    sandbox.write(&format!("{name}/checks.csv"), &checks);
}

fn merge(sandbox: &Sandbox, folders: &[&str]) -> Command {
    let mut command = core_eval();
    command
        .arg("merge")
        .args(folders.iter().map(|f| sandbox.path(f)));
    command.arg("--out").arg(sandbox.path("merged"));
    command
}

#[test]
fn variants_of_two_experiments_are_compared_in_one_table() {
    let sandbox = Sandbox::new();
    results(&sandbox, "one", "x", &[("CoRe", 0.5), ("untuned", 0.2)]);
    results(&sandbox, "two", "x", &[("untuned", 0.2), ("theirs", 0.3)]);
    let output = merge(&sandbox, &["one", "two"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("| theirs | 0.3000 [0.3000, 0.3000] (-0.2000"),
        "{printed}"
    );
    assert!(printed.contains("0.9000"), "what photos score: {printed}");
    let scores = sandbox.read("merged/scores.csv");
    assert_eq!(scores.lines().count(), 7, "{scores}");
    assert!(scores.contains("two/images/theirs/0.png"), "{scores}");
    let checks = sandbox.read("merged/checks.csv");
    assert_eq!(checks.lines().count(), 5, "{checks}");
    assert_eq!(
        printed.trim_end(),
        sandbox.read("merged/table.md").trim_end()
    );
    assert!(sandbox.path("merged/figures/forest.svg").is_file());
}

#[test]
fn tables_of_different_encoders_do_not_merge() {
    let sandbox = Sandbox::new();
    results(&sandbox, "one", "x", &[("CoRe", 0.5)]);
    results(&sandbox, "two", "y", &[("theirs", 0.3)]);
    let message = Sandbox::failure(merge(&sandbox, &["one", "two"]));
    assert!(
        message.contains("`clip.sha256.model.safetensors` is not the same"),
        "{message}"
    );
    assert!(!sandbox.path("merged").exists());
}

#[test]
fn variants_that_cannot_be_compared_are_named() {
    let sandbox = Sandbox::new();
    results(&sandbox, "one", "x", &[("CoRe", 0.5)]);
    results(&sandbox, "two", "x", &[("CoRe", 0.4)]);
    let message = Sandbox::failure(merge(&sandbox, &["one", "two"]));
    assert!(message.contains("both have a variant `CoRe`"), "{message}");

    results(&sandbox, "two", "x", &[("theirs", 0.4)]);
    let fewer = sandbox.read("two/scores.csv");
    let fewer: Vec<&str> = fewer.lines().take(2).collect();
    sandbox.write("two/scores.csv", &(fewer.join("\n") + "\n"));
    let message = Sandbox::failure(merge(&sandbox, &["one", "two"]));
    assert!(
        message.contains("`CoRe` has 1 images of `a red {}`") && message.contains("`theirs` 0"),
        "{message}"
    );
    let mut other = merge(&sandbox, &["one", "two"]);
    other.args(["--protocol", "core"]);
    let message = Sandbox::failure(other);
    assert!(
        message.contains("no scores under protocol `core`"),
        "{message}"
    );
}
