//! The fused operations against the plain compositions: values and every gradient, for odd shapes,
//! strided inputs, each mixture of operands on and off the tape, and several thread pools.

use burn::tensor::{Device, Tensor, TensorData};
use core_model::ops::{self, plain};

/// A seeded normal tensor off the tape.
fn normal<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    use rand::SeedableRng;
    use rand_distr::Distribution as _;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = rand_distr::StandardNormal
        .sample_iter(&mut rng)
        .take(shape.iter().product())
        .collect();
    let data = TensorData::new(values, shape);
    Tensor::from_data(data, &Device::flex())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Asserts that the largest difference is small beside the largest value.
fn assert_close(name: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{name}: lengths");
    let largest = theirs.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let difference = (a - b).abs();
        assert!(
            difference <= 1e-5 * largest,
            "{name}: element {i} is {a}, the plain composition gives {b}"
        );
    }
}

/// How an input lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Contiguous,
    /// Last two dimensions swapped.
    Transposed,
    /// First and last dimension swapped.
    Reversed,
    /// A window of a larger tensor.
    Window,
    /// The first row repeated by stride zero.
    Expanded,
    /// In memory from the last row to the first, by negative strides.
    Flipped,
}

const LAYOUTS: [Layout; 6] = [
    Layout::Contiguous,
    Layout::Transposed,
    Layout::Reversed,
    Layout::Window,
    Layout::Expanded,
    Layout::Flipped,
];

fn laid_out<const D: usize>(shape: [usize; D], seed: u64, layout: Layout) -> Tensor<D> {
    match layout {
        Layout::Transposed if D > 1 => {
            let mut swapped = shape;
            swapped.swap(D - 1, D - 2);
            normal(swapped, seed).swap_dims(D - 1, D - 2)
        }
        Layout::Reversed if D > 1 => {
            let mut swapped = shape;
            swapped.swap(0, D - 1);
            normal(swapped, seed).swap_dims(0, D - 1)
        }
        Layout::Window => {
            let larger = shape.map(|n| n + 2);
            let mut x = normal(larger, seed);
            for (dim, &n) in shape.iter().enumerate() {
                x = x.narrow(dim, 1, n);
            }
            x
        }
        Layout::Expanded => {
            let mut one = shape;
            one[0] = 1;
            normal(one, seed).expand(shape)
        }
        Layout::Flipped => {
            let rows = 0..D.saturating_sub(1).max(1);
            rows.fold(normal(shape, seed), |x, dim| x.flip([dim]))
        }
        _ => normal(shape, seed),
    }
}

/// Runs `check` in the default pool and in pools of one and three threads.
fn in_several_pools(check: impl Fn() + Sync) {
    check();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(&check);
    }
}

/// Compares two expressions of the same inputs, `name: rank = shape`: their values and the
/// gradients of all inputs on the tape, for each layout of the inputs and each choice of those.
macro_rules! compare {
    ([$($id:ident: $rank:literal = $shape:expr),*], $ours:expr, $theirs:expr) => {{
        let count = [$(stringify!($id)),*].len();
        for (mask, layout) in (0..1 << count).flat_map(|m| LAYOUTS.map(|layout| (m, layout))) {
            let mut index = 0;
            $(
                let $id: Tensor<$rank> = {
                    let x = laid_out($shape, index, layout);
                    let tracked = mask >> index & 1 == 1;
                    index += 1;
                    if tracked { x.autodiff().require_grad() } else { x }
                };
            )*
            assert_eq!(index as usize, count);
            let case = format!("{layout:?}, mask {mask:b}");
            let ours = { $(let $id = $id.clone();)* $ours };
            let theirs = { $(let $id = $id.clone();)* $theirs };
            assert_close(&case, &values(ours.clone().inner_values()), &values(theirs.clone().inner_values()));
            if mask == 0 {
                continue;
            }
            let g = |y: Tensor<_>| {
                // the gradient reaches the operation transposed
                let y = y.swap_dims(0, 1);
                let weight = normal(y.dims(), 99);
                (y * weight).sum().backward()
            };
            let (ours, theirs) = (g(ours), g(theirs));
            $(
                if $id.is_require_grad() {
                    let name = format!("{case}, gradient of {}", stringify!($id));
                    let (a, b) = ($id.grad(&ours).unwrap(), $id.grad(&theirs).unwrap());
                    assert_eq!(a.dims(), b.dims(), "{name}");
                    assert_close(&name, &values(a), &values(b));
                }
            )*
        }
    }};
}

