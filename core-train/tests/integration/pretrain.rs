//! `core-train pretrain`: what an interruption leaves, and what wrong files are told.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use crate::common::copy_folder;

/// A small autoencoder that learns for a few steps; all of them are warm-up, so that the learning
/// rate of a step does not depend on how many there are.
fn config(folder: &Path, steps: u32) -> PathBuf {
    let text = format!(
        r#"
seed = 0
state = "state"
curve = "curves/vae.csv"

[schedule]
steps = {steps}
batch_size = 2
learning_rate = 1e-3
warmup_steps = 100
weight_decay = 1e-4
ema_decay = 0.9
max_grad_norm = 1.0
evaluate_every = 1
save_every = 1

[vae]
output = "vae"

[vae.architecture]
in_channels = 3
out_channels = 3
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
block_out_channels = [4, 4, 4]
layers_per_block = 1
latent_channels = 2
norm_num_groups = 2
sample_size = 64
"#
    );
    let path = folder.join("vae.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn pretrain(config: &Path) -> Command {
    let mut command = Command::cargo_bin("core-train").unwrap();
    command.arg("pretrain").arg(config);
    command
}

fn printed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// The learning curve without its seconds.
fn curve(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("curves/vae.csv")).unwrap();
    let without_seconds = |line: &str| {
        let mut columns: Vec<&str> = line.split(',').collect();
        columns.remove(2);
        columns.join(",")
    };
    text.lines().map(without_seconds).collect()
}

#[test]
fn a_resumed_training_ends_with_the_bytes_of_an_uninterrupted_one() {
    let [at_once, in_parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let quality = printed(pretrain(&config(at_once.path(), 3)));
    printed(pretrain(&config(in_parts.path(), 2)));
    // What a kill after the second evaluation of step 3 would have left.
    let path = in_parts.path().join("curves/vae.csv");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("3,6,1,9.9,9.9\n");
    std::fs::write(&path, text).unwrap();
    // Whether one step more of so few makes it better does not matter here.
    let mut third = pretrain(&config(in_parts.path(), 3));
    third.arg("--replace");
    assert_eq!(printed(third), quality);

    let weights = |folder: &Path| {
        std::fs::read(folder.join("vae/diffusion_pytorch_model.safetensors")).unwrap()
    };
    assert!(weights(at_once.path()) == weights(in_parts.path()));
    let curve = [curve(at_once.path()), curve(in_parts.path())];
    assert_eq!(curve[0], curve[1]);
    assert_eq!(curve[0][0], "step,images,loss,psnr_db,sharpness");
    let steps: Vec<&str> = curve[0][1..].iter().map(|row| &row[..4]).collect();
    assert_eq!(steps, ["1,2,", "2,4,", "3,6,"]);
    assert!(quality.starts_with("psnr_db "), "{quality}");
}

#[test]
fn evaluation_trains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), 2);
    let trained = printed(pretrain(&path));
    let weights = folder
        .path()
        .join("vae/diffusion_pytorch_model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    for name in ["state", "curves"] {
        std::fs::remove_dir_all(folder.path().join(name)).unwrap();
    }
    let mut command = pretrain(&path);
    command.arg("--evaluate");
    let evaluated = printed(command);
    assert!(evaluated.starts_with("psnr_db "));
    let figure = |text: &str| -> f64 {
        let first = text.lines().next().unwrap();
        first["psnr_db ".len()..].parse().unwrap()
    };
    // The weights on disk are rounded to float16.
    assert!((figure(&evaluated) - figure(&trained)).abs() < 0.01);
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    for name in ["state", "curves"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_file_without_curve_or_with_unknown_keys_is_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), 1);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("curve = ", "# ")).unwrap();
    let message = failure(pretrain(&path));
    assert!(message.contains("curve is missing"), "{message}");
    std::fs::write(&path, text.replace("seed = 0", "seed = 0\nspeed = 9")).unwrap();
    let message = failure(pretrain(&path));
    assert!(message.contains("speed"), "{message}");
}

#[test]
fn only_a_finished_network_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), 1);
    let mut command = pretrain(&path);
    command.arg("--evaluate");
    let message = failure(command);
    assert!(message.contains("no finished network"), "{message}");
    let mut command = pretrain(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/pretrain/text-encoder.toml"),
    );
    command.arg("--evaluate");
    let message = failure(command);
    assert!(message.contains("text-encoder.csv"), "{message}");
}

/// The shipped autoencoder as the finished network of a pretraining file.
fn with_shipped_weights(folder: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mini/vae");
    copy_folder(&shipped, &folder.join("vae"));
    folder.join("vae/diffusion_pytorch_model.safetensors")
}

#[test]
fn better_weights_stay_until_they_are_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let weights = with_shipped_weights(folder.path());
    let before = std::fs::read(&weights).unwrap();
    let path = config(folder.path(), 2);
    let message = failure(pretrain(&path));
    let beside = folder.path().join("state/vae");
    let place = beside.display().to_string();
    for part in ["another architecture", &place, "--replace"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // Both figures are told when they are compared, and again in the reason.
    assert_eq!(message.matches("psnr_db ").count() % 2, 0, "{message}");
    assert!(message.matches("psnr_db ").count() >= 2, "{message}");
    assert!(std::fs::read(&weights).unwrap() == before);
    let new = std::fs::read(beside.join("diffusion_pytorch_model.safetensors")).unwrap();
    assert!(new != before);

    let mut command = pretrain(&path);
    command.arg("--replace");
    let quality = printed(command);
    assert!(quality.starts_with("psnr_db "), "{quality}");
    assert!(std::fs::read(&weights).unwrap() == new);
    // The finished training ends the same way when it is started once more.
    assert_eq!(printed(pretrain(&path)), quality);
}

