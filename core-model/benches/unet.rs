//! The U-Net of the mini world: sampling, one step of learning an embedding, one step of tuning
//! all weights. `cargo bench --profile dev --workspace --bench unet`.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::allocator;
use core_model::params::{set_trainable, to_vec};
use core_model::rng::rng;
use core_model::unet::{
    DownBlockType::{CrossAttnDownBlock2D, DownBlock2D},
    PerLevel, SampleSize, UNet2DConditionConfig, UNet2DConditionModel,
    UpBlockType::{CrossAttnUpBlock2D, UpBlock2D},
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group};
use rand::RngExt;
use rand_distr::StandardNormal;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// Tokens of a prompt.
const TOKENS: usize = 24;

/// Channels of the prompt's hidden states.
const PROMPT: usize = 128;

/// Images of an embedding step and of a tuning step, as in the recipes.
const BATCHES: [usize; 2] = [6, 4];

fn config() -> UNet2DConditionConfig {
    UNet2DConditionConfig {
        sample_size: Some(SampleSize::Square(16)),
        down_block_types: vec![DownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D],
        up_block_types: vec![CrossAttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D],
        block_out_channels: vec![32, 64, 128],
        norm_num_groups: 8,
        cross_attention_dim: PerLevel::All(PROMPT),
        attention_head_dim: PerLevel::All(4),
        ..Default::default()
    }
}

/// What a step is given.
#[derive(Clone)]
struct Inputs {
    sample: Tensor<4>,
    noise: Tensor<4>,
    timesteps: Vec<f32>,
    states: Tensor<3>,
}

impl Inputs {
    fn new(batch: usize, device: &Device) -> Self {
        let normal = |name: &str, len: usize| -> Vec<f32> {
            let mut generator = rng(0, name, batch as u64);
            (0..len).map(|_| generator.sample(StandardNormal)).collect()
        };
        let image = |name: &str| {
            let values = normal(name, batch * 4 * 16 * 16);
            Tensor::from_data(TensorData::new(values, [batch, 4, 16, 16]), device)
        };
        let states = normal("states", batch * TOKENS * PROMPT);
        Self {
            sample: image("sample"),
            noise: image("noise"),
            timesteps: (0..batch).map(|i| (i * 160 + 7) as f32).collect(),
            states: Tensor::from_data(TensorData::new(states, [batch, TOKENS, PROMPT]), device),
        }
    }
}

/// One prediction off the tape, as sampling makes.
fn predict(unet: &UNet2DConditionModel, inputs: Inputs) -> Vec<f32> {
    to_vec(unet.forward(inputs.sample, &inputs.timesteps, inputs.states))
}

/// Gradient of the prompt's states, for the diffusion loss and one on the attention maps.
fn embedding_step(unet: &UNet2DConditionModel, inputs: Inputs) -> Vec<f32> {
    let states = inputs.states.autodiff().require_grad();
    let (prediction, maps) =
        unet.forward_with_attention(inputs.sample, &inputs.timesteps, states.clone());
    let mut loss = (prediction - inputs.noise).square().mean();
    for map in maps {
        loss = loss + map.mean_dims(&[1, 2]).square().mean();
    }
    let grads = loss.backward();
    states.grad(&grads).map(to_vec).unwrap_or_default()
}

/// Gradients of all weights for the diffusion loss.
fn tuning_step(unet: &UNet2DConditionModel, inputs: Inputs) -> f32 {
    let prediction = unet.forward(inputs.sample, &inputs.timesteps, inputs.states);
    let loss = (prediction - inputs.noise).square().mean();
    let grads = loss.backward();
    black_box(&grads);
    loss.into_scalar()
}

fn unet(criterion: &mut Criterion) {
    let device = Device::flex();
    let frozen = match UNet2DConditionModel::init(&config(), 0, &device) {
        Ok(unet) => unet,
        Err(error) => panic!("the mini world's sizes are possible: {error}"),
    };
    let names = frozen.names().clone();
    let trained = set_trainable(frozen.clone(), &names, |_| true);
    let mut group = criterion.benchmark_group("unet");
    group.sample_size(20);
    for batch in BATCHES {
        let inputs = Inputs::new(batch, &device);
        let setup = || inputs.clone();
        group.bench_function(BenchmarkId::new("forward", batch), |b| {
            b.iter_batched(setup, |x| predict(&frozen, x), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("embedding step", batch), |b| {
            b.iter_batched(setup, |x| embedding_step(&frozen, x), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("tuning step", batch), |b| {
            b.iter_batched(setup, |x| tuning_step(&trained, x), BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, unet);

fn main() {
    allocator::keep_freed_memory();
    // Operations are called from within a pool, as the programs do.
    match rayon::ThreadPoolBuilder::new().build() {
        Ok(pool) => pool.install(benches),
        Err(error) => panic!("no thread pool: {error}"),
    }
    Criterion::default().configure_from_args().final_summary();
}
