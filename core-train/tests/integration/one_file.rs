//! `--model file.safetensors`: one-file checkpoints in the original layout, with the tensors that
//! core-model's table of their keys lists.

use std::path::{Path, PathBuf};
use std::process::Output;

use core_model::Precision;
use core_model::checkpoint::{TensorToWrite, save_tensors};
use core_model::folder::ModelFolder;
use core_model::rng::standard_normal;

use crate::common::{model_files, short_run};

/// Key, shape, and what becomes of it.
type Row = (
    String,
    Vec<usize>,
    Option<String>,
    Option<String>,
    Option<usize>,
);

/// A file of small random numbers.
fn write(file: &Path, family: &str, seed: u64) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = crates.join("core-model/tests/fixtures/original-layout");
    let table = std::fs::read_to_string(table.join(format!("{family}.json"))).unwrap();
    let rows: Vec<Row> = serde_json::from_str(&table).unwrap();
    let mut tensors: Vec<TensorToWrite> = Vec::new();
    for (name, shape, ..) in rows {
        if tensors.iter().all(|tensor| tensor.name != name) {
            let len = shape.iter().product();
            let normal = standard_normal(seed, &name, 0, len);
            tensors.push(TensorToWrite {
                name,
                shape,
                values: normal.into_iter().map(|x| 0.05 * x).collect(),
            });
        }
    }
    save_tensors(file, tensors, Precision::Float16, &[]).unwrap();
}

/// `core-train` with a cache of its own.
fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    command.current_dir(folder);
    command.env("XDG_CACHE_HOME", folder.join("cache"));
    command.args(words).output().unwrap()
}

fn generate(folder: &Path, model: &str, out: &str, more: &[&str]) -> Output {
    let words = [
        "generate", "--model", model, "--prompt", "a dog", "--steps", "1", "--out", out,
    ];
    run(folder, &[&words, more].concat())
}

fn image(folder: &Path, out: &str) -> Vec<u8> {
    let image = image::open(folder.join(out).join("00000.png")).unwrap();
    image.into_rgb8().into_raw()
}

/// The model folders in the cache.
fn made(folder: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(folder.join("cache/core/checkpoints")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    }
}

fn assert_success(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_one_file_checkpoint_draws_what_its_folder_draws() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(&at.join("file.safetensors"), "sd1", 0);
    assert_success(&generate(at, "file.safetensors", "a", &[]));
    assert_eq!(made(at).len(), 1);
    let import = ["model", "import", "file.safetensors", "model"];
    assert_success(&run(at, &import));
    assert_success(&generate(at, "model", "b", &[]));
    assert_eq!(image(at, "a"), image(at, "b"));
    let inspected = run(at, &["model", "inspect", "file.safetensors"]);
    assert_success(&inspected);
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(text.contains("Stable Diffusion 1.x"), "{text}");
    // Once is enough, until the file changes.
    assert_success(&generate(at, "file.safetensors", "c", &[]));
    assert_eq!(made(at).len(), 1);
    write(&at.join("file.safetensors"), "sd1", 1);
    assert_success(&generate(at, "file.safetensors", "d", &[]));
    assert_eq!(made(at).len(), 2);
    assert_ne!(image(at, "a"), image(at, "d"));
}

#[test]
fn a_run_trains_from_a_one_file_checkpoint_and_generates_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(&at.join("file.safetensors"), "sd1", 0);
    short_run(at, "file.safetensors");
    assert_success(&run(at, &["train", "run.toml", "--output", "out"]));
    let metrics = std::fs::read_to_string(at.join("out/metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 3);
    assert!(!at.join("out.partial").exists());
    // The digests are those of the folder that the file became.
    let [made] = &made(at)[..] else {
        panic!("one folder for one file")
    };
    let digests = ModelFolder::new(made).digests().unwrap().clone();
    assert_eq!(model_files(&at.join("out")), digests);
    let words = [
        "generate",
        "--run",
        "out",
        "--prompt",
        "a <robot>",
        "--steps",
        "1",
        "--out",
        "images",
    ];
    assert_success(&run(at, &words));
    assert!(!image(at, "images").is_empty());
}

#[test]
fn what_a_file_of_2x_predicts_must_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(&at.join("file.safetensors"), "sd2", 0);
    let refused = generate(at, "file.safetensors", "a", &[]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("--prediction-type"), "{text}");
    assert!(made(at).is_empty());
    for prediction in ["epsilon", "v_prediction"] {
        let more = ["--prediction-type", prediction];
        assert_success(&generate(at, "file.safetensors", prediction, &more));
    }
    assert_ne!(image(at, "epsilon"), image(at, "v_prediction"));
    // A folder says it itself.
    let model = made(at).swap_remove(0);
    let more = ["--prediction-type", "epsilon"];
    let refused = generate(at, model.to_str().unwrap(), "b", &more);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("scheduler_config.json"), "{text}");
}
