//! `core-train generate` on the tiny folder whose results diffusers computed; see
//! `core-model/tests/generate_fixtures/pipeline.py`.

use std::fs;
use std::path::{Path, PathBuf};

use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use tempfile::TempDir;

const PROMPT: &str = "a photo of a <robot> on the red beach";

pub(crate) fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join("core-model/tests/fixtures/pipeline").join(name)
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// A command line with an output folder of its own.
pub(crate) struct Command {
    dir: TempDir,
    words: Vec<String>,
}

impl Command {
    pub(crate) fn new(words: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Self {
            dir,
            words: vec!["generate".into()],
        };
        let out = command.path("images");
        command.words.extend(["--out".to_string(), text(&out)]);
        command.with(words)
    }

    /// On the tiny model with its concept.
    pub(crate) fn on_model(words: &[&str]) -> Self {
        let (model, concept) = (text(&fixture("model")), text(&fixture("robot.safetensors")));
        Self::new(&["--model", &model, "--embedding", &concept]).with(words)
    }

    pub(crate) fn with(mut self, words: &[&str]) -> Self {
        self.words
            .extend(words.iter().map(|word| (*word).to_string()));
        self
    }

    pub(crate) fn with_file(self, flag: &str, name: &str) -> Self {
        let path = text(&self.path(name));
        self.with(&[flag, &path])
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the program says when it fails.
    pub(crate) fn run(&self) -> Result<(), String> {
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        let result = program.args(&self.words).output().unwrap();
        match result.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8(result.stderr).unwrap()),
        }
    }

    pub(crate) fn error(&self) -> String {
        self.run().unwrap_err()
    }

    pub(crate) fn images(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("images")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn latents(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        read(&self.path(name), "latents")
    }
}

fn read(path: &Path, key: &str) -> (Vec<f32>, Vec<usize>) {
    let file = Checkpoint::open(path, |key| Some(key.to_string())).unwrap();
    file.read_f32(key).unwrap().unwrap()
}

pub(crate) fn write(path: &Path, key: &str, values: Vec<f32>, shape: &[usize]) {
    let tensor = TensorToWrite {
        name: key.into(),
        shape: shape.to_vec(),
        values,
    };
    save_tensors(path, vec![tensor], Precision::Float32, &[]).unwrap();
}

fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(0.0, |a, b| f32::max(a, b.abs()));
    for (x, y) in ours.iter().zip(theirs) {
        assert!((x - y).abs() < 1e-4 * scale, "{x} {y}");
    }
}

#[test]
fn latents_and_images_agree_with_diffusers() {
    let command = Command::on_model(&["--prompt", PROMPT, "--negative-prompt", "blue car"])
        .with(&["--num-images", "2", "--steps", "10", "--scheduler", "ddim"])
        .with_file("--init-latents", "noise.safetensors")
        .with_file("--save-latents", "latents.safetensors");
    let expected = fixture("expected.safetensors");
    let (noise, shape) = read(&expected, "latents");
    write(&command.path("noise.safetensors"), "latents", noise, &shape);
    command.run().unwrap();

    let (ours, found_shape) = command.latents("latents.safetensors");
    assert_eq!(found_shape, shape);
    assert_close(&ours, &read(&expected, "final.ddim").0);
    assert_eq!(command.images(), ["00000.png", "00001.png"]);
    let (pixels, _) = read(&expected, "image");
    let images = ["00000.png", "00001.png"].map(|name| {
        image::open(command.path("images").join(name))
            .unwrap()
            .into_rgb8()
            .into_raw()
    });
    let off = images
        .concat()
        .iter()
        .zip(&pixels)
        .filter(|(a, b)| f32::from(**a) != **b)
        .count();
    assert!(off <= 2, "{off} values differ");
}

#[test]
fn the_token_can_be_renamed_and_the_checkpoint_chooses_the_sampler() {
    let renamed = PROMPT.replace("<robot>", "sks");
    let command = Command::on_model(&["--placeholder-token", "sks", "--prompt", &renamed])
        .with(&[
            "--negative-prompt",
            "blue car",
            "--num-images",
            "2",
            "--steps",
            "10",
        ])
        .with_file("--init-latents", "noise.safetensors")
        .with_file("--save-latents", "latents.safetensors");
    let expected = fixture("expected.safetensors");
    let (noise, shape) = read(&expected, "latents");
    write(&command.path("noise.safetensors"), "latents", noise, &shape);
    command.run().unwrap();
    assert_close(
        &command.latents("latents.safetensors").0,
        &read(&expected, "final.pndm").0,
    );
}

