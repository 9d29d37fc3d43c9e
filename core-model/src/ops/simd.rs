//! Vector arithmetic: functions compiled once for each instruction set and chosen at run time,
//! and the elementary functions they use.
//!
//! The elementary functions are branch-free, so that loops over them become vector code. `FMA`
//! says whether the instruction set fuses multiplication and addition.

/// Defines a function three times, for AVX-512, for AVX2 and for any processor, and calls the
/// best that this processor runs. The first const parameter says whether FMA is there.
macro_rules! vectorised {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<const $fma:ident: bool $(, $generic:ident: $bound:path)?>(
            $($arg:ident: $ty:ty),* $(,)?
        ) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        $vis fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const $fma: bool $(, $generic: $bound)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<true $(, $generic)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body::<true $(, $generic)?>($($arg),*)
                }
                #[allow(unsafe_code, reason = "the processor was asked for these instructions")]
                match $crate::ops::instruction_set::level() {
                    // SAFETY: `level` found the features.
                    $crate::ops::instruction_set::Level::Avx512 => return unsafe { avx512 $(::<$generic>)? ($($arg),*) },
                    // SAFETY: `level` found the features.
                    $crate::ops::instruction_set::Level::Avx2 => return unsafe { avx2 $(::<$generic>)? ($($arg),*) },
                    $crate::ops::instruction_set::Level::Any => {}
                }
            }
            body::<false $(, $generic)?>($($arg),*)
        }
    };
}
pub(super) use vectorised;

/// `a * b + c`.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn polynomial<const FMA: bool>(x: f32, coefficients: &[f32]) -> f32 {
    let mut y = 0.0;
    for &c in coefficients {
        y = fma::<FMA>(y, x, c);
    }
    y
}

/// e^x to one unit in the last place or two; 0 below -86.9, NaN stays NaN.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let low = x < -86.9;
    let y = if x > 88.7 { 88.7 } else { x };
    let y = if y < -86.9 { -86.9 } else { y };
    let shifted = fma::<FMA>(y, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    // ln 2 in two parts, the first exact in few bits
    let r = fma::<FMA>(n, -0.693_359_4, y);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    // Taylor's polynomial fitted on [-ln 2 / 2, ln 2 / 2] (Cephes expf)
    let p = polynomial::<FMA>(
        r,
        &[
            1.987_569_1e-4,
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            5e-1,
        ],
    );
    let p = fma::<FMA>(p * r, r, r) + 1.0;
    // n reaches 128 only above 88.376: split so that 2^n stays a float
    let half = (shifted.to_bits() << 23).wrapping_add(0x3f00_0000); // 2^(n - 1)
    let result = p * f32::from_bits(half) * 2.0;
    if low { 0.0 } else { result }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Hyperbolic tangent to 1e-7.
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f32) -> f32 {
    1.0 - 2.0 / (exp::<FMA>(2.0 * x) + 1.0)
}

