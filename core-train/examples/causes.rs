//! Why generated things lose their markings, measured on captions that name everything but them: what the autoencoder
//! keeps, and what guidance and sampling steps do. `causes [COUNT] [UNET]` takes so many scenes (absent: 256) and the
//! U-Net of another folder (absent: that of models/mini).
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement talks to its user"
)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_model::Network;
use core_model::device::parse_device;
use core_model::image_processor::channels_first;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::rng::{randn, rng};
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;
use core_train::pretrain::{PatternClassifier, pixels, sharpness};
use core_train::world::{Caption, Identity, Pattern, Thing, View, render};
use image::RgbImage;

/// Images per forward pass.
const BATCH: usize = 16;

/// Latents of images of 64x64 pixels.
const LATENT: [usize; 3] = [4, 16, 16];

struct Scene {
    image: RgbImage,
    caption: String,
    pattern: Pattern,
}

fn scenes(count: usize) -> Vec<Scene> {
    let scene = |number: u64| {
        let mut generator = rng(11, "causes", number);
        let thing = Thing::sample(&mut generator);
        let identity = Identity::from(thing.clone());
        let view = View::sample(&mut generator, &identity);
        Scene {
            image: render(&identity, &view).image,
            caption: Caption::full(&identity, &view).text,
            pattern: thing.pattern,
        }
    };
    (0..count as u64).map(scene).collect()
}

fn values(images: &[RgbImage]) -> Vec<f32> {
    images.iter().flat_map(channels_first).collect()
}

/// The pattern of each image and the mean share that it has there.
fn patterns(classifier: &PatternClassifier, images: &[RgbImage]) -> (Vec<Pattern>, f32) {
    let device = parse_device("cpu").unwrap();
    let batches = images.chunks(BATCH);
    let found = batches.flat_map(|batch| classifier.patterns(pixels(values(batch), &device)));
    let (found, shares): (Vec<Pattern>, Vec<f32>) = found.unzip();
    (found, shares.iter().sum::<f32>() / images.len() as f32)
}

fn report(name: &str, images: &[RgbImage], scenes: &[Scene], classifier: &PatternClassifier) {
    let rendered: Vec<_> = scenes.iter().map(|scene| &scene.image).collect();
    let relative = sharpness(images) / sharpness(rendered);
    let (found, sure) = patterns(classifier, images);
    let shares = Pattern::ALL.iter().map(|pattern| {
        let count = found.iter().filter(|found| *found == pattern).count();
        format!(
            "{} {:.2}",
            pattern.word(),
            count as f64 / found.len() as f64
        )
    });
    let shares: Vec<String> = shares.collect();
    let right = found.iter().zip(scenes);
    let right = right.filter(|(found, scene)| **found == scene.pattern);
    println!(
        "{name}: sharpness {relative:.3}, pattern of the scene {:.3}, share there {sure:.3}; {}",
        right.count() as f64 / found.len() as f64,
        shares.join(", ")
    );
}

fn draw(
    pipeline: &StableDiffusionPipeline,
    scenes: &[Scene],
    options: &SamplingOptions,
    device: &Device,
) -> Vec<RgbImage> {
    let mut drawn = Vec::new();
    for (index, batch) in scenes.chunks(BATCH).enumerate() {
        let prompts: Vec<String> = batch.iter().map(|scene| scene.caption.clone()).collect();
        let cond = pipeline.encode_prompts(&prompts);
        let uncond = pipeline.encode_prompts(&vec![String::new(); batch.len()]);
        let [c, h, w] = LATENT;
        let noise = randn(
            [batch.len(), c, h, w],
            11,
            "causes noise",
            index as u64,
            device,
        );
        let latents = pipeline.sample(cond, uncond, noise, options, &mut |_| {});
        drawn.extend(pipeline.decode(latents.unwrap()));
    }
    drawn
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(256, |count| count.parse().unwrap());
    let model = Path::new("models/mini");
    let unet = arguments.next().map_or(model.join("unet"), PathBuf::from);
    let device = parse_device("cpu").unwrap();
    let classifier = PatternClassifier::load(Path::new("models/mini-pattern"), &device).unwrap();
    let pipeline = StableDiffusionPipeline {
        tokenizer: Tokenizer::from_dir(&model.join("tokenizer")).unwrap(),
        model: PersonalizedModel::new(
            TextEncoder::load(&model.join("text_encoder"), &device).unwrap(),
            UNet2DConditionModel::load(&unet, &device).unwrap(),
        ),
        vae: AutoencoderKl::load(&model.join("vae"), &device).unwrap(),
        scheduler_config: SchedulerConfig::from_dir(&model.join("scheduler")).unwrap(),
    };
    let scenes = scenes(count);
    let rendered: Vec<RgbImage> = scenes.iter().map(|scene| scene.image.clone()).collect();
    report("rendered", &rendered, &scenes, &classifier);
    let mut kept = Vec::new();
    for batch in rendered.chunks(BATCH) {
        let [mean, _] = pipeline
            .vae
            .encode(pixels(values(batch), &device))
            .scaled(pipeline.vae.config().scaling_factor);
        kept.extend(pipeline.decode(mean));
    }
    report("autoencoder", &kept, &scenes, &classifier);
    for (guidance_scale, num_inference_steps) in [
        (1.0, 20),
        (2.0, 20),
        (4.0, 20),
        (7.5, 20),
        (2.0, 100),
        (7.5, 100),
    ] {
        let options = SamplingOptions {
            kind: Some(SchedulerKind::DpmppTwoM),
            num_inference_steps,
            guidance_scale,
        };
        let drawn = draw(&pipeline, &scenes, &options, &device);
        let name = format!("guidance {guidance_scale}, {num_inference_steps} steps");
        report(&name, &drawn, &scenes, &classifier);
    }
}
