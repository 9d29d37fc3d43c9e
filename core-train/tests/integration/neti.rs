//! NeTI against PyTorch (fixtures from `generate_fixtures/neti.py`), and what its runs can do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use core_model::Precision;
use core_model::checkpoint::{TensorToWrite, save_tensors};
use core_model::folder::ModelFolder;
use core_train::run::folder::Unfinished;
use core_train::{Run, RunConfig, RunOptions};
use serde::Deserialize;

use crate::common::{
    Drawing, assert_close, check_metrics, draw, facts, fixture, fixture_of, open, photos, read,
    train, train_step_by_step, write,
};

#[derive(Deserialize)]
struct Facts {
    steps: usize,
    batch_size: usize,
    super_category: String,
    prompt: String,
    drawn: String,
    hidden: usize,
    frequencies: usize,
    time_anchors: usize,
    truncation: usize,
    sampling_steps: usize,
    guidance_scale: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    bypass: serde_json::Value,
    nested_dropout: f64,
    max_grad_norm: Option<f64>,
    learning_rate: f64,
    target_norm: f32,
    metrics: Vec<BTreeMap<String, f64>>,
}

fn file(name: &str) -> PathBuf {
    fixture_of("neti", name)
}

impl Facts {
    fn load() -> Self {
        facts("neti")
    }

    fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap()
    }

    fn toml(&self, case: &Case, images: &str, steps: usize) -> String {
        let clip = case
            .max_grad_norm
            .map(|norm| format!("[stages.optimizer]\nmax_grad_norm = {norm}\n"));
        format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = {images:?}\n\
             super_category = {:?}\n[[stages]]\n\
             train = [{{ kind = \"neti\", hidden = {}, frequencies = {}, time_anchors = {}, \
             nested_dropout = {:?}, bypass = {} }}]\nsteps = {steps}\n\
             batch_size = {}\nlearning_rate = {}\nprompts = [{:?}]\n{}",
            fixture("model"),
            self.super_category,
            self.hidden,
            self.frequencies,
            self.time_anchors,
            case.nested_dropout,
            case.bypass,
            self.batch_size,
            case.learning_rate,
            self.prompt,
            clip.unwrap_or_default(),
        )
    }

    fn drawing<'a>(&self, prompt: &'a str, latents: &'a Path) -> Drawing<'a> {
        Drawing {
            prompt,
            steps: self.sampling_steps,
            guidance_scale: self.guidance_scale,
            init_latents: latents,
        }
    }

    fn check(&self, name: &str) {
        let case = self.case(name);
        let folder = tempfile::tempdir().unwrap();
        let text = self.toml(case, "absent", self.steps);
        let config = write(folder.path(), "run.toml", &text);
        let output = folder.path().join("out");
        train(&config, &output, Some(&file("replay.safetensors")));
        check_metrics(&output, &case.metrics);

        let (start, expected) = (
            open(&file("replay.safetensors")),
            open(&file("final.safetensors")),
        );
        let found = open(&output.join("neti.safetensors"));
        assert_eq!(found.keys().count(), 13);
        for key in found.keys() {
            match key {
                "neti.encoder.w" => {
                    assert_eq!(read(&found, key), read(&start, &format!("init.{key}")));
                }
                _ => assert_close(
                    &read(&found, key),
                    &read(&expected, &format!("{name}/{key}")),
                    key,
                ),
            }
        }
        let metadata = found.metadata();
        assert_eq!(metadata["placeholder_token"], "<robot>");
        assert_eq!(metadata["super_category"], self.super_category);
        assert_eq!(metadata["base_model"], "model");
        assert_eq!(
            (
                metadata["layers"].as_str(),
                metadata["time_anchors"].as_str()
            ),
            ("4", "3")
        );
        assert_eq!(metadata["bypass"], case.bypass.to_string());
        let norm: f32 = metadata["target_norm"].parse().unwrap();
        assert!((norm / case.target_norm - 1.0).abs() < 1e-5);
        assert!(!output.join("learned_embeds.safetensors").exists());
        assert!(!output.join("unet").exists() && !output.join("text_encoder").exists());

        let (prompt, latents) = (
            self.drawn.replace("{}", "<robot>"),
            file("final.safetensors"),
        );
        let drawing = self.drawing(&prompt, &latents);
        let drawn = draw(&output, &drawing, &[]);
        assert_close(
            &drawn,
            &read(&expected, &format!("{name}/drawn")),
            "latents",
        );
        let kept = self.truncation.to_string();
        let truncated = draw(&output, &drawing, &["--truncation", &kept]);
        assert_close(
            &truncated,
            &read(&expected, &format!("{name}/truncated")),
            "truncated latents",
        );
        let all = self.hidden.to_string();
        assert_eq!(
            draw(&output, &drawing, &["--truncation", &all]),
            drawn,
            "all units are kept"
        );
    }
}

#[test]
fn a_mapper_with_bypass_and_nested_dropout_equals_pytorch() {
    Facts::load().check("bypass");
}

#[test]
fn a_mapper_without_bypass_and_dropout_and_with_clipping_equals_pytorch() {
    Facts::load().check("no-bypass");
}

/// Two stages on photos with images during training: the mapper with accumulation and dropout, then
/// all weights of the U-Net with the mapper at rest.
fn two_stages(folder: &Path) -> PathBuf {
    let facts = Facts::load();
    photos(&folder.join("photos"));
    let first = facts.toml(facts.case("bypass"), "photos", 3);
    let first = first.replace(
        "[[stages]]",
        "[validation]\nevery = 2\nprompts = [\"a {} on the beach\"]\n[[stages]]\n\
         gradient_accumulation_steps = 2",
    );
    let second = "[[stages]]\nname = \"unet\"\ntrain = [\"unet\"]\nsteps = 2\nbatch_size = 1\n\
                  learning_rate = 1e-4\nprompts = [\"a photo of a {}\"]\n";
    write(folder, "run.toml", &format!("{first}{second}"))
}

#[test]
fn a_mapper_resumes_to_the_same_bytes_in_every_stage() {
    let folder = tempfile::tempdir().unwrap();
    let path = two_stages(folder.path());
    let whole = folder.path().join("whole");
    train(&path, &whole, None);
    let parts = folder.path().join("parts");
    assert_eq!(train_step_by_step(&path, &parts), 5);
    for name in [
        "metrics.csv",
        "neti.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "validation/stage-1-00002-00.png",
        "validation/unet-00002-00.png",
    ] {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(bytes(&parts), bytes(&whole), "{name}");
    }
}

#[test]
fn only_the_mapper_moves_and_not_its_frequencies() {
    let facts = Facts::load();
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let digests = || {
        let model = ModelFolder::new(fixture("model"));
        model.digests().unwrap().clone()
    };
    let before = digests();
    let trained = |steps: usize| {
        let text = facts.toml(facts.case("bypass"), "photos", steps);
        let name = format!("{steps}");
        let config = write(folder.path(), &format!("{name}.toml"), &text);
        let output = folder.path().join(name);
        train(&config, &output, None);
        output
    };
    let (one, two) = (trained(1), trained(2));
    assert_eq!(digests(), before, "the model folder is only read");
    let [a, b] = [&one, &two].map(|output| open(&output.join("neti.safetensors")));
    for key in a.keys() {
        let moved = read(&a, key) != read(&b, key);
        assert_eq!(moved, key != "neti.encoder.w", "{key}");
    }
    // The networks that a run draws with are the base model's.
    let run = Run::open(&two).unwrap();
    let base = run.base_model("cpu").unwrap();
    let model = run.pipeline(&base).unwrap().model;
    let of_networks = |name: &str| !name.starts_with("neti.");
    let ours = model.tensors(of_networks);
    let theirs = base.pipeline.model.tensors(of_networks);
    assert!(ours.len() == theirs.len() && ours.len() > 100);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.name, theirs.name);
        assert!(ours.values == theirs.values, "{}", ours.name);
    }
}

