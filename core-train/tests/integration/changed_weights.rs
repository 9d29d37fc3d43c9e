//! Runs that train some weights of a network keep those alone, and open as if they had kept all.

use std::path::{Path, PathBuf};
use std::process::Output;

use core_model::checkpoint::Checkpoint;
use core_model::files::sha256;
use core_train::Run;

use crate::common::{fixture, network, open, photos, read, train, train_step_by_step, write};

const WHOLE: &str = "unet/diffusion_pytorch_model.safetensors";
const CHANGED: &str = "unet/changed_weights.safetensors";

/// A run file whose stages train these sets of a model.
fn run_file(folder: &Path, model: &Path, stages: &[&str]) -> PathBuf {
    photos(&folder.join("photos"));
    let mut text = format!(
        "[model]\npath = {model:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"dog\"\n"
    );
    for train in stages {
        text += &format!(
            "[[stages]]\ntrain = [{train}]\nsteps = 2\nbatch_size = 1\nlearning_rate = 1e-2\n\
             prompts = [\"a photo of a {{}}\"]\n"
        );
    }
    write(folder, "run.toml", &text)
}

fn run(folder: &Path, stages: &[&str]) -> PathBuf {
    let output = folder.join("out");
    train(&run_file(folder, &fixture("model"), stages), &output, None);
    output
}