#[test]
fn noise_depends_on_seed_and_image_number_only() {
    let draw = |words: &[&str]| {
        let command = Command::on_model(&["--prompt", "a red <robot>", "--steps", "2"])
            .with(words)
            .with_file("--save-latents", "latents.safetensors");
        command.run().unwrap();
        (command.latents("latents.safetensors").0, command.images())
    };
    let (one, images) = draw(&[]);
    assert_eq!(images, ["00000.png"]);
    let (nine, images) = draw(&["--num-images", "9", "--seed", "0"]);
    assert_eq!(images.len(), 9);
    assert_eq!(nine[..one.len()], one);
    assert_ne!(nine[..one.len()], nine[one.len()..2 * one.len()]);
    assert_eq!(draw(&["--seed", "1"]), draw(&["--seed", "1"]));
    assert_ne!(draw(&["--seed", "1"]).0, one);
}

#[test]
fn a_run_folder_brings_model_concept_and_tuned_network() {
    let words = ["--prompt", PROMPT, "--steps", "2", "--seed", "3"];
    let plain = Command::on_model(&words).with_file("--save-latents", "latents.safetensors");
    plain.run().unwrap();
    let of_run = |config: &str, tuned: bool| {
        let command = Command::new(&words)
            .with_file("--run", "run")
            .with_file("--save-latents", "latents.safetensors");
        let run = command.path("run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("config.toml"), config).unwrap();
        fs::copy(
            fixture("robot.safetensors"),
            run.join("learned_embeds.safetensors"),
        )
        .unwrap();
        if tuned {
            fs::create_dir(run.join("unet")).unwrap();
            for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
                fs::copy(
                    fixture("model/unet").join(name),
                    run.join("unet").join(name),
                )
                .unwrap();
            }
        }
        command
            .run()
            .map(|()| command.latents("latents.safetensors"))
    };
    let config = |model: &str, tuned: bool| {
        let train = if tuned { "unet" } else { "embedding" };
        format!(
            "[model]\npath = {model:?}\n[concept]\nname = \"robot\"\nsuper_category = \"toy\"\n\
             [[stages]]\ntrain = [{train:?}]\nsteps = 1\nbatch_size = 1\nlearning_rate = 1e-3\n\
             prompts = [\"a {{}}\"]\n"
        )
    };
    let model = text(&fixture("model"));
    for tuned in [false, true] {
        assert_eq!(
            of_run(&config(&model, tuned), tuned).unwrap(),
            plain.latents("latents.safetensors")
        );
    }
    assert!(
        of_run("seed = 0", false)
            .unwrap_err()
            .contains("missing field `model`")
    );
    let lost = of_run(&config(&model, true), false).unwrap_err();
    assert!(lost.contains("unet") && lost.contains("missing"), "{lost}");
    assert!(
        of_run(&config("absent", false), false)
            .unwrap_err()
            .contains("model_index.json")
    );
}

