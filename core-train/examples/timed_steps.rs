//! One step per line of standard input, its seconds on standard output: the project's half of
//! `benchmarks/steps.py` and `benchmarks/gpu.py`.
//!
//! `timed_steps forward|text|decode MODEL BATCH TOKENS` times the U-Net, the text encoder or the
//! decoder alone; `timed_steps train CONFIG STAGE [KEY=VALUE]...` times real training steps, with such
//! changes of the configuration.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks to its script"
)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use core_model::Network;
use core_model::allocator;
use core_model::device::parse_device;
use core_model::rng::randn;
use core_model::text_encoder::TextEncoder;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;
use core_train::RunConfig;
use core_train::cost::time_steps;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn asked() -> bool {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap() > 0
}

fn answer(seconds: f64) {
    println!("{seconds}");
    std::io::stdout().flush().unwrap();
}

fn main() {
    allocator::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| arguments[i].parse::<usize>().unwrap();
    let sizes = || (Path::new(&arguments[1]), number(2), number(3));
    match arguments[0].as_str() {
        "forward" => forward(sizes()),
        "text" => text(sizes()),
        "decode" => decode(sizes()),
        "train" => {
            let config = RunConfig::load(Path::new(&arguments[1]), &arguments[3..]).unwrap();
            if asked() {
                time_steps(&config, number(2), &mut |seconds| {
                    answer(seconds);
                    asked()
                })
                .unwrap();
            }
        }
        other => panic!("forward, text, decode or train, not {other}"),
    }
}

/// Answers each line with the seconds of `step`, which ends when its result was read back.
fn time(step: impl Fn() -> f32) {
    while asked() {
        let start = Instant::now();
        step();
        answer(start.elapsed().as_secs_f64());
    }
}

fn forward((model, batch, tokens): (&Path, usize, usize)) {
    let device = parse_device("cpu").unwrap();
    let unet = UNet2DConditionModel::load(&model.join("unet"), &device).unwrap();
    let size = unet.config().sample_size.unwrap();
    let shape = [
        batch,
        unet.config().in_channels,
        size.height(),
        size.width(),
    ];
    let width = unet.config().cross_attention_dim.at(0).unwrap();
    let sample = randn(shape, 0, "sample", 0, &device);
    let states = randn([batch, tokens, width], 0, "states", 0, &device);
    let timesteps = vec![500.0; batch];
    time(|| {
        let out = unet.forward(sample.clone(), &timesteps, states.clone());
        out.sum().into_scalar()
    });
}

fn text((model, batch, tokens): (&Path, usize, usize)) {
    let device = parse_device("cpu").unwrap();
    let encoder = TextEncoder::load(&model.join("text_encoder"), &device).unwrap();
    let ids = vec![(0..tokens as u32).collect::<Vec<u32>>(); batch];
    time(|| encoder.forward(&ids, None).sum().into_scalar());
}

fn decode((model, batch, _): (&Path, usize, usize)) {
    let device = parse_device("cpu").unwrap();
    let vae = AutoencoderKl::load(&model.join("vae"), &device).unwrap();
    let config =
        UNet2DConditionModel::read_config(&model.join("unet").join("config.json")).unwrap();
    let size = config.sample_size.unwrap();
    let shape = [1, config.in_channels, size.height(), size.width()];
    let latents = randn(shape, 0, "latents", 0, &device);
    time(|| {
        (0..batch)
            .map(|_| vae.decode(latents.clone()).sum().into_scalar::<f32>())
            .sum()
    });
}
