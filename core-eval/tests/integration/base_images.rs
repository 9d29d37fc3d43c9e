//! Metrics that compare an image with one of the base model: drift and directional CLIP.

use crate::common::{Sandbox, core_eval};

/// `scores.csv`, after the experiment was refused for having no images of the base model.
fn scores_beside_the_base_model(sandbox: &Sandbox) -> String {
    sandbox.edit("untuned = true", "remove = [\"context_embedding\"]");
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("add a variant with `untuned = true`"),
        "{message}"
    );
    sandbox.edit(
        "name = \"class word\"\nremove = [\"context_embedding\"]",
        "name = \"class word\"\nuntuned = true",
    );
    sandbox.run("results");
    sandbox.read("results/small/scores.csv")
}

#[test]
fn prompts_without_the_concept_measure_the_drift_from_the_base_model() {
    let sandbox = Sandbox::new();
    let prompts = sandbox.read("prompts.csv");
    let with = |row: &str| sandbox.write("prompts.csv", &format!("{prompts}animate,{row}\n"));
    with("plain,a red car");
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(message.contains("`a red car` has no {}"), "{message}");
    with("unrelated,a red {}");
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("`a red {}` is of the kind `unrelated`"),
        "{message}"
    );
    with("unrelated,a red car");
    let scores = scores_beside_the_base_model(&sandbox);
    let mut lines = scores.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .ends_with(",image,clip_t,clip_i,dino,drift")
    );
    let mut drifts = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [text, image, dino, drift] = fields[7..] else {
            panic!("{line}");
        };
        match fields[4] {
            "unrelated" => {
                assert_eq!([text, image, dino], [""; 3], "{line}");
                let drift: f64 = drift.parse().unwrap();
                // The U-Net is trained, so everything but the base model moves.
                assert_eq!(drift > 1e-6, fields[0] != "class word", "{line}");
                drifts += 1;
            }
            _ => assert_eq!(drift, "", "{line}"),
        }
    }
    // 5 variants x 1 concept of the group x 2 images.
    assert_eq!(drifts, 10);
    let tokens = sandbox.read("results/small/tokens.csv");
    assert!(!tokens.contains("a red car"), "{tokens}");
}

#[test]
fn a_base_prompt_adds_directional_clip() {
    let sandbox = Sandbox::new();
    let named = |prompt: &str| {
        let text = sandbox.read("experiment.toml");
        let kept = text.lines().filter(|line| !line.starts_with("base_prompt"));
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        let key = format!("protocol = \"dreambooth\"\nbase_prompt = \"{prompt}\"");
        let text = kept.replace("protocol = \"dreambooth\"", &key);
        sandbox.write("experiment.toml", &text);
    };
    // Only concepts of one group have that prompt.
    named("a red {} on the beach");
    let message = Sandbox::failure(sandbox.command("results"));
    for part in [
        "`evaluation.base_prompt` is `a red {} on the beach`",
        "striped-cup",
        "prompts.csv",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    named("a photo of a {}");
    let scores = scores_beside_the_base_model(&sandbox);
    let mut lines = scores.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .ends_with(",clip_t,clip_i,dino,clip_direction")
    );
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        match fields[5] {
            // From the base prompt to itself there is no direction.
            "a photo of a {}" => assert_eq!(fields[10], "", "{line}"),
            _ => {
                let direction: f64 = fields[10].parse().unwrap();
                assert!(
                    (-1.0..=1.0).contains(&direction) && direction != 0.0,
                    "{line}"
                );
            }
        }
    }
    let protocol = sandbox.read("results/small/protocol.json");
    assert!(
        protocol.contains("\"base_prompt\": \"a photo of a {}\""),
        "{protocol}"
    );

    // `score` with the same base images gives the same numbers.
    let images = sandbox.path("results/small/images");
    let of = |variant: &str, prompt: &str| images.join(variant).join("spotted-dog/0").join(prompt);
    let mut command = core_eval();
    command
        .args(["score", "--protocol", "dreambooth", "--layout", "plain"])
        .args([
            "--prompt",
            "a red {} on the beach",
            "--base-prompt",
            "a photo of a {}",
        ])
        .arg("--generated")
        .arg(of("no terms", "1"))
        .arg("--base")
        .arg(of("class word", "0"));
    for (flag, folder) in [
        ("--references", "spotted-dog"),
        ("--clip", "clip"),
        ("--dino", "dino"),
    ] {
        command.arg(flag).arg(sandbox.path(folder));
    }
    let output = command
        .arg("--out")
        .arg(sandbox.path("again.csv"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let directions = |text: &str, prefix: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains(prefix));
        lines
            .map(|line| line.rsplit(',').next().unwrap().to_string())
            .collect()
    };
    let again = directions(&sandbox.read("again.csv"), ".png");
    assert_eq!(again.len(), 2);
    assert_eq!(
        directions(&scores, "images/no terms/spotted-dog/0/1/"),
        again
    );
}
