//! Files of Custom Diffusion: those of diffusers and of the authors are read, and a run is written as
//! they are (fixtures from `generate_fixtures/custom_diffusion_files.py`).

use std::path::{Path, PathBuf};
use std::process::Output;

use core_model::Precision;
use core_model::checkpoint::{TensorToWrite, save_tensors};

use crate::common::{fixture, fixture_of, open, photos, read, train, write};

/// As far as drawing may be from diffusers', relative to the largest value.
const TOLERANCE: f32 = 1e-4;

fn files(name: &str) -> PathBuf {
    fixture_of("custom_diffusion_files", name)
}

fn program(arguments: &[&str]) -> Output {
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program.args(arguments).output().unwrap()
}

/// Latents that are drawn with these networks, or what the program says.
fn draw(source: &[&str], prompt: &str) -> Result<Vec<f32>, String> {
    let folder = tempfile::tempdir().unwrap();
    let latents = folder.path().join("latents.safetensors");
    let (init, out) = (files("expected.safetensors"), folder.path().join("out"));
    let [init, saved, out] = [&init, &latents, &out].map(|path| path.to_str().unwrap());
    let mut arguments = vec!["generate", "--prompt", prompt, "--steps", "4"];
    arguments.extend(["--guidance-scale", "3", "--init-latents", init]);
    arguments.extend(["--save-latents", saved, "--out", out]);
    arguments.extend(source);
    let output = program(&arguments);
    match output.status.success() {
        true => Ok(read(&open(&latents), "latents")),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn draw_with(unet: &Path, embedding: &Path) -> Result<Vec<f32>, String> {
    let model = fixture("model");
    let [model, unet, embedding] = [&model, unet, embedding].map(|path| path.to_str().unwrap());
    let source = ["--model", model, "--unet", unet, "--embedding", embedding];
    draw(&source, "a photo of a <new1> dog")
}

fn difference(one: &[f32], other: &[f32]) -> f32 {
    let largest = other.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let pairs = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    pairs.fold(0.0_f32, f32::max) / largest
}

#[test]
fn files_of_diffusers_and_of_the_authors_draw_what_diffusers_draws() {
    let expected = open(&files("expected.safetensors"));
    let weights = "pytorch_custom_diffusion_weights";
    let token = files("keys-and-values/<new1>.bin");
    for (unet, embedding, case) in [
        (
            format!("keys-and-values/{weights}.safetensors"),
            &token,
            "keys-and-values",
        ),
        (
            format!("keys-and-values/{weights}.bin"),
            &token,
            "keys-and-values",
        ),
        ("keys-and-values".into(), &token, "keys-and-values"),
        (format!("all/{weights}.safetensors"), &token, "all"),
        (format!("all/{weights}.bin"), &token, "all"),
        ("delta.bin".into(), &files("delta.bin"), "keys-and-values"),
        (
            "delta-compressed.bin".into(),
            &files("delta.bin"),
            "keys-and-values",
        ),
    ] {
        let latents = draw_with(&files(&unet), embedding).unwrap();
        let expected = read(&expected, case);
        let off = difference(&latents, &expected);
        assert!(off < TOLERANCE, "{unet}: off by {off}");
    }
}

#[test]
fn files_that_are_incomplete_or_hold_anything_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let token = files("keys-and-values/<new1>.bin");
    let file = open(&files(
        "keys-and-values/pytorch_custom_diffusion_weights.safetensors",
    ));
    let changed = |name: &str, change: &dyn Fn(&mut Vec<TensorToWrite>)| {
        let mut tensors: Vec<_> = file
            .keys()
            .map(|key| {
                let (values, shape) = file.read_f32(key).unwrap().unwrap();
                let name = key.to_string();
                TensorToWrite {
                    name,
                    shape,
                    values,
                }
            })
            .collect();
        change(&mut tensors);
        let path = folder.path().join(name);
        save_tensors(&path, tensors, Precision::Float32, &[]).unwrap();
        path
    };
    let nothing = folder.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    for (path, parts) in [
        (
            changed("lacks.safetensors", &|tensors| drop(tensors.remove(0))),
            &["lacks `down_blocks.0", "incomplete"][..],
        ),
        (
            changed("lora.safetensors", &|tensors| {
                tensors[0].name = "unet.down_blocks.0.lora_A.weight".into();
            }),
            &["lora_A", "Custom Diffusion"],
        ),
        (
            changed("other.safetensors", &|tensors| {
                let name = tensors[0].name.replace("down_blocks.0", "down_blocks.3");
                tensors[0].name = name;
            }),
            &["down_blocks.3", "another model"],
        ),
        (
            changed("wide.safetensors", &|tensors| {
                tensors[0].shape = vec![4, 32];
            }),
            &["[4, 32]", "[8, 16]"],
        ),
        (
            changed("nan.safetensors", &|tensors| {
                tensors[0].values[0] = f32::NAN
            }),
            &["NaN"],
        ),
        (files("delta-text-encoder.bin"), &["text encoder"]),
        (
            fixture("replay.safetensors"),
            &["latents", "Custom Diffusion"],
        ),
        (nothing, &["config.json"]),
        (folder.path().join("absent.bin"), &["absent.bin"]),
    ] {
        let message = draw_with(&path, &token).unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{}: {message}", path.display());
        }
    }
}

