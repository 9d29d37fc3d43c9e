//! `core-train pretrain` of the tuning-free encoders: what an interruption leaves, and what wrong files
//! are told.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use core_model::Network;
use core_model::device::parse_device;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::id_adapter::{IdAdapterConfig, IdAdapterFolder};
use core_model::precision::Precision;
use core_train::pretrain::{PretrainConfig, Task};
use tempfile::TempDir;

use crate::common::copy_folder;

/// A folder with the generator of the mini world and a small identity encoder.
fn sandbox() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = parse_device("cpu").unwrap();
    let model = folder.path().join("mini");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mini");
    copy_folder(&shipped, &model);
    let config = DinoConfig {
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 64,
        patch_size: 16,
        ..DinoConfig::default()
    };
    let msid = DinoModel::init(&config, 1, &device).unwrap();
    let place = folder.path().join("adapter/msid");
    msid.save(&place, Precision::Float16).unwrap();
    folder
}

/// A file that trains for so many steps; all of them are warm-up.
fn file(folder: &Path, steps: u32, table: &str) -> PathBuf {
    let text = format!(
        "seed = 0\nstate = \"state\"\ncurve = \"curve.csv\"\n[schedule]\nsteps = {steps}\nbatch_size = 2\n\
         learning_rate = 1e-2\nwarmup_steps = 100\nweight_decay = 1e-4\nema_decay = 0.9\n\
         max_grad_norm = 1.0\nevaluate_every = 2\nsave_every = 1\n{table}"
    );
    let path = folder.join("pretrain.toml");
    std::fs::write(&path, text).unwrap();
    path
}

const PHOTOMAKER: &str = "[photomaker]\noutput = \"adapter\"\nmodel = \"mini\"\n\
                          vision = \"adapter/msid\"\npeople = 8\nviews = 2\nrank = 2\n";
const FACE2DIFFUSION: &str = "[face2diffusion]\noutput = \"adapter\"\nmodel = \"mini\"\n\
                              layers = [0, 1]\npeople = 8\nviews = 2\n";

