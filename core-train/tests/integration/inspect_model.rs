//! `core-train model inspect` on everything that can be a model.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join("core-model/tests/fixtures").join(name)
}

fn inspect(path: &Path, more: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    command.env("HF_HUB_OFFLINE", "1");
    command.args(["model", "inspect"]).arg(path).args(more);
    command.output().unwrap()
}

fn shown(path: &Path, more: &[&str]) -> String {
    let output = inspect(path, more);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(path: &Path) -> String {
    let output = inspect(path, &[]);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The number of bytes on a line of estimates, in GiB.
fn gib(text: &str, line: &str) -> f64 {
    let rest = text.split(line).nth(1).unwrap_or_else(|| panic!("{text}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_model_folder_is_described_part_by_part_with_the_memory_it_needs() {
    let text = shown(&fixture("pipeline/model"), &["--resolution", "512"]);
    for part in [
        "text-to-image model in the layout of diffusers",
        "text encoder: ",
        "U-Net: ",
        "M parameters, F16",
        "autoencoder: ",
        "tokenizer: ",
        "predicts epsilon",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let more = shown(
        &fixture("pipeline/model"),
        &["--resolution", "512", "--batch-size", "8"],
    );
    for line in ["generate: ", "train embedding: ", "train unet: "] {
        assert!(gib(&more, line) > gib(&text, line), "{line}: {more}");
    }
}

#[test]
fn a_single_network_is_described_by_its_config() {
    let text = shown(&fixture("pipeline/model/unet"), &[]);
    assert!(text.contains("UNet2DConditionModel"), "{text}");
    assert!(text.contains("block_out_channels: ["), "{text}");
    let text = shown(&fixture("clip/new"), &[]);
    assert!(text.contains(": clip, "), "{text}");
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = refused(folder.path());
    assert!(text.contains("model_index.json"), "{text}");
    let file = folder.path().join("model.ckpt");
    std::fs::write(&file, b"\x80\x02cos\nsystem\n.").unwrap();
    let text = refused(&file);
    assert!(text.contains("no archive as torch.save"), "{text}");
    let text = refused(Path::new("somebody/something"));
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    let text = refused(&folder.path().join("absent"));
    assert!(text.contains("no such file or folder"), "{text}");
}

/// What `--json` prints.
fn json(words: &[&str]) -> Value {
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    let output = command.args(words).arg("--json").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn json_holds_the_facts_of_a_model_as_numbers() {
    let path = fixture("pipeline/model");
    let model = json(&[
        "model",
        "inspect",
        path.to_str().unwrap(),
        "--resolution",
        "512",
    ]);
    assert_eq!(model["layout"], "diffusers");
    assert_eq!(model["kind"], "StableDiffusionPipeline");
    assert_eq!(model["unet"]["dtypes"], json!(["F16"]));
    assert!(model["unet"]["parameters"].as_u64().unwrap() > 1000);
    assert_eq!(model["text_encoder"]["hidden_size"], 16);
    assert_eq!(model["tokenizer"]["context_length"], 16);
    assert_eq!(model["scheduler"]["sampler"], "pndm");
    assert_eq!(model["prediction_type"], "epsilon");
    let memory = &model["memory"];
    assert_eq!(memory["width"], 512);
    // The same numbers as in the text.
    let gib_of = |bytes: &Value| bytes.as_u64().unwrap() as f64 / f64::from(1 << 30);
    let text = shown(&path, &["--resolution", "512"]);
    assert!((gib_of(&memory["generate"]) - gib(&text, "generate: ")).abs() < 0.006);
    let first = &memory["train"][0];
    assert_eq!(first["train"], "embedding");
    assert!((gib_of(&first["bytes"]) - gib(&text, "train embedding: ")).abs() < 0.006);
}

#[test]
fn json_holds_the_facts_of_a_network_an_embedding_and_a_lora() {
    let path = fixture("pipeline/model/unet");
    let network = json(&["model", "inspect", path.to_str().unwrap()]);
    assert_eq!(network["class"], "UNet2DConditionModel");
    assert!(network["config"]["block_out_channels"].is_array());

    let (file, model) = (
        fixture("pipeline/robot.safetensors"),
        fixture("pipeline/model"),
    );
    let file = file.to_str().unwrap();
    let embedding = json(&["embedding", "inspect", file]);
    assert_eq!(embedding["token"], "<robot>");
    assert_eq!(embedding["dim"], 16);
    assert_eq!(embedding["vocabulary"], Value::Null);
    assert_eq!(embedding["vectors"][0]["nearest"], json!([]));
    let embedding = json(&[
        "embedding",
        "inspect",
        file,
        "--model",
        model.to_str().unwrap(),
    ]);
    assert_eq!(
        embedding["vectors"][0]["nearest"].as_array().unwrap().len(),
        5
    );
    assert!(embedding["vocabulary"]["median"].as_f64().unwrap() > 0.0);
}
