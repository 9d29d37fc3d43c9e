//! Attention on GPUs that keeps no scores for its backward pass, which computes them again, a part of
//! the queries at a time: as FlashAttention does (Dao et al. 2022), with Burn's own operations.

use burn::module::Module;
use burn::tensor::{DType, Tensor};

use crate::ops::plain::{attention_of_slice, attention_with_probabilities, cast};
use crate::ops::recompute::recompute;

/// Scores that exist at a time, 1 GiB of them.
const SCORES: usize = 1 << 28;

/// How the scores are computed.
#[derive(Module, Debug)]
struct Scores {
    #[module(skip)]
    causal: bool,
    #[module(skip)]
    scale: f64,
    /// That of the values and of the result.
    #[module(skip)]
    format: DType,
    /// The number of the first query.
    #[module(skip)]
    first: usize,
}

/// Scaled dot-product attention on [batch, heads, n, d]; with `causal`, position i sees 0..=i. Where the
/// scores of all queries would take too much memory, some queries come after others.
pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    causal: bool,
    scale: f64,
) -> Tensor<4> {
    let ([batch, heads, ..], [_, _, keys, _]) = (q.dims(), k.dims());
    let slice = SCORES / (batch * heads * keys).max(1);
    attention_in_slices(q, k, v, causal, scale, slice.max(1))
}

/// Attention, and the mean of its probabilities over heads and queries, [batch, 1, 1, keys]; of the
/// probabilities nothing is kept.
pub(crate) fn attention_with_mean(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
) -> (Tensor<4>, Tensor<4>) {
    let scores = Scores {
        causal: false,
        scale,
        format: v.dtype(),
        first: 0,
    };
    let both = stacked(k, v);
    let outputs = recompute(&scores, q, both, |scores, q, both| {
        let [k, v] = scores.unstacked(&both);
        let (y, probabilities) = attention_with_probabilities(q, k, v, scores.scale);
        vec![y, mean_map(probabilities)]
    });
    let [y, mean]: [Tensor<4>; 2] = outputs.try_into().expect("two outputs");
    (y, mean)
}

/// The mean of [batch, heads, queries, keys] over heads and queries, [batch, 1, 1, keys].
pub(crate) fn mean_map(probabilities: Tensor<4>) -> Tensor<4> {
    let [batch, heads, queries, keys] = probabilities.dims();
    let rows = probabilities.reshape([batch, heads * queries, keys]);
    rows.mean_dim(1).reshape([batch, 1, 1, keys])
}

/// Keys and values as one tensor, in the format of the keys.
fn stacked(k: Tensor<4>, v: Tensor<4>) -> Tensor<5> {
    let v = cast(v, k.dtype());
    Tensor::cat(vec![k.unsqueeze::<5>(), v.unsqueeze::<5>()], 0)
}

/// [`attention`] of at most `slice` queries at a time.
fn attention_in_slices(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    causal: bool,
    scale: f64,
    slice: usize,
) -> Tensor<4> {
    let ([_, _, n, d], [_, _, keys, _]) = (q.dims(), k.dims());
    let format = v.dtype();
    // Short prompts: scores are no larger than the queries themselves.
    let keeps = keys <= 2 * d;
    let both = (!keeps).then(|| stacked(k.clone(), v.clone()));
    let part = |first: usize| {
        let rows = slice.min(n - first);
        let q = match rows == n {
            true => q.clone(),
            false => q.clone().narrow(2, first, rows),
        };
        let scores = Scores {
            causal,
            scale,
            format,
            first,
        };
        match &both {
            None => scores.attention(q, k.clone(), v.clone()),
            Some(both) => {
                let outputs = recompute(&scores, q, both.clone(), |scores, q, both| {
                    let [k, v] = scores.unstacked(&both);
                    vec![scores.attention(q, k, v)]
                });
                outputs.into_iter().next().expect("one output")
            }
        }
    };
    let mut parts: Vec<_> = (0..n).step_by(slice).map(part).collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 2),
    }
}

impl Scores {
    /// Keys and values, which were [`stacked`].
    fn unstacked(&self, both: &Tensor<5>) -> [Tensor<4>; 2] {
        let [_, batch, heads, m, d] = both.dims();
        let one = |i| both.clone().narrow(0, i, 1).reshape([batch, heads, m, d]);
        [one(0), cast(one(1), self.format)]
    }

    fn attention(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        attention_of_slice(q, k, v, self.causal.then_some(self.first), self.scale)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::ops::plain;
    use crate::params::to_vec;
    use crate::rng::randn;

    /// Output and gradients of `attention`, of queries, keys and values of one size.
    fn run(
        sizes: [usize; 4],
        keys: usize,
        attention: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let [batch, heads, n, d] = sizes;
        let leaf = |seed, n| {
            let x = randn::<4>([batch, heads, n, d], seed, "attention", 0, &device);
            x.autodiff().require_grad()
        };
        let inputs = [leaf(1, n), leaf(2, keys), leaf(3, keys)];
        let [q, k, v] = inputs.clone();
        let y = attention(q, k, v);
        let weight = randn::<4>(y.dims(), 4, "attention", 0, &device);
        let grads = (y.clone() * weight).sum().backward();
        let gradients = inputs.map(|x| to_vec(x.grad(&grads).expect("a gradient")));
        [vec![to_vec(y.inner())], gradients.to_vec()].concat()
    }

    #[test]
    fn recomputed_scores_in_slices_give_the_same_results_and_gradients() {
        for (keys, causal) in [(12, false), (9, true), (3, false)] {
            let n = if causal { keys } else { 7 };
            let sizes = [2, 3, n, 4];
            let whole = run(sizes, keys, |q, k, v| {
                plain::attention(q, k, v, causal, 0.5)
            });
            for slice in [1, 3, 100] {
                let parts = run(sizes, keys, |q, k, v| {
                    attention_in_slices(q, k, v, causal, 0.5, slice)
                });
                for (a, b) in whole.concat().iter().zip(parts.concat()) {
                    assert!((a - b).abs() < 1e-5, "{keys} keys by {slice}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn the_mean_without_probabilities_is_the_mean_of_the_probabilities() {
        let sizes = [2, 3, 7, 4];
        let join = |y: Tensor<4>, mean: Tensor<4>| {
            let mean = mean.square().sum().reshape([1, 1, 1, 1]);
            y + mean
        };
        let kept = run(sizes, 5, |q, k, v| {
            let (y, probabilities) = plain::attention_with_probabilities(q, k, v, 0.5);
            join(y, mean_map(probabilities))
        });
        let recomputed = run(sizes, 5, |q, k, v| {
            let (y, mean) = attention_with_mean(q, k, v, 0.5);
            assert_eq!(mean.dims(), [2, 1, 1, 5]);
            join(y, mean)
        });
        for (a, b) in kept.concat().iter().zip(recomputed.concat()) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }
}
