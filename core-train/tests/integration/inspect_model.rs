//! `core-train model inspect` on everything that can be a model.

use std::path::{Path, PathBuf};
use std::process::Output;

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
