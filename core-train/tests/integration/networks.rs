//! Stages that train the text encoder, several sets of weights at their own learning rates, and
//! concepts written with a phrase, against PyTorch (fixtures from `generate_fixtures/networks.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_model::checkpoint::Checkpoint;
use core_train::{BaseModel, Run};
use serde::Deserialize;

use crate::common::{
    assert_close, check_metrics, facts, fixture, fixture_of, network, photos, read, train, write,
};

#[derive(Deserialize)]
struct Facts {
    steps: usize,
    batch_size: usize,
    super_category: String,
    prompt: String,
    templates: Vec<String>,
    weights: BTreeMap<String, f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    sets: BTreeMap<String, f64>,
    terms: Option<BTreeMap<String, f64>>,
    num_vectors: usize,
    phrase: Option<String>,
    rare_token: Option<String>,
    regularized: bool,
    max_grad_norm: Option<f64>,
    schedule: String,
    warmup: usize,
    metrics: Vec<BTreeMap<String, f64>>,
}

fn networks(name: &str) -> PathBuf {
    fixture_of("networks", name)
}

fn open(path: &Path) -> Checkpoint {
    let rule = |key: &str| Some(key.strip_prefix("text_model.").unwrap_or(key).to_string());
    Checkpoint::open(path, rule).unwrap()
}

impl Facts {
    fn load() -> Self {
        facts("networks")
    }

    fn toml(&self, case: &Case) -> String {
        let mut text = String::new();
        for (key, value) in [("phrase", &case.phrase), ("rare_token", &case.rare_token)] {
            if let Some(value) = value {
                text.push_str(&format!("{key} = {value:?}\n"));
            }
        }
        let sets = case.sets.iter();
        let sets =
            sets.map(|(kind, rate)| format!("{{ kind = {kind:?}, learning_rate = {rate:e} }}"));
        let sets: Vec<String> = sets.collect();
        let clip = case
            .max_grad_norm
            .map(|norm| format!("max_grad_norm = {norm}"));
        text.push_str(&format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"absent\"\n\
             super_category = {:?}\nnum_vectors = {}\n[[stages]]\ntrain = [{}]\nsteps = {}\nbatch_size = {}\n\
             learning_rate = 5e-3\nprompts = [{:?}]\nregularization_prompts = {:?}\n\
             [stages.optimizer]\nlr_schedule = {:?}\nlr_warmup_steps = {}\n{}\n",
            fixture("model"),
            self.super_category,
            case.num_vectors,
            sets.join(", "),
            self.steps,
            self.batch_size,
            self.prompt,
            self.templates,
            case.schedule,
            case.warmup,
            clip.unwrap_or_default(),
        ));
        let context = self.weights.iter().filter(|_| case.regularized);
        for (kind, weight) in context.chain(case.terms.iter().flatten()) {
            text.push_str(&format!(
                "[[stages.regularizers]]\nkind = {kind:?}\nweight = {weight}\n"
            ));
            if kind == "prior_preservation" {
                text.push_str("prompts = [\"a photo of a {class}\"]\n");
            }
        }
        text
    }

    fn check(&self, name: &str) {
        let case = self.cases.iter().find(|case| case.name == name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.toml", &self.toml(case));
        let output = folder.path().join("out");
        train(&config, &output, Some(&networks("replay.safetensors")));
        check_rows(case, &output);
        let kinds: Vec<&str> = case.sets.keys().map(String::as_str).collect();
        assert_eq!(
            output.join("learned_embeds.safetensors").exists(),
            case.rare_token.is_none()
        );
        if kinds.contains(&"embedding") {
            let found = open(&output.join("learned_embeds.safetensors"));
            let expected = read(
                &open(&networks("final.safetensors")),
                &format!("{name}/rows"),
            );
            assert_close(&read(&found, "<robot>"), &expected, "rows");
        }
        let unet = kinds.contains(&"unet") || kinds.contains(&"cross_attention_kv");
        let file = "diffusion_pytorch_model.safetensors";
        check_network(name, &output, "unet", file, unet);
        let text_encoder = kinds.contains(&"text_encoder");
        check_network(
            name,
            &output,
            "text_encoder",
            "model.safetensors",
            text_encoder,
        );
    }
}

/// A rare token is no vector that is learned: then there is no norm of one.
fn check_rows(case: &Case, output: &Path) {
    let mut expected = case.metrics.clone();
    for row in &mut expected {
        row.remove("learning_rate");
        if case.rare_token.is_some() {
            row.remove("embedding_norm");
        }
    }
    check_metrics(output, &expected);
    if case.rare_token.is_some() {
        let mut reader = csv::Reader::from_path(output.join("metrics.csv")).unwrap();
        let header = reader.headers().unwrap();
        let column = header.iter().position(|name| name == "embedding_norm");
        let column = column.unwrap();
        assert!(
            reader
                .records()
                .all(|record| record.unwrap()[column].is_empty())
        );
    }
}