#[test]
fn a_folder_that_is_half_there_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), 1);
    let weights = with_shipped_weights(folder.path());
    let config_file = folder.path().join("vae/config.json");
    let kept = std::fs::read(&config_file).unwrap();

    std::fs::remove_file(&config_file).unwrap();
    let message = failure(pretrain(&path));
    for part in ["vae is half there", "diffusion_pytorch_model.safetensors"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(weights.exists() && !config_file.exists());

    std::fs::write(&config_file, kept).unwrap();
    std::fs::remove_file(&weights).unwrap();
    let message = failure(pretrain(&path));
    for part in ["vae is half there", "has no weights"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!weights.exists());
}

#[test]
fn a_state_of_another_architecture_is_refused_by_file_and_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), 1);
    printed(pretrain(&path));
    std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let wider = text.replace("[4, 4, 4]", "[8, 8, 8]");
    let deeper = text.replace("layers_per_block = 1", "layers_per_block = 2");
    let shallower = text
        .replace("[4, 4, 4]", "[4, 4]")
        .replace(
            "\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", ",
            "\"DownEncoderBlock2D\", ",
        )
        .replace(
            "\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", ",
            "\"UpDecoderBlock2D\", ",
        );
    for other in [wider, deeper, shallower] {
        assert_ne!(other, text);
        std::fs::write(&path, other).unwrap();
        let message = failure(pretrain(&path));
        for part in [
            "state.safetensors",
            "another architecture",
            "remove the file",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    assert!(!folder.path().join("vae").exists());
}

/// The pretraining file of the shipped U-Net with a copy of the shipped generator, edited.
fn generator(folder: &Path, from: &str, to: &str) -> PathBuf {
    let pretraining = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/pretrain");
    let model = folder.join("mini");
    copy_folder(&pretraining.join("../../models/mini"), &model);
    let text = std::fs::read_to_string(pretraining.join("unet.toml")).unwrap();
    let here = |name: &str| folder.join(name).display().to_string();
    let replace = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let text = replace(
        text,
        "../../models/mini\"",
        &format!("{}\"", model.display()),
    );
    let text = replace(text, "../../results/pretrain/unet", &here("state"));
    let text = replace(
        text,
        "../../models/curves/unet-people.csv",
        &here("unet.csv"),
    );
    let path = folder.join("unet.toml");
    std::fs::write(&path, replace(text, from, to)).unwrap();
    path
}

#[test]
fn a_generator_without_the_weights_of_its_autoencoder_is_refused_by_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = generator(folder.path(), "seed", "seed");
    let weights = "mini/vae/diffusion_pytorch_model.safetensors";
    std::fs::remove_file(folder.path().join(weights)).unwrap();
    let message = failure(pretrain(&path));
    for part in ["mini/vae", "has no weights"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!folder.path().join("state/state.safetensors").exists());
}

#[test]
fn a_unet_for_other_latents_than_its_autoencoder_makes_is_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, key) in [
        ("in_channels = 4", "in_channels = 8", "in_channels is 8"),
        (
            "cross_attention_dim = 128",
            "cross_attention_dim = 96",
            "cross_attention_dim is not 128",
        ),
    ] {
        let message = failure(pretrain(&generator(folder.path(), from, to)));
        for part in ["[unet.architecture]", key] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}

/// A vision transformer of the smallest size, in a file with this table and batch size.
fn encoder(folder: &Path, table: &str, batch_size: usize, keys: &str) -> PathBuf {
    let text = std::fs::read_to_string(config(folder, 1)).unwrap();
    let schedule = text.split("[vae]").next().unwrap();
    let schedule = schedule.replace("batch_size = 2", &format!("batch_size = {batch_size}"));
    let path = folder.join("encoder.toml");
    let text = format!(
        "{schedule}[{table}]\noutput = \"encoder\"\n{keys}\n[{table}.architecture]\nhidden_size = 8\n\
         intermediate_size = 8\nnum_hidden_layers = 1\nnum_attention_heads = 1\nimage_size = 64\npatch_size = 32\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn batches_that_whole_groups_do_not_fill_are_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |table, batch_size, keys: &str, expected: &str| {
        let message = failure(pretrain(&encoder(folder.path(), table, batch_size, keys)));
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("multiple of 4"), "{message}");
        assert!(!folder.path().join("encoder").exists());
    };
    refused("dino", 6, "", "schedule.batch_size is 6");
    let people = |count: u32| format!("vae = \"vae\"\npeople = {count}");
    refused("identity", 6, &people(8), "schedule.batch_size is 6");
    refused("identity", 4, &people(10), "identity.people is 10");
    refused("identity", 4, &people(0), "identity.people is 0");
}
