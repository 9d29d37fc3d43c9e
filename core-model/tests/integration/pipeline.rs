//! A whole folder against diffusers' `StableDiffusionPipeline`: prompts, a learned concept,
//! guidance, every sampler and the images; see `generate_fixtures/pipeline.py`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::folder::ModelFolder;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::noise_scheduler::SchedulerKind;
use core_model::params::to_vec;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};

const PROMPT: &str = "a photo of a <robot> on the red beach";
const NEGATIVE: &str = "blue car";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/pipeline")
        .join(name)
}

/// The pipeline with its concept, and what diffusers computed.
struct Fixture {
    pipeline: StableDiffusionPipeline,
    expected: Checkpoint,
}

impl Fixture {
    fn load() -> Self {
        let device = Device::flex();
        let mut pipeline =
            StableDiffusionPipeline::load(&ModelFolder::new(fixture("model")), &device).unwrap();
        let concept = LearnedEmbedding::load(&fixture("robot.safetensors")).unwrap();
        pipeline.add_concept(&concept, &concept.token).unwrap();
        let file = fixture("expected.safetensors");
        let expected = Checkpoint::open(&file, |key| Some(key.to_string())).unwrap();
        Self { pipeline, expected }
    }

    fn context(&self, prompt: &str) -> Tensor<3> {
        self.pipeline.encode_prompts(&[prompt.to_string()])
    }

    fn tensor<const D: usize>(&self, key: &str) -> Tensor<D> {
        let (values, shape) = self.expected.read_f32(key).unwrap().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn sample(&self, kind: Option<SchedulerKind>, guidance_scale: f64) -> (Tensor<4>, usize) {
        let options = SamplingOptions {
            kind,
            num_inference_steps: 10,
            guidance_scale,
        };
        let mut calls = 0;
        let latents = self
            .pipeline
            .sample(
                self.context(PROMPT),
                self.context(NEGATIVE),
                self.tensor("latents"),
                &options,
                &mut |done| calls = done,
            )
            .unwrap();
        (latents, calls)
    }

    fn assert_close<const D: usize>(&self, ours: Tensor<D>, key: &str) {
        let theirs: Tensor<D> = self.tensor(key);
        assert_eq!(ours.dims(), theirs.dims());
        let scale = to_vec(theirs.clone().abs().max())[0];
        let difference = to_vec((ours - theirs).abs().max())[0] / scale;
        assert!(difference < 1e-4, "{key}: {difference}");
    }
}

#[test]
fn contexts_agree_with_diffusers() {
    let fixture = Fixture::load();
    fixture.assert_close(fixture.context(PROMPT), "cond");
    fixture.assert_close(fixture.context(NEGATIVE), "uncond");
}

#[test]
fn latents_of_every_sampler_agree_with_diffusers() {
    let fixture = Fixture::load();
    for kind in SchedulerKind::ALL {
        let (latents, calls) = fixture.sample(Some(kind), 7.5);
        fixture.assert_close(latents, &format!("final.{kind}"));
        assert_eq!(calls, if kind == SchedulerKind::Pndm { 11 } else { 10 });
    }
}

#[test]
fn the_checkpoint_chooses_the_sampler_when_nobody_does() {
    let fixture = Fixture::load();
    fixture.assert_close(fixture.sample(None, 7.5).0, "final.pndm");
}

#[test]
fn without_guidance_the_negative_prompt_is_not_used() {
    let fixture = Fixture::load();
    fixture.assert_close(
        fixture.sample(Some(SchedulerKind::Ddim), 1.0).0,
        "final.unguided",
    );
}

#[test]
fn images_agree_with_diffusers() {
    let fixture = Fixture::load();
    let images = fixture.pipeline.decode(fixture.tensor("final.ddim"));
    let theirs: Tensor<4> = fixture.tensor("image");
    let [count, height, width, _] = theirs.dims();
    assert_eq!(images.len(), count);
    let theirs = to_vec(theirs);
    for (image, theirs) in images.iter().zip(theirs.chunks(height * width * 3)) {
        assert_eq!(image.dimensions(), (width as u32, height as u32));
        let off = image
            .as_raw()
            .iter()
            .zip(theirs)
            .filter(|(a, b)| f32::from(**a) != **b);
        // A value within rounding of the middle between two levels may fall to either side.
        assert!(off.count() <= 1);
    }
}

#[test]
fn a_prompt_that_cuts_its_placeholder_is_refused() {
    let pipeline = Fixture::load().pipeline;
    let token = Some(("<robot>", 2));
    assert!(!pipeline.check_prompt(PROMPT, token).unwrap());
    let long = "red ".repeat(20);
    assert!(
        pipeline
            .check_prompt(&format!("a <robot> {long}"), token)
            .unwrap()
    );
    // 1 start + 13 words + 2 vectors + 1 end = 17 of 16 positions: the second vector is lost.
    for words in [13, 20] {
        let prompt = format!("{}<robot>", "red ".repeat(words));
        let text = pipeline
            .check_prompt(&prompt, token)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("16 tokens") && text.contains("`<robot>`"),
            "{text}"
        );
    }
}

#[test]
fn a_concept_of_another_width_is_refused() {
    let mut pipeline = Fixture::load().pipeline;
    let wide = LearnedEmbedding::new("<wide>", &[vec![0.0; 24]]).unwrap();
    let error = pipeline
        .add_concept(&wide, "<wide>")
        .unwrap_err()
        .to_string();
    assert!(error.contains("24") && error.contains("16"), "{error}");
}

#[test]
fn latents_of_other_channels_or_without_pixels_are_refused() {
    let pipeline = Fixture::load().pipeline;
    assert_eq!(pipeline.latent_shape().unwrap(), [4, 8, 8]);
    assert!(pipeline.check_latents([4, 7, 10]).is_ok());
    for shape in [[3, 8, 8], [4, 0, 8]] {
        let text = pipeline.check_latents(shape).unwrap_err().to_string();
        assert!(text.contains("4 channels"), "{text}");
    }
}
