//! The schedulers against whole trajectories of diffusers' classes; see
//! `generate_fixtures/schedulers.py`.

#![allow(clippy::print_stdout, reason = "the test prints its margins")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::noise_scheduler::{DdpmScheduler, SchedulerConfig, SchedulerKind};
use core_model::params::to_vec;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schedulers")
}

struct Fixture {
    tensors: Checkpoint,
    cases: Value,
}

impl Fixture {
    fn open() -> Self {
        let path = folder().join("cases.safetensors");
        let tensors = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
        let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
        Self {
            tensors,
            cases: serde_json::from_str(&text).unwrap(),
        }
    }

    fn values(&self, key: &str) -> Vec<f32> {
        self.tensors
            .read_f32(key)
            .unwrap()
            .unwrap_or_else(|| panic!("no tensor {key}"))
            .0
    }

    fn tensor(&self, key: &str) -> Tensor<4> {
        let (values, shape) = self.tensors.read_f32(key).unwrap().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }
}

fn config(values: &Value) -> SchedulerConfig {
    SchedulerConfig::from_json("scheduler_config.json", &values.to_string()).unwrap()
}

fn relative_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(f32::MIN_POSITIVE, |a, b| a.max(b.abs()));
    ours.iter()
        .zip(theirs)
        .fold(0.0, |a, (x, y)| f32::max(a, (x - y).abs()))
        / scale
}

/// The linear "network" of the generating script.
fn network(sample: Tensor<4>, timestep: f32, bias: &Tensor<4>) -> Tensor<4> {
    sample.mul_scalar(0.4) + bias.clone().mul_scalar(0.3 * f64::from(timestep) / 1000.0)
}

#[test]
fn trajectories_agree_with_diffusers() {
    let fixture = Fixture::open();
    let (noise, bias) = (fixture.tensor("noise"), fixture.tensor("bias"));
    let cases = fixture.cases["cases"].as_array().unwrap();
    assert!(cases.len() > 300);
    let mut worst: BTreeMap<String, (usize, f32)> = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let kind: SchedulerKind = case["scheduler"].as_str().unwrap().parse().unwrap();
        let steps = case["steps"].as_u64().unwrap() as usize;
        let mut sampler = kind.build(&config(&case["config"]), steps).unwrap();
        let timesteps = sampler.timesteps().to_vec();
        let theirs = fixture.values(&format!("{number}.timesteps"));
        if case["config"]["use_karras_sigmas"] == true {
            // Interpolated in logarithms of float32, which libraries round differently.
            for (x, y) in timesteps.iter().zip(&theirs) {
                assert!((x - y).abs() <= 1e-5 + 3e-7 * y, "{case}: {x} {y}");
            }
        } else {
            assert_eq!(timesteps, theirs, "{case}");
        }

        let mut sample = noise.clone().mul_scalar(sampler.init_noise_sigma());
        let mut largest = Vec::new();
        for (index, timestep) in timesteps.iter().enumerate() {
            let input = sampler.scale_model_input(sample.clone(), index);
            let output = network(input, *timestep, &bias);
            sample = sampler.step(output, index, sample);
            largest.push(to_vec(sample.clone().abs().max())[0]);
        }
        if steps == 10 {
            let theirs = fixture.values(&format!("{number}.largest"));
            for (x, y) in largest.iter().zip(&theirs) {
                assert!((x - y).abs() < 3e-5 * y, "{case}: {largest:?} {theirs:?}");
            }
        }
        let difference =
            relative_difference(&to_vec(sample), &fixture.values(&format!("{number}.last")));
        assert!(difference < 3e-5, "{difference} {case}");
        let prediction = case["config"]["prediction_type"].as_str();
        let name = format!("{}, {}", kind.name(), prediction.unwrap_or("epsilon"));
        let (count, largest) = worst.entry(name).or_default();
        *count += 1;
        *largest = largest.max(difference);
    }
    // `cargo test -p core-model noise_schedulers -- --nocapture` shows the margin.
    for (name, (count, largest)) in &worst {
        println!("{name}: {count} trajectories, worst relative difference {largest:.1e}");
    }
    let kinds = SchedulerKind::ALL.len();
    assert!(worst.len() >= 2 * kinds, "{worst:?}");
}

#[test]
fn training_noise_and_targets_agree_with_diffusers() {
    let fixture = Fixture::open();
    let (latents, noise) = (
        fixture.tensor("training.latents"),
        fixture.tensor("training.noise"),
    );
    let timesteps = [0, 1, 250, 999];
    for (number, values) in fixture.cases["training"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let scheduler = DdpmScheduler::new(&config(values)).unwrap();
        let signal: Vec<f32> = scheduler
            .alphas_cumprod()
            .iter()
            .step_by(37)
            .map(|a| *a as f32)
            .collect();
        let theirs = fixture.values(&format!("training.{number}.alphas_cumprod"));
        for (x, y) in signal.iter().zip(&theirs) {
            // Of a rescaled schedule they are made with torch's square root, which is not correctly
            // rounded and not the same on every processor.
            assert!((x - y).abs() <= 1e-6 * y, "{values}: {x} {y}");
        }
        let noisy = scheduler.add_noise(latents.clone(), noise.clone(), &timesteps);
        let theirs = fixture.values(&format!("training.{number}.noisy"));
        assert!(
            relative_difference(&to_vec(noisy), &theirs) < 1e-6,
            "{values}"
        );

        let target = scheduler.target(latents.clone(), noise.clone(), &timesteps);
        assert_eq!(to_vec(target), to_vec(noise.clone()));
        let mut velocity = values.clone();
        velocity["prediction_type"] = "v_prediction".into();
        let scheduler = DdpmScheduler::new(&config(&velocity)).unwrap();
        let target = scheduler.target(latents.clone(), noise.clone(), &timesteps);
        let theirs = fixture.values(&format!("training.{number}.velocity"));
        assert!(
            relative_difference(&to_vec(target), &theirs) < 1e-6,
            "{values}"
        );
    }
}