fn printed(file: &Path, more: &[&str]) -> String {
    let mut command = Command::cargo_bin("core-train").unwrap();
    let output = command
        .arg("pretrain")
        .arg(file)
        .args(more)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(file: &Path) -> String {
    let mut command = Command::cargo_bin("core-train").unwrap();
    let output = command.arg("pretrain").arg(file).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Trains two steps at once, and one after the other; both folders must then hold this file with the same
/// bytes.
fn resumed_is_uninterrupted(table: &str, weights: &str) -> TempDir {
    let [at_once, in_parts] = [sandbox(), sandbox()];
    let quality = printed(&file(at_once.path(), 2, table), &[]);
    printed(&file(in_parts.path(), 1, table), &[]);
    let second = file(in_parts.path(), 2, table);
    assert_eq!(printed(&second, &["--replace"]), quality);
    let read = |folder: &TempDir| std::fs::read(folder.path().join("adapter").join(weights));
    assert!(read(&at_once).unwrap() == read(&in_parts).unwrap());
    // What was trained is what the folder holds.
    let evaluated = printed(&second, &["--evaluate"]);
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines();
        lines
            .map(|line| line.split(' ').next().unwrap_or_default().to_string())
            .collect()
    };
    assert_eq!(names(&evaluated), names(&quality));
    at_once
}

#[test]
fn a_resumed_training_of_photomaker_ends_with_the_bytes_of_an_uninterrupted_one() {
    let folder = resumed_is_uninterrupted(PHOTOMAKER, "photomaker.safetensors");
    let adapter = IdAdapterFolder::open(&folder.path().join("adapter")).unwrap();
    assert!(matches!(
        adapter.config(),
        IdAdapterConfig::PhotoMaker(config) if config.width() == 128
    ));
    let state = folder.path().join("state/state.safetensors");
    let state = core_model::checkpoint::Checkpoint::open(&state, |key| Some(key.into())).unwrap();
    // The generator itself is not trained.
    let trained = state.keys().filter_map(|key| key.strip_prefix("network/"));
    let trained: Vec<&str> = trained.collect();
    assert!(
        trained
            .iter()
            .any(|key| key.ends_with("attn1.to_q.lora_A.weight"))
    );
    assert!(
        trained
            .iter()
            .any(|key| key.ends_with("attn2.to_out.0.lora_B.weight"))
    );
    let is_own = |key: &&str| key.starts_with("photomaker.") || key.contains(".lora_");
    assert!(trained.iter().all(is_own));
}

#[test]
fn the_image_tower_of_photomaker_learns_at_a_tenth_of_the_learning_rate() {
    let folder = sandbox();
    printed(&file(folder.path(), 1, PHOTOMAKER), &[]);
    let path = folder.path().join("state/state.safetensors");
    let state = core_model::checkpoint::Checkpoint::open(&path, |key| Some(key.into())).unwrap();
    let device = parse_device("cpu").unwrap();
    let before = DinoModel::load(&folder.path().join("adapter/msid"), &device).unwrap();
    let mut farthest = 0f32;
    before.names().read(&before, |param| {
        let key = format!("network/photomaker.vision_model.{}", param.name);
        let (now, _) = state.read_f32(&key).unwrap().unwrap();
        let was = core_model::params::to_vec(param.value);
        let moved = now.iter().zip(&was).map(|(now, was)| (now - was).abs());
        farthest = moved.fold(farthest, f32::max);
    });
    // The first step of Adam moves a weight by the learning rate, which is 1e-4 after one of 100 steps of
    // warm-up.
    assert!((0.9e-5..1.05e-5).contains(&farthest), "{farthest}");
}

#[test]
fn a_resumed_training_of_face2diffusion_ends_with_the_bytes_of_an_uninterrupted_one() {
    let folder = resumed_is_uninterrupted(FACE2DIFFUSION, "mapping.safetensors");
    let adapter = IdAdapterFolder::open(&folder.path().join("adapter")).unwrap();
    let device = parse_device("cpu").unwrap();
    adapter.face2diffusion(&device).unwrap();
    assert!(matches!(
        adapter.config(),
        IdAdapterConfig::Face2Diffusion(config)
            if config.text_width == 128 && config.exp_dim == 3 && config.msid.layers == [0, 1]
    ));
}

#[test]
fn adapters_without_their_identity_encoder_or_people_are_refused_with_what_to_do() {
    let folder = sandbox();
    let refused = |table: &str, parts: &[&str]| {
        let message = failure(&file(folder.path(), 1, table));
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!folder.path().join("adapter/adapter.json").exists());
    };
    let layers = FACE2DIFFUSION.replace("[0, 1]", "[0, 2]");
    refused(&layers, &["`layers` is [0, 2]", "from 0 to 1"]);
    let none = FACE2DIFFUSION.replace("people = 8", "people = 0");
    refused(&none, &["face2diffusion.people", "0 and 2"]);
    std::fs::remove_dir_all(folder.path().join("adapter/msid")).unwrap();
    refused(PHOTOMAKER, &["adapter/msid", "msid.toml"]);
    refused(FACE2DIFFUSION, &["adapter/msid", "msid.toml"]);
}

#[test]
fn the_shipped_files_describe_one_network_each_and_agree_on_layers_and_folders() {
    let load = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/pretrain");
        PretrainConfig::load(&folder.join(name)).unwrap().task
    };
    let (Task::Identity(msid), Task::Face2Diffusion(mapping), Task::PhotoMaker(photomaker)) = (
        load("msid.toml"),
        load("face2diffusion.toml"),
        load("photomaker.toml"),
    ) else {
        panic!("another task");
    };
    assert_eq!(msid.layers.as_ref(), Some(&mapping.layers));
    assert_eq!(msid.output, mapping.output.join("msid"));
    assert_eq!(photomaker.vision, msid.output);
    assert_eq!(photomaker.model, mapping.model);
}