/// The distribution function of the standard normal, `(1 + erf(x / sqrt 2)) / 2`, to 1e-7.
///
/// `-ln(erfc(u)) / u` is smooth; the polynomial was fitted to it on 0..4 with the weights that make
/// the error of erfc uniform (2e-9 before rounding).
#[inline(always)]
pub(super) fn normal_cdf<const FMA: bool>(x: f32) -> f32 {
    let u = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let p = polynomial::<FMA>(
        u,
        &[
            -8.043_816e-6,
            1.060_266e-4,
            -5.879_505e-4,
            1.576_759_9e-3,
            -5.878_133_4e-5,
            -1.921_714_3e-2,
            1.027_992_1e-1,
            6.366_161e-1,
            1.128_379_3,
        ],
    );
    let tail = 0.5 * exp::<FMA>(-u * p);
    let tail = if u > 4.0 { 0.0 } else { tail };
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// The density of the standard normal.
#[inline(always)]
pub(super) fn normal_pdf<const FMA: bool>(x: f32) -> f32 {
    0.398_942_3 * exp::<FMA>(-0.5 * x * x)
}

/// Partial results kept side by side: one vector of AVX-512.
const LANES: usize = 16;

/// Combines the lanes pairwise.
#[inline(always)]
fn reduce(lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let [mut eight, mut four] = [[0.0f32; 8], [0.0; 8]];
    for i in 0..8 {
        eight[i] = combine(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        four[i] = combine(eight[i], eight[i + 4]);
    }
    combine(combine(four[0], four[2]), combine(four[1], four[3]))
}

/// Sums `term` of the values at each place of `x`, which have one length; the order of additions is fixed
/// by it alone.
#[inline(always)]
pub(super) fn sum_of<const N: usize>(x: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    // Blocks are added in f64, so that long sums keep float32's precision.
    const BLOCK: usize = 4096;
    let len = x[0].len();
    if len <= 256 {
        return short_sum(x, &term);
    }
    let mut total = 0.0f64;
    for start in (0..len).step_by(BLOCK) {
        let block = start..(start + BLOCK).min(len);
        total += f64::from(long_sum(x.map(|x| &x[block.clone()]), &term));
    }
    total as f32
}

/// With four vectors of partial sums, enough to fill the pipelines.
#[inline(always)]
fn long_sum<const N: usize>(x: [&[f32]; N], term: &impl Fn([f32; N]) -> f32) -> f32 {
    let (lanes, rest) = lane_sums::<N, { 4 * LANES }>(x, term);
    let mut sums = [0.0; LANES];
    for j in 0..LANES {
        let second = lanes[j + LANES] + lanes[j + 3 * LANES];
        sums[j] = (lanes[j] + lanes[j + 2 * LANES]) + second;
    }
    reduce(sums, |a, b| a + b) + short_sum(rest, term)
}

#[inline(always)]
fn short_sum<const N: usize>(x: [&[f32]; N], term: &impl Fn([f32; N]) -> f32) -> f32 {
    let (lanes, rest) = lane_sums::<N, LANES>(x, term);
    let mut sum = reduce(lanes, |a, b| a + b);
    for i in 0..rest[0].len() {
        sum += term(rest.map(|x| x[i]));
    }
    sum
}

/// The sums of every `L`th term, and what is left when there are no `L` values any more.
#[inline(always)]
fn lane_sums<'a, const N: usize, const L: usize>(
    x: [&'a [f32]; N],
    term: &impl Fn([f32; N]) -> f32,
) -> ([f32; L], [&'a [f32]; N]) {
    let mut lanes = [0.0; L];
    let parts = x.map(|x| x.as_chunks::<L>());
    for i in 0..parts[0].0.len() {
        // As arrays, so that no access to a value is checked, which would keep vectors from being used.
        let parts = parts.map(|(parts, _)| &parts[i]);
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += term(parts.map(|part| part[j]));
        }
    }
    (lanes, parts.map(|(_, rest)| rest))
}

/// The largest value.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut parts = x.chunks_exact(LANES);
    for part in &mut parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane = larger(x, *lane);
        }
    }
    let rest = parts.remainder().iter();
    rest.fold(reduce(lanes, larger), |m, &x| larger(x, m))
}

/// Mean and `1 / sqrt(variance + eps)` of the values, the variance being the biased one.
#[inline(always)]
pub(super) fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum_of([x], |[x]| x) / count;
    let variance = sum_of([x], |[x]| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn evaluate<const FMA: bool>(x: &[f32], out: &mut [f32], which: usize) {
            for (o, &x) in out.iter_mut().zip(x) {
                *o = match which {
                    0 => exp::<FMA>(x),
                    1 => normal_cdf::<FMA>(x),
                    _ => tanh::<FMA>(x),
                };
            }
        }
    }

    fn grid(from: f32, to: f32) -> Vec<f32> {
        (0..=20_000)
            .map(|i| from + (to - from) * i as f32 / 20_000.0)
            .collect()
    }

    #[test]
    fn sums_have_every_term_once() {
        for len in [0, 1, 15, 16, 17, 255, 256, 257, 300, 4095, 4097, 9001] {
            let [x, y] = [3, 5].map(|n| (0..len).map(|i| (i % n) as f32).collect::<Vec<_>>());
            // Small integers, exact in float32.
            let exact: usize = (0..len).map(|i| (i % 3) * (i % 5)).sum();
            assert_eq!(sum_of([&x, &y], |[x, y]| x * y), exact as f32, "{len}");
        }
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place() {
        let x = grid(-86.8, 88.6);
        let mut y = vec![0.0; x.len()];
        evaluate(&x, &mut y, 0);
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x).exp();
            let portable = f64::from(exp::<false>(x));
            assert!((f64::from(y) / exact - 1.0).abs() < 2.5e-7, "{x} {y}");
            assert!((portable / exact - 1.0).abs() < 2.5e-7, "{x} {portable}");
        }
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn normal_cdf_and_tanh_are_right_to_2e_7() {
        let x = grid(-10.0, 10.0);
        let mut y = vec![0.0; x.len()];
        evaluate(&x, &mut y, 2);
        for (&x, &y) in x.iter().zip(&y) {
            assert!((f64::from(y) - f64::from(x).tanh()).abs() < 2e-7, "{x} {y}");
        }
        // Values of Phi from tables of the normal distribution.
        let (x, exact) = (
            [-3.0, -1.0, 0.0, 0.5, 2.0],
            [
                0.001_349_898_03,
                0.158_655_254,
                0.5,
                0.691_462_461,
                0.977_249_868,
            ],
        );
        let mut y = [0.0; 5];
        evaluate(&x, &mut y, 1);
        for (y, exact) in y.iter().zip(exact) {
            assert!((f64::from(*y) - exact).abs() < 2e-7, "{y} {exact}");
        }
    }
}
