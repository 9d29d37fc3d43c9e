//! The operations at the sizes of the mini world's networks, fused beside plain:
//! `cargo bench --profile dev --workspace --bench ops`.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::allocator;
use core_model::ops::{self, plain};
use core_model::rng::rng;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group};
use rand::RngExt;
use rand_distr::StandardNormal;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// Images of a batch.
const BATCH: usize = 12;

fn normal<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let mut generator = rng(0, "benchmark", shape.iter().product::<usize>() as u64);
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| generator.sample(StandardNormal))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// An operation of one tensor.
type Operation<'a, const D: usize> = &'a dyn Fn(Tensor<D>) -> Tensor<D>;

/// Times forward off the tape and backward to `x` of both versions.
fn compare<const D: usize>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    x: &Tensor<D>,
    fused: Operation<'_, D>,
    plain: Operation<'_, D>,
) {
    let shape = format!("{:?}", x.dims());
    for (name, operation) in [("fused", fused), ("plain", plain)] {
        group.bench_function(format!("{shape} {name} forward"), |b| {
            b.iter(|| black_box(operation(x.clone())));
        });
        group.bench_function(format!("{shape} {name} backward"), |b| {
            let forward = || operation(x.clone().autodiff().require_grad()).sum();
            b.iter_batched(forward, |y| black_box(y.backward()), BatchSize::SmallInput);
        });
    }
}

fn convolutions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conv2d 3x3");
    group.sample_size(20);
    for (channels, side) in [(32, 16), (64, 8), (128, 4)] {
        let weight = normal([channels, channels, 3, 3]);
        let bias = normal([channels]);
        compare(
            &mut group,
            &normal([BATCH, channels, side, side]),
            &|x| ops::conv2d(x, weight.clone(), Some(bias.clone()), 1, [1; 4]),
            &|x| plain::conv2d(x, weight.clone(), Some(bias.clone()), 1, [1; 4]),
        );
    }
    group.finish();
}

fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("norm");
    group.sample_size(20);
    for (channels, side) in [(32, 16), (64, 8), (128, 4)] {
        let parameter = normal([channels]);
        let gamma = || parameter.clone();
        compare(
            &mut group,
            &normal([BATCH, channels, side, side]),
            &|x| ops::group_norm_silu(x, 8, gamma(), gamma(), 1e-5),
            &|x| plain::group_norm_silu(x, 8, gamma(), gamma(), 1e-5),
        );
        compare(
            &mut group,
            &normal([BATCH, side * side, channels]),
            &|x| ops::layer_norm(x, gamma(), gamma(), 1e-5),
            &|x| plain::layer_norm(x, gamma(), gamma(), 1e-5),
        );
    }
    group.finish();
}

fn activations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("activation");
    group.sample_size(20);
    let x = normal([BATCH, 64, 512]);
    compare(&mut group, &x, &ops::silu, &plain::silu);
    compare(&mut group, &x, &ops::gelu, &plain::gelu);
    compare(&mut group, &x, &ops::geglu, &plain::geglu);
    compare(&mut group, &x, &ops::softmax, &plain::softmax);
    group.finish();
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear and attention");
    group.sample_size(20);
    for (tokens, inputs, outputs) in [(64, 64, 64), (64, 64, 512), (16, 128, 1024)] {
        let weight = normal([outputs, inputs]);
        compare(
            &mut group,
            &normal([BATCH, tokens, inputs]),
            &|x| ops::linear(x, weight.clone(), None),
            &|x| plain::linear(x, weight.clone(), None),
        );
    }
    for (tokens, channels) in [(64, 16), (16, 32), (24, 32)] {
        let heads = normal([BATCH, 4, tokens, channels]);
        compare(
            &mut group,
            &heads,
            &|x| ops::attention(x.clone(), heads.clone(), heads.clone(), false, 0.2),
            &|x| plain::attention(x.clone(), heads.clone(), heads.clone(), false, 0.2),
        );
    }
    group.finish();
}

criterion_group!(benches, convolutions, norms, activations, products);

fn main() {
    allocator::keep_freed_memory();
    // Operations are called from within a pool, as the programs do.
    match rayon::ThreadPoolBuilder::new().build() {
        Ok(pool) => pool.install(benches),
        Err(error) => panic!("no thread pool: {error}"),
    }
    Criterion::default().configure_from_args().final_summary();
}