/// The values of a tensor on or off the tape.
trait InnerValues {
    fn inner_values(self) -> Self;
}

impl<const D: usize> InnerValues for Tensor<D> {
    fn inner_values(self) -> Self {
        if self.is_autodiff() {
            self.inner()
        } else {
            self
        }
    }
}

#[test]
fn activations_equal_their_plain_compositions() {
    in_several_pools(|| {
        for shape in [[3, 5, 7], [2, 129, 101]] {
            compare!([x: 3 = shape], ops::silu(x * 3.0), plain::silu(x * 3.0));
            compare!([x: 3 = shape], ops::gelu(x * 3.0), plain::gelu(x * 3.0));
            compare!(
                [x: 3 = shape],
                ops::gelu_approximate(x),
                plain::gelu_approximate(x)
            );
            compare!([x: 3 = shape], ops::quick_gelu(x), plain::quick_gelu(x));
            compare!([x: 3 = shape], ops::softmax(x), plain::softmax(x));
        }
        for shape in [[3, 5, 8], [2, 129, 102]] {
            compare!([x: 3 = shape], ops::geglu(x), plain::geglu(x));
        }
    });
}

#[test]
fn sums_and_upsampling_equal_their_plain_compositions() {
    in_several_pools(|| {
        for shape in [[1, 3, 5, 7], [2, 4, 64, 66]] {
            compare!(
                [x: 4 = shape, y: 4 = shape],
                ops::add(x, y),
                plain::add(x, y)
            );
            compare!(
                [x: 4 = shape],
                ops::upsample_nearest_2x(x),
                plain::upsample_nearest_2x(x)
            );
        }
    });
}

#[test]
fn norms_equal_their_plain_compositions() {
    in_several_pools(|| {
        for (shape, groups) in [([2, 6, 3, 5], 3), ([3, 32, 16, 17], 8), ([1, 4, 70, 70], 1)] {
            let channels = shape[1];
            compare!(
                [x: 4 = shape, gamma: 1 = [channels], beta: 1 = [channels]],
                ops::group_norm(x + 0.5, groups, gamma, beta, 1e-5),
                plain::group_norm(x + 0.5, groups, gamma, beta, 1e-5)
            );
            compare!(
                [x: 4 = shape, gamma: 1 = [channels], beta: 1 = [channels]],
                ops::group_norm_silu(x, groups, gamma, beta, 1e-6),
                plain::group_norm_silu(x, groups, gamma, beta, 1e-6)
            );
        }
        for shape in [[2, 3, 5], [4, 77, 130]] {
            let channels = shape[2];
            compare!(
                [x: 3 = shape, gamma: 1 = [channels], beta: 1 = [channels]],
                ops::layer_norm(x, gamma, beta, 1e-5),
                plain::layer_norm(x, gamma, beta, 1e-5)
            );
        }
    });
}

