//! Sampling from noise to the last latents with a real network on latents of 16x16, against
//! diffusers (tests/generate_fixtures/trajectories.py).
#![allow(clippy::print_stdout, reason = "the test prints its margins")]

use std::collections::BTreeMap;

use crate::common::{Golden, device, fixture};
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use serde_json::Value;

#[test]
fn every_sampler_ends_where_diffusers_does() {
    let golden = Golden::open("trajectories");
    let model = fixture("pipeline/model");
    let mut pipeline = StableDiffusionPipeline::load(&ModelFolder::new(model), &device()).unwrap();
    let text = std::fs::read_to_string(fixture("trajectories/cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let mut worst: BTreeMap<String, f32> = BTreeMap::new();
    for (number, case) in cases["cases"].as_array().unwrap().iter().enumerate() {
        let config = &case["config"];
        pipeline.scheduler_config =
            SchedulerConfig::from_json("scheduler_config.json", &config.to_string()).unwrap();
        let kind: SchedulerKind = case["scheduler"].as_str().unwrap().parse().unwrap();
        let options = SamplingOptions {
            kind: Some(kind),
            num_inference_steps: case["steps"].as_u64().unwrap() as usize,
            guidance_scale: 1.0,
        };
        let sides = [0, 1].map(|i| case["sides"][i].as_u64().unwrap());
        let noise = golden.tensor(&format!("noise.{}x{}", sides[0], sides[1]));
        let context = golden.tensor("context");
        let latents = pipeline
            .sample(context.clone(), context, noise, &options, &mut |_| ())
            .unwrap();
        let difference = golden.check(&format!("{number}.last"), latents);
        let prediction = config["prediction_type"].as_str().unwrap_or("epsilon");
        let karras = if config["use_karras_sigmas"] == true {
            " with Karras sigmas"
        } else {
            ""
        };
        let largest = worst.entry(format!("{kind}{karras}, {prediction}"));
        let largest = largest.or_default();
        *largest = largest.max(difference);
    }
    // `cargo test -p core-model trajectories -- --nocapture` shows the margin.
    for (name, largest) in &worst {
        println!("{name}: worst relative difference {largest:.1e}");
    }
    assert_eq!(worst.len(), 2 * 8);
}
