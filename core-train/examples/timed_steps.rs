//! One step a line of standard input, its seconds on standard output: the project's half of
//! benchmarks/compare.py.
//!
//! `timed_steps forward MODEL BATCH` times the U-Net alone; `timed_steps train CONFIG STAGE` times
//! real training steps.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks to its script"
)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use core_model::Network;
use core_model::device::parse_device;
use core_model::rng::randn;
use core_model::unet::UNet2DConditionModel;
use core_train::RunConfig;
use core_train::cost::time_steps;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn asked() -> bool {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap() > 0
}

fn answer(seconds: f64) {
    println!("{seconds}");
    std::io::stdout().flush().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = || arguments[2].parse::<usize>().unwrap();
    match arguments[0].as_str() {
        "forward" => forward(Path::new(&arguments[1]), number()),
        "train" => {
            let config = RunConfig::load(Path::new(&arguments[1]), &[]).unwrap();
            if asked() {
                time_steps(&config, number(), &mut |seconds| {
                    answer(seconds);
                    asked()
                })
                .unwrap();
            }
        }
        other => panic!("forward or train, not {other}"),
    }
}

fn forward(model: &Path, batch: usize) {
    let device = parse_device("cpu").unwrap();
    let unet = UNet2DConditionModel::load(&model.join("unet"), &device).unwrap();
    let size = unet.config().sample_size.unwrap();
    let channels = unet.config().in_channels;
    let width = unet.config().cross_attention_dim.at(0).unwrap();
    let sample = randn(
        [batch, channels, size.height(), size.width()],
        0,
        "sample",
        0,
        &device,
    );
    let states = randn([batch, 24, width], 0, "states", 0, &device);
    let timesteps = vec![500.0; batch];
    while asked() {
        let start = Instant::now();
        let out = unet.forward(sample.clone(), &timesteps, states.clone());
        out.sum().into_scalar::<f32>();
        answer(start.elapsed().as_secs_f64());
    }
}