fn program(words: &[&str]) -> (bool, String) {
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    let output = program.args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn what_a_run_with_a_mapper_cannot_do_is_said_and_what_it_costs_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = two_stages(folder.path());
    let output = folder.path().join("out");
    train(&path, &output, None);
    let (run, path) = (output.to_str().unwrap(), path.to_str().unwrap());
    let exported = folder.path().join("exported");
    let (success, said) = program(&["export", run, exported.to_str().unwrap()]);
    assert!(
        !success && said.contains("neti") && said.contains("generate --run"),
        "{said}"
    );
    assert!(!exported.exists());
    let images = folder.path().join("images");
    let images = images.to_str().unwrap();
    let prompt = "a photo of a <robot>";
    let generate = [
        "generate", "--run", run, "--prompt", prompt, "--out", images,
    ];
    let (success, said) = program(&[&generate[..], &["--truncation", "13"]].concat());
    assert!(
        !success && said.contains("--truncation") && said.contains("12"),
        "{said}"
    );
    let (success, said) = program(&[&generate[..], &["--optimize-steps", "1"]].concat());
    assert!(
        !success && said.contains("`neti`") && said.contains("test-time optimisation"),
        "{said}"
    );
    assert!(!Path::new(images).exists());
    let (success, said) = program(&["train", path, "--output", "absent", "--dry-run"]);
    assert!(success, "{said}");
    for part in ["trains neti", "s per step", "peak memory"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A file of another model, and one without its constants.
    let file = output.join("neti.safetensors");
    let found = open(&file);
    let tensors = || {
        let tensor = |key: &str| {
            let (values, shape) = found.read_f32(key).unwrap().unwrap();
            TensorToWrite {
                name: key.to_string(),
                shape,
                values,
            }
        };
        found.keys().map(tensor).collect::<Vec<_>>()
    };
    for (key, value, part) in [
        ("layers", "16", "another base model"),
        ("layers", "four", "number"),
    ] {
        let mut metadata = found.metadata().clone();
        metadata.insert(key.into(), value.into());
        let pairs: Vec<_> = metadata
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        save_tensors(&file, tensors(), Precision::Float32, &pairs).unwrap();
        let (success, said) = program(&generate);
        assert!(
            !success && said.contains(part) && said.contains("neti.safetensors"),
            "{said}"
        );
    }
}

#[test]
fn what_a_mapper_cannot_be_combined_with_is_refused_by_key() {
    let facts = Facts::load();
    let folder = tempfile::tempdir().unwrap();
    let text = facts.toml(facts.case("bypass"), "absent", 5);
    let path = write(folder.path(), "run.toml", &text);
    for (set, parts) in [
        ("concept.num_vectors=2", ["num_vectors", "neti"]),
        ("rare_token='red'", ["rare_token", "leave one of them out"]),
        (
            "stages.0.train=['neti','embedding']",
            ["stages.0.train", "`embedding`"],
        ),
        (
            "stages.0.regularizers=[{kind='embedding_anchor'}]",
            ["regularizers", "`embedding_anchor`"],
        ),
        (
            "stages.0.rescale={from=1,to=2}",
            ["stages.0.rescale", "does not train"],
        ),
        ("stages.0.train.0.hidden=0", ["neti.hidden", "at least 1"]),
        (
            "stages.0.train.0.time_anchors=1001",
            ["neti.time_anchors", "1000"],
        ),
        (
            "stages.0.train.0.nested_dropout=1.5",
            ["neti.nested_dropout", "probability"],
        ),
        ("stages.0.train.0.bypass=true", ["bypass", "false"]),
        ("stages.0.train.0.bypass=0.0", ["neti.bypass", "above 0"]),
        ("stages.0.train.0.sigma_t=-1.0", ["neti.sigma_t", "above 0"]),
        ("stages.0.train=['neti','neti']", ["both train", "neti."]),
    ] {
        let run = || -> Result<(), core_train::Error> {
            let config = RunConfig::load(&path, &[set.to_string()])?;
            let output = folder.path().join("out");
            let options = RunOptions {
                output: &output,
                scratch: None,
                unfinished: Unfinished::Refuse,
                replay: Some(&file("replay.safetensors")),
                stop: &AtomicBool::new(false),
                keep_state: false,
                show_progress: false,
            };
            core_train::run(&config, &options).map(|_| ())
        };
        let message = run().unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{set}: {message}");
        }
    }
    assert!(
        std::fs::read_dir(folder.path()).unwrap().count() == 1,
        "nothing is written"
    );
}