/// What the stage trains is PyTorch's; all else keeps its bits.
fn check_network(case: &str, output: &Path, part: &str, file: &str, trained: bool) {
    assert_eq!(output.join(part).exists(), trained, "{case}: {part}");
    if !trained {
        return;
    }
    let changes = open(&networks("final.safetensors"));
    let start = open(&fixture("model").join(part).join(file));
    let found = network(output, part);
    let mut changed = 0;
    // A softmax does not see the bias of the keys: its gradient is rounding, which AdamW blows up.
    for key in start.keys().filter(|key| !key.ends_with("k_proj.bias")) {
        let mut expected = read(&start, key);
        match changes.read_f32(&format!("{case}/{part}.{key}")).unwrap() {
            Some((change, _)) => {
                changed += 1;
                let pairs = expected.iter_mut().zip(change);
                pairs.for_each(|(value, change)| *value += change);
                assert_close(&found[key], &expected, key);
            }
            None => assert_eq!(found[key], expected, "{key}"),
        }
    }
    assert!(changed > 0, "{case}: {part}");
    let config = |folder: &Path| std::fs::read(folder.join(part).join("config.json")).unwrap();
    assert_eq!(config(output), config(&fixture("model")));
}

#[test]
fn the_text_encoder_equals_pytorch() {
    Facts::load().check("text-encoder");
}

#[test]
fn context_terms_follow_a_text_encoder_that_moves() {
    Facts::load().check("text-encoder-with-terms");
}

#[test]
fn a_rare_token_with_all_weights_equals_pytorch() {
    Facts::load().check("rare-token");
}

#[test]
fn dreambooth_with_prior_preservation_equals_pytorch() {
    Facts::load().check("prior");
}

#[test]
fn terms_on_the_photos_attention_and_on_the_embedding_equal_pytorch() {
    Facts::load().check("photo-terms");
}

#[test]
fn every_set_has_its_own_learning_rate_and_all_are_clipped_together() {
    Facts::load().check("own-rates");
}

#[test]
fn every_case_of_the_fixtures_is_a_test() {
    let names: Vec<String> = Facts::load()
        .cases
        .into_iter()
        .map(|case| case.name)
        .collect();
    let expected = [
        "text-encoder",
        "text-encoder-with-terms",
        "rare-token",
        "prior",
        "photo-terms",
        "own-rates",
    ];
    assert_eq!(names, expected);
}

/// A run on three photos of a concept that is a word of the vocabulary.
fn rare_token_run(folder: &Path) -> PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "phrase = \"{{token}} {{class}}\"\nrare_token = \"red\"\n[model]\npath = {:?}\n[concept]\n\
         name = \"robot\"\nimages = \"photos\"\nsuper_category = \"toy dog\"\n[validation]\n\
         every = 2\nprompts = [\"a photo of a {{}}\"]\n[[stages]]\n\
         train = [\"unet\", \"text_encoder\"]\nsteps = 2\nbatch_size = 1\nlearning_rate = 1e-3\n\
         prompts = [\"a photo of a {{}}\"]\n",
        fixture("model")
    );
    let config = write(folder, "run.toml", &text);
    let output = folder.join("out");
    train(&config, &output, None);
    output
}

#[test]
fn a_run_with_a_rare_token_opens_and_writes_the_concept_as_in_its_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let output = rare_token_run(folder.path());
    assert!(output.join("validation/stage-1-00002-00.png").exists());
    let run = Run::open(&output).unwrap();
    assert_eq!(run.phrase().fill("a {} in space"), "a red toy dog in space");
    let base: BaseModel = run.base_model("cpu").unwrap();
    let pipeline = run.pipeline(&base).unwrap();
    assert!(pipeline.model.embedding().is_none());
    let states = |pipeline: &core_model::pipeline::StableDiffusionPipeline| {
        let prompts = ["a red toy dog".to_string()];
        core_model::params::to_vec(pipeline.encode_prompts(&prompts))
    };
    assert_ne!(
        states(&pipeline),
        states(&base.pipeline),
        "the text encoder is the run's"
    );
    assert_eq!(
        states(&pipeline),
        states(&run.prompt_pipeline(&base).unwrap())
    );
}

#[test]
fn an_exported_run_draws_with_its_own_text_encoder_and_unet() {
    let folder = tempfile::tempdir().unwrap();
    let output = rare_token_run(folder.path());
    let exported = folder.path().join("model");
    let program = |words: &[&std::ffi::OsStr]| {
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        program.args(words).assert().success();
    };
    program(&["export".as_ref(), output.as_ref(), exported.as_ref()]);
    let draw = |flag: &str, from: &Path| {
        let latents = folder.path().join(format!("latents{flag}.safetensors"));
        let images = folder.path().join(format!("images{flag}"));
        program(&[
            "generate".as_ref(),
            flag.as_ref(),
            from.as_ref(),
            "--prompt".as_ref(),
            "a red toy dog".as_ref(),
            "--steps".as_ref(),
            "2".as_ref(),
            "--save-latents".as_ref(),
            latents.as_ref(),
            "--out".as_ref(),
            images.as_ref(),
        ]);
        read(&open(&latents), "latents")
    };
    let of_run = draw("--run", &output);
    assert_eq!(of_run, draw("--model", &exported));
    assert_ne!(of_run, {
        std::fs::remove_dir_all(folder.path().join("images--model")).unwrap();
        draw("--model", &fixture("model"))
    });
}

