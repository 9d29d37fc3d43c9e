//! One prediction of a U-Net for each line of standard input: the project's half of
//! `benchmarks/full_size.py equal` and of `benchmarks/gpu.py forward`.
//!
//! `predict MODEL INPUTS OUT [DEVICE [PRECISION]]`: `INPUTS` is a safetensors file with `latents`,
//! `timesteps` and `context`; `OUT` gets the prediction as `sample`. The first line says what loading
//! took.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks to its script"
)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::allocator;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::device::parse_device;
use core_model::params::{Weights, to_vec};
use core_model::unet::UNet2DConditionModel;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// `VmHWM` of Linux, in GiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
    kib.parse::<f64>().unwrap() / f64::from(1 << 20)
}

fn main() {
    allocator::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, out]: [&Path; 3] = std::array::from_fn(|i| Path::new(&arguments[i]));
    let name = arguments.get(3).map_or("cpu", String::as_str);
    let device = parse_device(name).unwrap();
    let precision: Precision = arguments
        .get(4)
        .map_or(Ok(Precision::Float32), |name| name.parse())
        .unwrap();
    precision.check(name).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    pool.build_global().unwrap();

    let start = Instant::now();
    let weights = Weights {
        precision,
        ..Weights::default()
    };
    let unet = UNet2DConditionModel::load_weights(&model.join("unet"), weights, &device).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let module = (unet.num_params() * 4) as f64 / f64::from(1 << 30);
    say(&format!(
        "{seconds:.1} s, module {module:.2} GiB, peak {:.2} GiB",
        peak()
    ));

    let inputs = Checkpoint::open(inputs, |key| Some(key.to_string())).unwrap();
    let read = |key: &str| inputs.read_f32(key).unwrap().unwrap();
    let (latents, shape) = read("latents");
    let latents = Tensor::<4>::from_data(TensorData::new(latents, shape.clone()), &device);
    let (context, context_shape) = read("context");
    let context = Tensor::<3>::from_data(TensorData::new(context, context_shape), &device);
    let (timesteps, _) = read("timesteps");
    for _ in std::io::stdin().lock().lines() {
        let start = Instant::now();
        let sample = unet.forward(latents.clone(), &timesteps, context.clone());
        let values = to_vec(sample);
        say(&format!("{}", start.elapsed().as_secs_f64()));
        let tensor = TensorToWrite {
            name: "sample".into(),
            shape: shape.clone(),
            values,
        };
        save_tensors(out, vec![tensor], Precision::Float32, &[]).unwrap();
    }
}
