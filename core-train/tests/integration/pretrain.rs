//! `core-train pretrain`: what an interruption leaves, and what wrong files are told.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

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
    assert_eq!(printed(pretrain(&config(in_parts.path(), 3))), quality);

    let weights = |folder: &Path| {
        std::fs::read(folder.join("vae/diffusion_pytorch_model.safetensors")).unwrap()
    };
    assert!(weights(at_once.path()) == weights(in_parts.path()));
    let curve = [curve(at_once.path()), curve(in_parts.path())];
    assert_eq!(curve[0], curve[1]);
    assert_eq!(curve[0][0], "step,images,loss,psnr_db");
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
    let figure = |text: &str| -> f64 { text.trim()["psnr_db ".len()..].parse().unwrap() };
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