#[test]
fn linear_equals_its_plain_composition() {
    in_several_pools(|| {
        for ([b, n, i], o) in [
            ([2, 3, 5], 7),
            ([3, 1, 4], 1),
            ([4, 260, 33], 50),
            // few rows beside a large weight, of which the product is transposed
            ([1, 40, 512], 400),
            // panels that all tasks share, of a weight as a whole and by groups of outputs
            ([2, 150, 120], 100),
            ([1, 1100, 370], 360),
        ] {
            compare!(
                [x: 3 = [b, n, i], w: 2 = [o, i], bias: 1 = [o]],
                ops::linear(x, w, Some(bias)),
                plain::linear(x, w, Some(bias))
            );
            compare!(
                [x: 3 = [b, n, i], w: 2 = [o, i]],
                ops::linear(x, w, None),
                plain::linear(x, w, None)
            );
        }
        compare!(
            [x: 4 = [2, 3, 4, 5], w: 2 = [6, 3]],
            ops::linear(x.permute([0, 2, 3, 1]), w, None),
            plain::linear(x.permute([0, 2, 3, 1]), w, None)
        );
    });
}

#[test]
fn conv2d_equals_its_plain_composition() {
    // input, outputs, kernel, stride, padding
    let cases = [
        ([1, 3, 5, 7], 4, 3, 1, [1; 4]),
        ([5, 4, 4, 4], 9, 3, 1, [1; 4]),
        ([3, 17, 16, 16], 33, 3, 1, [1; 4]),
        ([2, 8, 20, 36], 5, 3, 1, [1; 4]),
        ([5, 8, 8, 8], 6, 3, 2, [1; 4]),
        ([2, 6, 9, 8], 6, 3, 2, [0, 0, 1, 1]),
        ([2, 5, 6, 6], 7, 1, 1, [0; 4]),
        ([1, 5, 40, 40], 7, 1, 1, [0; 4]),
        ([3, 3, 8, 12], 10, 4, 4, [0; 4]),
        ([2, 3, 7, 6], 4, 3, 1, [0, 2, 1, 0]),
        ([2, 3, 7, 9], 4, 2, 3, [3, 0, 1, 2]),
        // weights that are shared out: shifted copies, rows with places between them, many blocks
        ([1, 110, 8, 8], 270, 3, 1, [1; 4]),
        ([1, 64, 5, 6], 460, 3, 1, [1; 4]),
        ([1, 130, 64, 64], 232, 3, 1, [1; 4]),
        // in tiles: images first, kernels first, odd sides, other padding
        ([2, 129, 16, 16], 200, 3, 1, [1; 4]),
        ([1, 136, 35, 33], 130, 3, 1, [1; 4]),
        ([1, 128, 19, 18], 140, 3, 1, [0, 2, 1, 0]),
    ];
    in_several_pools(|| {
        for (x, outputs, kernel, stride, padding) in cases {
            let weight = [outputs, x[1], kernel, kernel];
            compare!(
                [x: 4 = x, w: 4 = weight, bias: 1 = [outputs]],
                ops::conv2d(x, w, Some(bias), stride, padding),
                plain::conv2d(x, w, Some(bias), stride, padding)
            );
        }
        compare!(
            [x: 4 = [2, 3, 6, 6], w: 4 = [4, 3, 3, 3]],
            ops::conv2d(x, w, None, 1, [1; 4]),
            plain::conv2d(x, w, None, 1, [1; 4])
        );
    });
}

#[test]
fn attention_equals_its_plain_composition() {
    // batch, heads, queries, keys, channels
    let cases = [
        (1, 2, 3, 5, 4),
        (2, 3, 70, 24, 8),
        (1, 2, 130, 130, 9),
        // several blocks of keys
        (2, 2, 70, 1300, 8),
        // more queries in a task than keys are packed for otherwise
        (4, 5, 700, 7, 4),
    ];
    in_several_pools(|| {
        for (b, h, n, m, d) in cases {
            compare!(
                [q: 4 = [b, h, n, d], k: 4 = [b, h, m, d], v: 4 = [b, h, m, d + 1]],
                ops::attention(q, k, v, false, 0.4),
                plain::attention(q, k, v, false, 0.4)
            );
            compare!(
                [q: 4 = [b, h, n, d], k: 4 = [b, h, n, d], v: 4 = [b, h, n, d]],
                ops::attention(q, k, v, true, 0.4),
                plain::attention(q, k, v, true, 0.4)
            );
            // gradients through the output and through the probabilities
            let join = |(o, p): (Tensor<4>, Tensor<4>)| Tensor::cat(vec![o, p.square()], 3);
            compare!(
                [q: 4 = [b, h, n, d], k: 4 = [b, h, m, d], v: 4 = [b, h, m, d]],
                join(ops::attention_with_probabilities(q, k, v, 0.4)),
                join(plain::attention_with_probabilities(q, k, v, 0.4))
            );
        }
    });
}

