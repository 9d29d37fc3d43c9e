//! How far the operations of Stable Diffusion 2.1-base are from what the processor can do: for each at
//! its real size (latents of 64 x 64, one sample) the arithmetic per second, forward and to the input's
//! gradient, beside the peak of fused multiplications and additions of all threads.
//!
//! ```text
//! cargo run -p core-model --example kernels             # all of them
//! cargo run -p core-model --example kernels "conv 3x3"  # those with these words in their names
//! ```
//!
//! `RAYON_NUM_THREADS` and `CORE_MAX_CPU_ISA` choose threads and instructions.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints a table"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use core_model::allocator;
use core_model::ops::{self, instruction_set};
use core_model::rng::randn;
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// How long an operation is repeated.
const LONG: Duration = Duration::from_millis(400);

/// Seconds of the fastest of many calls.
fn fastest<R>(mut call: impl FnMut() -> R) -> f64 {
    fastest_after(LONG, || (), |()| call())
}

/// The same of calls that need something, which is prepared before each; `long` is for both.
fn fastest_after<S, R>(
    long: Duration,
    prepare: impl Fn() -> S,
    mut call: impl FnMut(S) -> R,
) -> f64 {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < long || best == f64::INFINITY {
        let prepared = prepare();
        let start = Instant::now();
        black_box(call(prepared));
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Multiplications and additions that no memory is waited for, per second and thread.
#[cfg(target_arch = "x86_64")]
mod peak {
    #![allow(unsafe_code, reason = "vector instructions")]

    use std::arch::x86_64::*;

    /// Rounds of a measurement.
    const ROUNDS: usize = 2_000_000;

    macro_rules! rounds {
        ($name:ident, $features:literal, $Vector:ty, $count:literal, $splat:ident, $fma:ident) => {
            #[target_feature(enable = $features)]
            fn $name() -> usize {
                let (x, y) = std::hint::black_box(($splat(0.999), $splat(1e-3)));
                let mut sums: [$Vector; $count] = [$splat(1.0); $count];
                for _ in 0..ROUNDS {
                    for sum in &mut sums {
                        *sum = $fma(*sum, x, y);
                    }
                }
                std::hint::black_box(&sums);
                ROUNDS * $count * 2 * size_of::<$Vector>() / 4
            }
        };
    }
    rounds!(
        avx512,
        "avx512f",
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_fmadd_ps
    );
    rounds!(
        avx2,
        "avx2,fma",
        __m256,
        12,
        _mm256_set1_ps,
        _mm256_fmadd_ps
    );

    /// Computes and says how much; nothing where the kernels use no vector instructions.
    pub(super) fn compute(instruction_set: &str) -> Option<usize> {
        match instruction_set {
            // SAFETY: the kernels were found to use these instructions.
            "AVX-512" => Some(unsafe { avx512() }),
            // SAFETY: as above.
            "AVX2 with FMA" => Some(unsafe { avx2() }),
            _ => None,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod peak {
    pub(super) fn compute(_: &str) -> Option<usize> {
        None
    }
}

/// 10^9 operations per second of all threads together.
fn peak() -> Option<f64> {
    let set = instruction_set();
    peak::compute(set)?;
    let threads = rayon::current_num_threads();
    let all = || -> usize {
        (0..threads)
            .into_par_iter()
            .filter_map(|_| peak::compute(set))
            .sum()
    };
    Some(all() as f64 / fastest(all) / 1e9)
}

/// 10^9 bytes per second, read and written, by copying what fits in no cache.
fn bandwidth() -> f64 {
    let source = vec![1.0f32; 1 << 26];
    let mut target = vec![0.0f32; 1 << 26];
    let seconds = fastest(|| {
        let parts = target
            .par_chunks_mut(1 << 18)
            .zip(source.par_chunks(1 << 18));
        parts.for_each(|(target, source)| target.copy_from_slice(source));
    });
    (2 * 4 * source.len()) as f64 / seconds / 1e9
}

fn normal<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    randn(shape, 0, "kernels", 0, &Device::flex())
}

/// Prints one line: `flops` are the forward operations, `backward` how often as many the gradient takes.
fn line<const D: usize>(
    name: &str,
    flops: f64,
    backward: f64,
    peak: Option<f64>,
    x: Tensor<D>,
    operation: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    if std::env::args()
        .nth(1)
        .is_some_and(|part| !name.contains(&part))
    {
        return;
    }
    let show = |flops: f64, seconds: f64| {
        let rate = flops / seconds / 1e9;
        let share = peak.map_or(String::new(), |peak| format!("{:.2}", rate / peak));
        format!("{:8.2} ms {rate:7.1} {share:>5}", seconds * 1e3)
    };
    let forward = fastest(|| operation(x.clone()));
    let recorded = || operation(x.clone().autodiff().require_grad()).sum();
    let gradient = fastest_after(2 * LONG, recorded, |y| y.backward());
    println!(
        "{name:38} {}  {}",
        show(flops, forward),
        show(flops * backward, gradient)
    );
}

fn main() {
    allocator::keep_freed_memory();
    let peak = peak();
    let shown = peak.map_or("not measured".into(), |peak| format!("{peak:.0} GFLOP/s"));
    println!(
        "{}, {} threads: peak {shown}, copying {:.1} GB/s\n",
        instruction_set(),
        rayon::current_num_threads(),
        bandwidth()
    );
    println!(
        "{:38} {:>11} {:>7} {:>5}  {:>11} {:>7} {:>5}",
        "", "forward", "GFLOP/s", "share", "gradient", "GFLOP/s", "share"
    );
    for (inputs, outputs, side) in [
        (320, 320, 64),
        (960, 320, 64),
        (640, 640, 32),
        (1280, 1280, 16),
        (2560, 1280, 16),
        (1280, 1280, 8),
    ] {
        let weight = normal([outputs, inputs, 3, 3]);
        let flops = (2 * 9 * inputs * outputs * side * side) as f64;
        let name = format!("conv 3x3 {inputs} to {outputs}, {side} x {side}");
        line(
            &name,
            flops,
            1.0,
            peak,
            normal([1, inputs, side, side]),
            |x| ops::conv2d(x, weight.clone(), None, 1, [1; 4]),
        );
    }
    for (tokens, inputs, outputs) in [
        (4096, 320, 320),
        (4096, 320, 2560),
        (4096, 1280, 320),
        (1024, 640, 640),
        (1024, 640, 5120),
        (256, 1280, 1280),
        (256, 1280, 10240),
        (77, 1024, 4096),
    ] {
        let weight = normal([outputs, inputs]);
        let flops = (2 * tokens * inputs * outputs) as f64;
        let name = format!("linear {tokens} x {inputs} to {outputs}");
        line(&name, flops, 1.0, peak, normal([1, tokens, inputs]), |x| {
            ops::linear(x, weight.clone(), None)
        });
    }
    for (heads, queries, keys) in [
        (5, 4096, 4096),
        (10, 1024, 1024),
        (20, 256, 256),
        (5, 4096, 77),
    ] {
        let other = normal([1, heads, keys, 64]);
        let flops = (4 * heads * queries * keys * 64) as f64;
        let name = format!("attention {heads} x {queries} x {keys}");
        // all three inputs are on the tape where they are the same tensor
        let itself = queries == keys;
        line(
            &name,
            flops,
            if itself { 2.5 } else { 1.5 },
            peak,
            normal([1, heads, queries, 64]),
            |x| {
                let [k, v] = match itself {
                    true => [x.clone(), x.clone()],
                    false => [other.clone(), other.clone()],
                };
                ops::attention(x, k, v, false, 0.125)
            },
        );
    }
}