#[test]
fn contradictory_and_incomplete_command_lines_are_refused() {
    let model = text(&fixture("model"));
    for (words, part) in [
        (vec!["--prompt", "x"], "--model"),
        (vec!["--model", "m", "--run", "r", "--prompt", "x"], "--run"),
        (vec!["--model", "m"], "--prompt"),
        (
            vec!["--run", "r", "--embedding", "e", "--prompt", "x"],
            "--embedding",
        ),
        (vec!["--run", "r", "--unet", "u", "--prompt", "x"], "--unet"),
        (
            vec!["--model", "m", "--prompt", "x", "--placeholder-token", "t"],
            "--embedding",
        ),
        (
            vec!["--model", "m", "--prompt", "x", "--scheduler", "lms"],
            "dpmpp-2m",
        ),
        (
            vec!["--model", "m", "--prompt", "x", "--steps", "0"],
            "at least 1",
        ),
        (
            vec!["--model", "m", "--prompt", "x", "--guidance-scale", "NaN"],
            "finite",
        ),
        (
            vec!["--model", &model, "--prompt", "x", "--steps", "1001"],
            "1000",
        ),
        (
            vec!["--model", &model, "--prompt", "x", "--device", "tpu"],
            "cuda",
        ),
    ] {
        let error = Command::new(&words).error();
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn unusable_initial_latents_are_refused_before_the_model_is_read() {
    for (key, shape, part) in [
        ("noise", vec![1, 4, 8, 8], "no tensor `latents`"),
        (
            "latents",
            vec![4, 8, 8],
            "[images, channels, height, width]",
        ),
        ("latents", vec![2, 4, 8, 8], "--num-images is 1"),
        ("latents", vec![1, 3, 8, 8], "4 channels"),
    ] {
        let command = Command::on_model(&["--prompt", "a <robot>"])
            .with_file("--init-latents", "noise.safetensors");
        let values = vec![0.5; shape.iter().product()];
        write(&command.path("noise.safetensors"), key, values, &shape);
        let error = command.error();
        assert!(error.contains(part), "{error}");
        assert!(!command.path("images").exists());
    }
}

#[test]
fn a_prompt_that_cuts_the_placeholder_is_refused() {
    let prompt = format!("{}<robot>", "red ".repeat(20));
    let error = Command::on_model(&["--prompt", &prompt]).error();
    assert!(
        error.contains("16 tokens") && error.contains("<robot>"),
        "{error}"
    );
}

#[test]
fn a_file_for_several_encoders_gives_the_vectors_of_the_right_width() {
    let prompt = ["--prompt", "a dog", "--steps", "1"];
    let command = Command::new(&["--model", &text(&fixture("model"))])
        .with(&prompt)
        .with_file("--embedding", "hero-dog.safetensors");
    let two = [("clip_l", 12), ("clip_g", 16)].map(|(name, width)| TensorToWrite {
        name: name.into(),
        shape: vec![width],
        values: vec![0.1; width],
    });
    let [first, second] = two;
    let write = |tensors: Vec<TensorToWrite>| {
        save_tensors(
            &command.path("hero-dog.safetensors"),
            tensors,
            Precision::Float32,
            &[],
        )
        .unwrap();
    };
    write(vec![first.clone(), second]);
    command.run().unwrap();
    write(vec![first]);
    let error = command.error();
    assert!(
        error.contains("12 values") && error.contains("16"),
        "{error}"
    );
}

#[test]
fn images_of_other_sizes_follow_the_latents() {
    let command = Command::on_model(&["--prompt", "a <robot>", "--steps", "2"])
        .with_file("--init-latents", "noise.safetensors");
    let values = (0..4 * 6 * 10).map(|i| (i as f32 * 0.7).sin()).collect();
    write(
        &command.path("noise.safetensors"),
        "latents",
        values,
        &[1, 4, 6, 10],
    );
    command.run().unwrap();
    let image = image::open(command.path("images/00000.png")).unwrap();
    assert_eq!((image.width(), image.height()), (20, 12));
}

#[test]
fn images_of_an_earlier_call_are_never_mixed_with_new_ones() {
    let command = Command::on_model(&["--prompt", "a <robot>", "--steps", "1"]);
    fs::create_dir(command.path("images")).unwrap();
    for name in ["00000.png", "00001.png", "1.png"] {
        fs::write(command.path("images").join(name), b"old").unwrap();
    }
    let message = command.error();
    assert!(message.contains("00001.png"), "{message}");
    assert!(message.contains("--out"), "{message}");
    assert_eq!(fs::read(command.path("images/00000.png")).unwrap(), b"old");
}

#[test]
fn old_images_of_the_same_name_are_replaced() {
    let command = Command::on_model(&["--prompt", "a <robot>", "--steps", "1"]);
    fs::create_dir(command.path("images")).unwrap();
    fs::write(command.path("images/00000.png"), b"old").unwrap();
    fs::write(command.path("images/notes.txt"), b"mine").unwrap();
    command.run().unwrap();
    assert!(image::open(command.path("images/00000.png")).is_ok());
    assert_eq!(command.images(), ["00000.png", "notes.txt"]);
}

/// The tiny model with its weights under another name in each part.
fn copy_as_variant(to: &Path, variant: &str) {
    for part in ["scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        let (from, to) = (fixture("model").join(part), to.join(part));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let name = name.replace(".safetensors", &format!(".{variant}.safetensors"));
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
    let index = "model_index.json";
    fs::copy(fixture("model").join(index), to.join(index)).unwrap();
}

#[test]
fn the_variant_that_was_asked_for_is_drawn_with() {
    let words = ["--prompt", "a red car", "--steps", "2"];
    let plain = Command::new(&["--model", &text(&fixture("model"))])
        .with(&words)
        .with_file("--save-latents", "final.safetensors");
    plain.run().unwrap();
    let models = tempfile::tempdir().unwrap();
    copy_as_variant(models.path(), "ema");
    let of_variant = |variant: &str| {
        Command::new(&["--model", &text(models.path()), "--variant", variant])
            .with(&words)
            .with_file("--save-latents", "final.safetensors")
    };
    let drawn = of_variant("ema");
    drawn.run().unwrap();
    assert_eq!(
        plain.latents("final.safetensors"),
        drawn.latents("final.safetensors")
    );
    let message = of_variant("fp16").error();
    assert!(
        message.contains("text_encoder") && message.contains("model.fp16.safetensors"),
        "{message}"
    );
}
