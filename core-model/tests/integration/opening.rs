//! Checkpoints that diffusers and transformers correct when they open them: the latents of each are
//! those of `StableDiffusionPipeline.from_pretrained`; see `generate_fixtures/opening.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::folder::ModelFolder;
use core_model::noise_scheduler::SchedulerKind;
use core_model::params::to_vec;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::common::fixture;

#[derive(Deserialize)]
struct Case {
    /// Keys of JSON files; null removes one.
    changes: BTreeMap<String, Map<String, Value>>,
    sampler: Option<SchedulerKind>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The model of the pipeline's tests with these changes.
fn model(changes: &BTreeMap<String, Map<String, Value>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("pipeline/model"), folder.path());
    for (name, keys) in changes {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
        let mut content: Map<String, Value> = serde_json::from_str(&text).unwrap();
        content.extend(keys.clone());
        content.retain(|_, value| !value.is_null());
        fs::write(&path, serde_json::to_string(&content).unwrap()).unwrap();
    }
    folder
}

fn load(folder: &Path) -> core_model::Result<StableDiffusionPipeline> {
    StableDiffusionPipeline::load(&ModelFolder::new(folder), &Device::flex())
}

#[test]
fn every_correction_gives_the_latents_of_diffusers() {
    let text = fs::read_to_string(fixture("opening/cases.json")).unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_str(&text).unwrap();
    let file = fixture("opening/expected.safetensors");
    let expected = Checkpoint::open(&file, |key| Some(key.to_string())).unwrap();
    let tensor = |key: &str| -> Tensor<4> {
        let (values, shape) = expected.read_f32(key).unwrap().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    };
    assert_eq!(cases.len(), 12);
    for (name, case) in &cases {
        let folder = model(&case.changes);
        let pipeline = load(folder.path()).unwrap();
        let options = SamplingOptions {
            kind: case.sampler,
            num_inference_steps: 7,
            guidance_scale: 7.5,
        };
        let context = |prompt: &str| pipeline.encode_prompts(&[prompt.to_string()]);
        let (cond, uncond) = (context("a photo of a red car"), context("blue"));
        let ours = pipeline.sample(cond, uncond, tensor("latents"), &options, &mut |_| {});
        let theirs = tensor(name);
        let scale = to_vec(theirs.clone().abs().max())[0];
        let difference = to_vec((ours.unwrap() - theirs).abs().max())[0] / scale;
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn a_prompt_with_a_token_that_has_no_row_is_refused_by_its_name() {
    let text = fs::read_to_string(fixture("opening/cases.json")).unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_str(&text).unwrap();
    let folder = model(&cases["a-token-without-row"].changes);
    let pipeline = load(folder.path()).unwrap();
    assert!(pipeline.check_prompt("a car", None).is_ok());
    let message = pipeline.check_prompt("an <OLD> car", None).unwrap_err();
    assert!(message.to_string().contains("`<old>`"), "{message}");
}

#[test]
fn models_that_read_more_than_latents_are_refused_by_their_kind() {
    for (channels, kind) in [
        (9, "inpainting"),
        (5, "depth-to-image"),
        (8, "image-editing"),
    ] {
        let mut keys = Map::new();
        keys.insert("in_channels".into(), channels.into());
        let folder = model(&BTreeMap::from([("unet/config.json".into(), keys)]));
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains(kind), "{message}");
    }
}