#[test]
fn adamw_steps_equal_the_plain_composition() {
    in_several_pools(|| {
        for shape in [[3, 5], [150, 301]] {
            let mut ours = [0, 1, 2].map(|i| normal(shape, i).abs());
            let mut theirs = ours.clone();
            for step in 1..=5 {
                let config = ops::AdamW::default();
                let grad = || normal(shape, 10 + step).swap_dims(0, 1).swap_dims(0, 1);
                let [p, m, v] = ours;
                let (p, m, v) = ops::adamw_step(p, grad(), m, v, &config, 1e-2, step);
                ours = [p, m, v];
                let [p, m, v] = theirs;
                let (p, m, v) = plain::adamw_step(p, grad(), m, v, &config, 1e-2, step);
                theirs = [p, m, v];
            }
            for (a, b) in ours.into_iter().zip(theirs) {
                assert_close("adamw", &values(a), &values(b));
            }
        }
    });
}

#[test]
fn adamw_leaves_shared_tensors_as_they_were() {
    let (param, grad) = (normal([4, 4], 0), normal([4, 4], 1));
    let before = values(param.clone());
    let zeros = || param.zeros_like();
    let config = ops::AdamW::default();
    let (new, ..) = ops::adamw_step(param.clone(), grad, zeros(), zeros(), &config, 0.1, 1);
    assert_eq!(values(param), before);
    assert_ne!(values(new), before);
}

#[test]
fn results_have_the_same_bits_for_any_number_of_threads() {
    // plain sums, and tiles with kernels or images first
    let cases = [(6, 32, 48), (6, 128, 144), (1, 128, 144)];
    let compute = |(batch, inputs, outputs): (usize, usize, usize)| {
        let x = normal([batch, inputs, 16, 16], 0).autodiff().require_grad();
        let w = normal([outputs, inputs, 3, 3], 1).autodiff().require_grad();
        let (gamma, beta) = (
            normal([outputs], 2).autodiff().require_grad(),
            normal([outputs], 3),
        );
        let y = ops::conv2d(x.clone(), w.clone(), None, 1, [1; 4]);
        let y = ops::group_norm_silu(y, 8, gamma.clone(), beta, 1e-5);
        let y = y.reshape([batch, 4, outputs / 4, 256]).swap_dims(2, 3);
        let y = ops::attention(y.clone(), y.clone(), y, false, 0.3);
        let grads = (y.clone() * y.clone().detach()).sum().backward();
        [
            values(y.inner()),
            values(x.grad(&grads).unwrap()),
            values(w.grad(&grads).unwrap()),
            values(gamma.grad(&grads).unwrap()),
        ]
    };
    let pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap()
    };
    for case in cases {
        let one = pool(1).install(|| compute(case));
        for threads in [2, 3] {
            let several = pool(threads).install(|| compute(case));
            assert!(several == one, "{case:?}, {threads} threads");
        }
    }
}

#[test]
fn other_number_types_take_the_plain_path() {
    let x = normal([2, 3, 4, 4], 0).cast(burn::tensor::FloatDType::F64);
    let ours: Vec<f64> = ops::silu(x.clone()).into_data().try_to_vec().unwrap();
    let theirs: Vec<f64> = plain::silu(x).into_data().try_to_vec().unwrap();
    assert_eq!(ours, theirs);
}