#[test]
fn class_images_are_drawn_once_and_kept_for_all_runs_that_want_the_same() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let cache = folder.path().join("cache");
    let run = |name: &str, num_images: usize, prompt: &str, images: &str, extra: &[&str]| {
        let text = format!(
            "phrase = \"{{token}} {{class}}\"\nrare_token = \"red\"\n[model]\npath = {:?}\n\
             [concept]\nname = \"robot\"\nimages = \"photos\"\nsuper_category = \"dog\"\n\
             [[stages]]\ntrain = [\"unet\"]\nsteps = 2\nbatch_size = 2\nlearning_rate = 1e-3\n\
             prompts = [\"a photo of a {{}}\"]\n[[stages.regularizers]]\n\
             kind = \"prior_preservation\"\nnum_images = {num_images}\nprompts = [{prompt:?}]\n{images}",
            fixture("model")
        );
        let config = write(folder.path(), &format!("{name}.toml"), &text);
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        program
            .env("XDG_CACHE_HOME", &cache)
            .arg("train")
            .arg(config);
        program
            .arg("--output")
            .arg(folder.path().join(name))
            .args(extra);
        program.output().unwrap()
    };
    let kept = || -> Vec<(PathBuf, std::time::SystemTime)> {
        let sets = std::fs::read_dir(cache.join("core/class-images"));
        let sets = sets.map_or(Vec::new(), |sets| {
            sets.map(|set| set.unwrap().path()).collect()
        });
        let files = sets.iter().flat_map(|set| std::fs::read_dir(set).unwrap());
        let files = files.map(|file| file.unwrap().path());
        let mut files: Vec<_> = files
            .map(|file| (file.clone(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let dry = run("dry", 2, "a {class}", "", &["--dry-run"]);
    assert!(dry.status.success(), "{dry:?}");
    assert!(kept().is_empty(), "a dry run draws nothing");
    assert!(run("first", 2, "a {class}", "", &[]).status.success());
    let two = kept();
    assert_eq!(two.len(), 2);
    assert!(run("second", 2, "a {class}", "", &[]).status.success());
    assert_eq!(kept(), two, "nothing is drawn again");
    let metrics = |name: &str| std::fs::read(folder.path().join(name).join("metrics.csv")).unwrap();
    assert_eq!(metrics("first"), metrics("second"));
    assert!(run("more", 3, "a {class}", "", &[]).status.success());
    assert_eq!(
        kept()[..2],
        two[..],
        "a third image leaves the two as they are"
    );
    assert_eq!(kept().len(), 3);
    assert!(run("other", 1, "the {class}", "", &[]).status.success());
    assert_eq!(kept().len(), 4, "another prompt has images of its own");
    assert!(
        run("own", 2, "a {class}", "images = \"photos\"\n", &[])
            .status
            .success()
    );
    assert_eq!(kept().len(), 4, "a folder of images needs none drawn");
    let photo = std::fs::read(folder.path().join("photos/0.png")).unwrap();
    std::fs::create_dir(folder.path().join("damaged")).unwrap();
    let half = &photo[..photo.len() / 2];
    std::fs::write(folder.path().join("damaged/half.png"), half).unwrap();
    for (images, prompt, part) in [
        ("images = \"absent\"\n", "a {class}", "absent"),
        ("images = \"damaged\"\n", "a {class}", "half.png"),
        ("", "a {word}", "{word}"),
    ] {
        let refused = run("bad", 2, prompt, images, &[]);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(
            !refused.status.success() && message.contains(part),
            "{message}"
        );
        assert!(!folder.path().join("bad.partial").exists());
    }
}

#[test]
fn an_unfinished_run_of_another_version_is_refused_with_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let output = rare_token_run(folder.path());
    // As a kill would have left it, and as the first version wrote its position.
    let scratch = folder.path().join("out.partial");
    std::fs::rename(&output, &scratch).unwrap();
    let state = scratch.join("state/00000001");
    std::fs::create_dir_all(&state).unwrap();
    let position = r#"{"stage":0,"step":1,"total":1}"#;
    std::fs::write(state.join("position.json"), position).unwrap();
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    let result = command
        .arg("train")
        .arg(folder.path().join("run.toml"))
        .arg("--output")
        .arg(&output)
        .arg("--resume")
        .output()
        .unwrap();
    assert_eq!(result.status.code(), Some(1));
    let message = String::from_utf8(result.stderr).unwrap();
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    assert!(
        message.contains("position.json") && message.contains("another version"),
        "{message}"
    );
    assert!(scratch.exists(), "nothing is removed");
}
