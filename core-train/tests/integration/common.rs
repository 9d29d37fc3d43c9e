//! Runs of the program's own trainer on the tiny checkpoint of `fixtures/trajectory`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use core_model::checkpoint::Checkpoint;
use core_train::run::folder::Unfinished;
use core_train::{Error, Run, RunConfig, RunOptions};
use serde::de::DeserializeOwned;

/// A file of `fixtures/trajectory`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    fixture_of("trajectory", name)
}

/// A file of another folder of fixtures.
pub(crate) fn fixture_of(folder: &str, name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(folder).join(name)
}

/// What the script of a folder of fixtures has recorded of its cases.
pub(crate) fn facts<T: DeserializeOwned>(folder: &str) -> T {
    let text = std::fs::read_to_string(fixture_of(folder, "cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A file with tensors, under its own keys.
pub(crate) fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, |key| Some(key.to_string())).unwrap_or_else(|error| panic!("{error}"))
}

/// Writes a text file and returns its path.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Trains to the end.
pub(crate) fn train(config: &Path, output: &Path, replay: Option<&Path>) {
    let mut config = RunConfig::load(config, &[]).unwrap_or_else(|error| panic!("{error}"));
    if let Ok(device) = std::env::var("CORE_TEST_DEVICE") {
        config.device = device;
    }
    let options = RunOptions {
        output,
        scratch: None,
        unfinished: Unfinished::Refuse,

        replay,
        stop: &AtomicBool::new(false),
        keep_state: false,
        show_progress: false,
    };
    core_train::run(&config, &options).unwrap_or_else(|error| panic!("{error}"));
}

/// Trains to the end, stopped and continued after every single step; how often it was stopped.
pub(crate) fn train_step_by_step(config: &Path, output: &Path) -> usize {
    let run = RunConfig::load(config, &[]).unwrap_or_else(|error| panic!("{error}"));
    let options = RunOptions {
        output,
        scratch: None,
        unfinished: Unfinished::Resume,
        replay: None,
        stop: &AtomicBool::new(true),
        keep_state: false,
        show_progress: false,
    };
    let mut stops = 0;
    while let Err(error) = core_train::run(&run, &options) {
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        assert!(error.to_string().contains("--resume"), "{error}");
        assert!(
            !output.exists(),
            "an unfinished run has the name of a complete one"
        );
        stops += 1;
    }
    stops
}

/// A file for two steps on three small photos, with this model.
pub(crate) fn short_run(folder: &Path, model: &str) -> PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "[model]\npath = {model:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"dog\"\n[[stages]]\ntrain = [\"embedding\"]\nsteps = 2\n\
         batch_size = 1\nlearning_rate = 1e-2\nprompts = [\"a photo of a {{}}\"]\n"
    );
    write(folder, "run.toml", &text)
}

/// The digests of model files in a run's `environment.json`.
pub(crate) fn model_files(run: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(run.join("environment.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(environment["model_files"].clone()).unwrap()
}

/// Three small photos.
pub(crate) fn photos(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..3_u8 {
        let pixel = |x: u32, y: u32| {
            let wave = (x * (3 + u32::from(number)) + y * 5) % 256;
            image::Rgb([wave as u8, 90 * number, 255 - wave as u8])
        };
        let photo = image::RgbImage::from_fn(48, 40, pixel);
        photo.save(folder.join(format!("{number}.png"))).unwrap();
    }
}

/// How far a trajectory may be from PyTorch's, relative to the largest value.
pub(crate) const TOLERANCE: f64 = 1e-3;

/// A network, `unet` or `text_encoder`, as a run is opened with it, by the keys of its checkpoint.
pub(crate) fn network(run: &Path, part: &str) -> BTreeMap<String, Vec<f32>> {
    let run = Run::open(run).unwrap_or_else(|error| panic!("{error}"));
    let base = run.base_model("cpu").unwrap();
    let pipeline = run
        .pipeline(&base)
        .unwrap_or_else(|error| panic!("{error}"));
    let prefix = format!("{part}.");
    let tensors = pipeline.model.tensors(|name| name.starts_with(&prefix));
    let tensors = tensors.into_iter();
    tensors
        .map(|tensor| (tensor.name[prefix.len()..].to_string(), tensor.values))
        .collect()
}

/// The values of a tensor that a file must have.
pub(crate) fn read(file: &Checkpoint, key: &str) -> Vec<f32> {
    let found = file.read_f32(key).unwrap();
    found.unwrap_or_else(|| panic!("{key}")).0
}

/// Fails unless all values are within [`TOLERANCE`] of what PyTorch computed.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    distance(found, expected, what);
}

/// The largest difference, relative to the largest value, which must be within [`TOLERANCE`].
pub(crate) fn distance(found: &[f32], expected: &[f32], what: &str) -> f64 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let off = f64::from(differences.fold(0.0_f32, f32::max) / largest);
    assert!(found.iter().all(|x| x.is_finite()), "{what}");
    assert!(off < TOLERANCE, "{what}: off by {off}");
    off
}

/// Fails unless `metrics.csv` says in every row what PyTorch computed, which is at least one number;
/// the largest relative difference.
pub(crate) fn check_metrics(output: &Path, expected: &[BTreeMap<String, f64>]) -> f64 {
    let mut reader = csv::Reader::from_path(output.join("metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), expected.len());
    let mut worst = 0.0_f64;
    for (record, expected) in records.iter().zip(expected) {
        assert!(!expected.is_empty());
        for (key, expected) in expected {
            let column = header.iter().position(|name| name == key).unwrap();
            let found: f64 = record[column].parse().unwrap();
            let off = (found - expected).abs() / expected.abs().max(1e-9);
            let step = &record[1];
            assert!(
                off < TOLERANCE,
                "step {step}, {key}: {found}, not {expected}"
            );
            worst = worst.max(off);
        }
    }
    worst
}

/// What `generate` is to draw.
pub(crate) struct Drawing<'a> {
    /// The whole prompt.
    pub(crate) prompt: &'a str,
    /// Denoising steps.
    pub(crate) steps: usize,
    /// Strength of the prompt.
    pub(crate) guidance_scale: f64,
    /// A file with the initial noise of two images.
    pub(crate) init_latents: &'a Path,
}

/// The latents that `generate --run` draws, with these further arguments.
pub(crate) fn draw(run: &Path, drawing: &Drawing<'_>, further: &[&str]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let latents = folder.path().join("latents.safetensors");
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program
        .arg("generate")
        .arg("--run")
        .arg(run)
        .args(["--num-images", "2", "--prompt", drawing.prompt])
        .args(["--steps", &drawing.steps.to_string()])
        .args(["--guidance-scale", &drawing.guidance_scale.to_string()])
        .arg("--init-latents")
        .arg(drawing.init_latents)
        .arg("--save-latents")
        .arg(&latents)
        .arg("--out")
        .arg(folder.path().join("images"))
        .args(further)
        .assert()
        .success();
    read(&open(&latents), "latents")
}