/// A copy of the replay file with another content.
fn replay(folder: &Path, change: impl Fn(&str, &mut TensorToWrite)) -> PathBuf {
    let replay = open(&file("replay.safetensors"));
    let keys = replay
        .keys()
        .filter(|key| !["timesteps", "template_index", "truncation"].contains(key));
    let tensors = keys.map(|key| {
        let (values, shape) = replay.read_f32(key).unwrap().unwrap();
        let mut tensor = TensorToWrite {
            name: key.to_string(),
            shape,
            values,
        };
        change(key, &mut tensor);
        tensor
    });
    let path = folder.join("changed.safetensors");
    save_tensors(&path, tensors.collect(), Precision::Float32, &[]).unwrap();
    path
}

#[test]
fn a_replay_without_truncations_or_with_start_values_of_nothing_is_refused() {
    let facts = Facts::load();
    let folder = tempfile::tempdir().unwrap();
    let text = facts.toml(facts.case("bypass"), "absent", facts.steps);
    let path = write(folder.path(), "run.toml", &text);
    let message = |replay: &Path| {
        let config = RunConfig::load(&path, &[]).unwrap();
        let options = RunOptions {
            output: &folder.path().join("out"),
            scratch: None,
            unfinished: Unfinished::Refuse,
            replay: Some(replay),
            stop: &AtomicBool::new(false),
            keep_state: false,
            show_progress: false,
        };
        core_train::run(&config, &options).unwrap_err().to_string()
    };
    let unknown = replay(folder.path(), |key, tensor| {
        if key == "init.neti.net.1.bias" {
            tensor.name = "init.neti.net.3.bias".into();
        }
    });
    let said = message(&unknown);
    assert!(
        said.contains("init.neti.net.3.bias") && said.contains("no set"),
        "{said}"
    );
    let misshapen = replay(folder.path(), |key, tensor| {
        if key == "init.neti.net.1.bias" {
            tensor.shape = vec![1, tensor.values.len()];
        }
    });
    let said = message(&misshapen);
    assert!(
        said.contains("neti.net.1.bias") && said.contains("[12]"),
        "{said}"
    );
    // The replay of the trajectories of other methods has no truncations.
    let said = message(&fixture("replay.safetensors"));
    assert!(
        said.contains("`truncation`") && said.contains("[12, 4, 2]"),
        "{said}"
    );
    assert!(!folder.path().join("out.partial").exists());
}
