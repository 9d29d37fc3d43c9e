//! Training against PyTorch, number by number: twelve optimiser steps from one replay file
//! (fixtures from `generate_fixtures/trajectory.py`), each row of `metrics.csv` and the final
//! weights within 1e-3.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_model::checkpoint::Checkpoint;
use serde::Deserialize;

use crate::common::{assert_close, check_metrics, fixture, network, read, train, write};

#[derive(Deserialize)]
struct Facts {
    steps: usize,
    batch_size: usize,
    super_category: String,
    prompt: String,
    templates: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    train: String,
    num_vectors: usize,
    formulation: String,
    context: String,
    learning_rate: f64,
    regularized: bool,
    rescale: Option<[usize; 2]>,
    max_grad_norm: Option<f64>,
    schedule: String,
    warmup: usize,
    weights: BTreeMap<String, f64>,
    metrics: Vec<BTreeMap<String, f64>>,
}

impl Facts {
    fn load() -> Self {
        serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap()
    }

    /// The run configuration of a case.
    fn toml(&self, case: &Case, checkpointing: bool) -> String {
        let train = match case.train.as_str() {
            "kv" => "cross_attention_kv",
            other => other,
        };
        let rescale = match case.rescale {
            Some([from, to]) => format!("{{ from = {from}, to = {to} }}"),
            None => "false".into(),
        };
        let clip = case
            .max_grad_norm
            .map(|norm| format!("max_grad_norm = {norm}"));
        let mut text = format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"absent\"\n\
             super_category = {:?}\nnum_vectors = {}\n[[stages]]\ntrain = [{train:?}]\n\
             steps = {}\nbatch_size = {}\nlearning_rate = {:e}\nprompts = [{:?}]\n\
             regularization_prompts = {:?}\nrescale = {rescale}\n\
             gradient_checkpointing = {checkpointing}\n[stages.optimizer]\n\
             lr_schedule = {:?}\nlr_warmup_steps = {}\n{}\n",
            fixture("model"),
            self.super_category,
            case.num_vectors,
            self.steps,
            self.batch_size,
            case.learning_rate,
            self.prompt,
            self.templates,
            case.schedule,
            case.warmup,
            clip.unwrap_or_default(),
        );
        for (kind, weight) in case.weights.iter().filter(|_| case.regularized) {
            text.push_str(&format!(
                "[[stages.regularizers]]\nkind = {kind:?}\nweight = {weight}\n\
                 formulation = {:?}\ncontext = {:?}\n",
                case.formulation, case.context
            ));
        }
        text
    }

    /// Trains the case, keeping activations and recomputing them, and compares everything that
    /// is left.
    fn check(&self, name: &str) {
        let case = self.cases.iter().find(|case| case.name == name).unwrap();
        for checkpointing in [false, true] {
            self.check_run(case, checkpointing);
        }
    }

    fn check_run(&self, case: &Case, checkpointing: bool) {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.toml", &self.toml(case, checkpointing));
        let output = folder.path().join("out");
        train(&config, &output, Some(&fixture("replay.safetensors")));
        check_rows(case, &output);
        if case.train == "embedding" {
            check_embedding(case, &output);
        } else {
            check_unet(case, &output);
        }
    }
}

fn check_rows(case: &Case, output: &Path) {
    check_metrics(output, &case.metrics);
    let mut reader = csv::Reader::from_path(output.join("metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    for expected in &case.metrics {
        assert_eq!(
            header.len(),
            expected.len() + 2,
            "{}: {header:?}",
            case.name
        );
    }
}

fn open(path: PathBuf) -> Checkpoint {
    Checkpoint::open(&path, |key| Some(key.to_string())).unwrap()
}

fn check_embedding(case: &Case, output: &Path) {
    let expected = open(fixture("final.safetensors"));
    let found = open(output.join("learned_embeds.safetensors"));
    let key = format!("{}/rows", case.name);
    assert_close(&read(&found, "<robot>"), &read(&expected, &key), &key);
    assert!(!output.join("unet").exists());
}

fn check_unet(case: &Case, output: &Path) {
    const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
    let changes = open(fixture("final.safetensors"));
    let start = open(fixture("model").join(WEIGHTS));
    let found = network(output, "unet");
    let mut changed = 0;
    for key in start.keys() {
        let mut expected = read(&start, key);
        let change = changes.read_f32(&format!("{}/{key}", case.name)).unwrap();
        if let Some((change, _)) = change {
            changed += 1;
            expected
                .iter_mut()
                .zip(change)
                .for_each(|(value, change)| *value += change);
            assert_close(&found[key], &expected, key);
        } else {
            // What the stage does not train keeps its bits.
            assert_eq!(found[key], expected, "{key}");
        }
    }
    assert!(changed > 0);
}

macro_rules! trajectories {
    ($($test:ident => $case:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                Facts::load().check($case);
            }
        )+

        #[test]
        fn every_case_of_the_fixtures_is_a_test() {
            let names: Vec<String> = Facts::load().cases.into_iter().map(|case| case.name).collect();
            assert_eq!(names, [$($case),+]);
        }
    };
}

trajectories! {
    core_equals_pytorch => "paper-prompt",
    core_with_padding_equals_pytorch => "paper-padded",
    the_authors_formulation_equals_pytorch => "reference-prompt",
    the_authors_formulation_with_padding_equals_pytorch => "reference-padded",
    a_concept_of_two_vectors_equals_pytorch => "two-vectors",
    clipping_and_learning_rate_schedules_equal_pytorchs => "clipped-cosine",
    textual_inversion_equals_pytorch => "textual-inversion",
    the_second_stage_equals_pytorch => "unet",
    keys_and_values_of_cross_attention_alone_equal_pytorch => "cross-attention-kv",
}