/// A run that trains these sets.
fn run(folder: &Path, sets: &str) -> PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "phrase = \"{{token}} {{class}}\"\n[model]\npath = {:?}\n[concept]\nname = \"robot\"\n\
         images = \"photos\"\nsuper_category = \"dog\"\n[[stages]]\ntrain = [{sets}]\nsteps = 2\n\
         batch_size = 1\nlearning_rate = 1e-2\nprompts = [\"a {{}}\"]\n",
        fixture("model")
    );
    let config = write(folder, "run.toml", &text);
    let output = folder.join("out");
    train(&config, &output, None);
    output
}

#[test]
fn an_exported_run_draws_what_the_run_draws() {
    for (sets, tensors) in [
        ("\"embedding\", \"cross_attention_kv\"", 8),
        ("\"embedding\", \"cross_attention\"", 20),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), sets);
        let out = folder.path().join("exported");
        let [run, exported] = [&run, &out].map(|path| path.to_str().unwrap());
        let export = program(&["export", run, exported, "--format", "custom-diffusion"]);
        assert!(export.status.success(), "{export:?}");
        let prompt = "a photo of a <robot> dog";
        let of_run = draw(&["--run", run], prompt).unwrap();
        let (model, token) = (fixture("model"), out.join("<robot>.safetensors"));
        let [model, token] = [&model, &token].map(|path| path.to_str().unwrap());
        let source = ["--model", model, "--unet", exported, "--embedding", token];
        assert_eq!(draw(&source, prompt).unwrap(), of_run);
        assert_ne!(
            draw(&["--model", model, "--embedding", token], prompt).unwrap(),
            of_run
        );
        let file = open(&out.join("pytorch_custom_diffusion_weights.safetensors"));
        let weights = file.keys().filter(|key| key.contains("_custom_diffusion."));
        assert_eq!(weights.count(), tensors);
        let shape = &open(Path::new(token))
            .info("<robot>")
            .unwrap()
            .shape
            .clone();
        assert_eq!(shape, &[16]);
    }
}

#[test]
fn runs_that_the_format_cannot_hold_are_refused_and_nothing_is_written() {
    for (sets, part) in [
        ("\"unet\"", "`unet`"),
        ("\"embedding\", \"text_encoder\"", "`text_encoder`"),
        ("\"embedding\", { kind = \"lora\", rank = 2 }", "`lora`"),
        ("\"embedding\"", "no weight of cross-attention"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), sets);
        let out = folder.path().join("exported");
        let [run, exported] = [&run, &out].map(|path| path.to_str().unwrap());
        let output = program(&["export", run, exported, "--format", "custom-diffusion"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains(part),
            "{sets}: {message}"
        );
        assert!(!out.exists());
    }
}