fn core_train(words: &[&str]) -> Output {
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program.args(words).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The latents that `generate` draws from some source, or its message.
fn draw(source: &[&str]) -> Result<Vec<f32>, String> {
    let folder = tempfile::tempdir().unwrap();
    let latents = folder.path().join("latents.safetensors");
    let words = [
        "generate",
        "--prompt",
        "a photo of a <robot>",
        "--steps",
        "2",
        "--save-latents",
        text(&latents),
        "--out",
        text(folder.path()),
    ];
    let output = core_train(&[&words, source].concat());
    match output.status.success() {
        true => Ok(read(&open(&latents), "latents")),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// Writes the whole U-Net of a run in place of what was changed, as earlier versions did.
fn as_earlier_versions(run: &Path) {
    let opened = Run::open(run).unwrap();
    let pipeline = opened.pipeline(&opened.base_model("cpu").unwrap()).unwrap();
    let unet = pipeline.model.unet();
    core_model::Network::save(unet, &run.join("unet"), core_model::Precision::Float32).unwrap();
    std::fs::remove_file(run.join(CHANGED)).unwrap();
}

#[test]
fn what_training_can_change_is_written_with_the_digest_of_the_base() {
    let is_kv = |key: &str| key.contains(".attn2.to_k.") || key.contains(".attn2.to_v.");
    let is_cross = |key: &str| key.contains(".attn2.");
    let whole = open(&fixture("model").join(WHOLE));
    type Chosen<'a> = &'a dyn Fn(&str) -> bool;
    for (stages, changed) in [
        (&["\"cross_attention_kv\""][..], Some(&is_kv as Chosen<'_>)),
        (
            &["\"cross_attention_kv\"", "\"cross_attention\""],
            Some(&is_cross),
        ),
        (
            &["\"cross_attention\"", "\"cross_attention_kv\""],
            Some(&is_cross),
        ),
        (&["\"cross_attention_kv\"", "\"unet\""], None),
        (&["\"unet\"", "\"cross_attention_kv\""], None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = run(folder.path(), stages);
        let file = output.join(if changed.is_some() { CHANGED } else { WHOLE });
        let file = open(&file);
        let expected = whole
            .keys()
            .filter(|key| changed.is_none_or(|changed| changed(key)));
        assert!(file.keys().eq(expected), "{stages:?}");
        assert_eq!(
            output.join(CHANGED).exists(),
            changed.is_some(),
            "{stages:?}"
        );
        assert_eq!(output.join(WHOLE).exists(), changed.is_none(), "{stages:?}");
        let base = sha256(&fixture("model").join(WHOLE)).unwrap();
        let said = file.metadata().get("base_sha256");
        assert_eq!(said, changed.map(|_| &base), "{stages:?}");
        assert!(output.join("unet/config.json").is_file());
    }
}

#[test]
fn a_run_with_changed_weights_is_the_same_bit_for_bit_as_one_with_the_whole_network() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["\"embedding\", \"cross_attention_kv\""]);
    let small = std::fs::metadata(output.join(CHANGED)).unwrap().len();
    let of_changed = (
        network(&output, "unet"),
        draw(&["--run", text(&output)]).unwrap(),
    );
    as_earlier_versions(&output);
    let of_whole = (
        network(&output, "unet"),
        draw(&["--run", text(&output)]).unwrap(),
    );
    assert!(of_changed == of_whole);
    assert!(small * 10 < std::fs::metadata(output.join(WHOLE)).unwrap().len());
}

#[test]
fn a_low_rank_change_is_made_to_the_network_that_a_later_stage_has_trained() {
    let folder = tempfile::tempdir().unwrap();
    let stages = ["{ kind = \"lora\", rank = 2 }", "\"unet\""];
    let output = run(folder.path(), &stages);
    let of_run = draw(&["--run", text(&output)]).unwrap();
    let without = draw(&["--run", text(&output), "--lora-scale", "0"]).unwrap();
    assert_ne!(of_run, without);
}

#[test]
fn a_run_that_is_stopped_after_every_step_writes_the_same_changed_weights() {
    let folder = tempfile::tempdir().unwrap();
    let stages = ["\"embedding\"", "\"cross_attention_kv\""];
    let whole = run(folder.path(), &stages);
    let parts = folder.path().join("parts");
    assert_eq!(
        train_step_by_step(&folder.path().join("run.toml"), &parts),
        4
    );
    let [one, other] = [&whole, &parts].map(|run| sha256(&run.join(CHANGED)).unwrap());
    assert_eq!(one, other);
}

#[test]
fn a_model_folder_that_is_exported_is_whole_and_draws_what_the_run_draws() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["\"embedding\", \"cross_attention_kv\""]);
    let exported = folder.path().join("exported");
    let done = core_train(&["export", text(&output), text(&exported)]);
    assert!(done.status.success(), "{done:?}");
    let [base, ours] = [&fixture("model"), &exported].map(|model| open(&model.join(WHOLE)));
    assert!(base.keys().eq(ours.keys()));
    let of_run = draw(&["--run", text(&output)]).unwrap();
    assert_eq!(of_run, draw(&["--model", text(&exported)]).unwrap());
    // Changed weights are a U-Net for `generate` too.
    let (model, unet) = (fixture("model"), output.join("unet"));
    let embedding = output.join("learned_embeds.safetensors");
    let parts = ["--unet", text(&unet), "--embedding", text(&embedding)];
    let source = [&["--model", text(&model)][..], &parts].concat();
    assert_eq!(of_run, draw(&source).unwrap());
}

/// A copy of the model of the fixtures with one weight of its U-Net changed.
fn other_model(folder: &Path) -> PathBuf {
    let other = folder.join("other");
    core_model::files::copy_all(&fixture("model"), &other).unwrap();
    let mut bytes = std::fs::read(other.join(WHOLE)).unwrap();
    // The last byte is part of an exponent: another finite number.
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(other.join(WHOLE), bytes).unwrap();
    other
}

#[test]
fn another_base_is_refused_by_both_digests() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["\"embedding\", \"cross_attention_kv\""]);
    let other = other_model(folder.path());
    let digests = [&fixture("model"), &other].map(|model| sha256(&model.join(WHOLE)).unwrap());
    let unet = output.join("unet");
    let by_flag = draw(&["--model", text(&other), "--unet", text(&unet)]).unwrap_err();
    let config = output.join("config.toml");
    let run_file = std::fs::read_to_string(&config).unwrap();
    let line = run_file
        .lines()
        .find(|line| line.starts_with("path = "))
        .unwrap();
    let run_file = run_file.replace(line, &format!("path = {other:?}"));
    std::fs::write(&config, run_file).unwrap();
    let by_run = draw(&["--run", text(&output)]).unwrap_err();
    let exported = folder.path().join("exported");
    let refused = core_train(&["export", text(&output), text(&exported)]);
    let by_export = String::from_utf8(refused.stderr).unwrap();
    for message in [by_flag, by_run, by_export] {
        for part in [CHANGED, &digests[0], &digests[1]] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert!(!exported.exists());
}

#[test]
fn damaged_changes_are_refused_by_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["\"embedding\", \"cross_attention_kv\""]);
    let path = output.join(CHANGED);
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        let message = draw(&["--run", text(&output)]).unwrap_err();
        assert!(
            message.contains(CHANGED) && message.contains(part),
            "{message}"
        );
        assert!(!message.contains("panicked"), "{message}");
    };
    refused(&good[..good.len() / 2], "cut or damaged");
    let replaced = |from: &str, to: &str| {
        let header = String::from_utf8_lossy(&good).into_owned();
        let at = header.find(from).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(&replaced("base_sha256", "base_sha255"), "base_sha256");
    refused(&replaced(".attn2.to_k.", ".attn2.to_x."), ".attn2.to_x.");
    let mut infinite = good.clone();
    let end = infinite.len();
    infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    refused(&infinite, "inf");
    let key = |key: &str| Some(key.to_string());
    std::fs::write(&path, &good).unwrap();
    assert!(
        Checkpoint::open(&path, key)
            .unwrap()
            .keys()
            .all(|key| key.contains(".attn2."))
    );
}
