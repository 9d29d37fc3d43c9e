//! A sample has the same bits whichever others are computed with it: an image does not depend on how
//! many are drawn at once, nor a score on how many are scored.

use burn::tensor::{Tensor, TensorData};
use core_model::Network;
use core_model::clip::ClipModel;
use core_model::clipseg::ClipSegModel;
use core_model::dino::DinoModel;
use core_model::ops;
use core_model::params::to_vec;
use core_model::text_encoder::TextEncoder;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::common::{Golden, device, fixture};

/// Seeded normal values.
fn normal<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    use rand::SeedableRng;
    use rand_distr::Distribution as _;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = rand_distr::StandardNormal
        .sample_iter(&mut rng)
        .take(shape.iter().product())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    to_vec(x).into_iter().map(f32::to_bits).collect()
}

/// Asserts that each sample of `x` gives the same bits alone, with the next ones, and with all.
fn check<const D: usize, const E: usize>(
    name: &str,
    x: &Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let batch = x.dims()[0];
    let all = f(x.clone());
    for (first, count) in (0..batch).flat_map(|i| [(i, 1), (i, 2), (i, 3)]) {
        if first + count <= batch {
            let some = f(x.clone().narrow(0, first, count));
            let same = bits(some) == bits(all.clone().narrow(0, first, count));
            assert!(
                same,
                "{name}: samples {first} to {} of {batch}",
                first + count
            );
        }
    }
}

/// [`check`] of an operation and of the gradient of its input.
fn check_with_gradient<const D: usize, const E: usize>(
    name: &str,
    x: &Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    check(name, x, &f);
    check(&format!("gradient of {name}"), x, |x| {
        let x = x.autodiff().require_grad();
        let y = f(x.clone());
        let gradients = (y.clone() * y.detach()).sum().backward();
        x.grad(&gradients).unwrap()
    });
}

/// Sizes on both sides of every limit at which operations cut their work.
fn size(largest: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1..=largest.min(12), 1..=largest]
}

fn settings() -> ProptestConfig {
    ProptestConfig {
        cases: 250,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn convolutions_of_a_sample_have_the_same_bits_in_any_batch(
        batch in 2..10_usize,
        inputs in size(140),
        outputs in size(70),
        [height, width] in [size(20), size(20)],
        (kernel, stride, padding) in prop_oneof![
            Just((3, 1, 1)), Just((3, 2, 1)), Just((1, 1, 0)), Just((4, 4, 0)), Just((2, 1, 0)), Just((1, 2, 0)),
        ],
        biased in any::<bool>(),
    ) {
        prop_assume!(height + 2 * padding >= kernel && width + 2 * padding >= kernel);
        let name = format!(
            "convolution {kernel}x{kernel} of {height}x{width}, {inputs} to {outputs} channels, stride {stride}, bias {biased}"
        );
        let weight = normal([outputs, inputs, kernel, kernel], 1);
        let bias = biased.then(|| normal([outputs], 2));
        check_with_gradient(&name, &normal([batch, inputs, height, width], 0), |x| {
            ops::conv2d(x, weight.clone(), bias.clone(), stride, [padding; 4])
        });
    }

    #[test]
    fn convolutions_in_tiles_have_the_same_bits_in_any_batch(
        batch in 2..5_usize,
        [inputs, outputs] in [128..150_usize, 128..150_usize],
        [height, width] in [16..23_usize, 16..23_usize],
        biased in any::<bool>(),
    ) {
        let name = format!("{height}x{width}, {inputs} to {outputs} channels, bias {biased}");
        let weight = normal([outputs, inputs, 3, 3], 1);
        let bias = biased.then(|| normal([outputs], 2));
        check_with_gradient(&name, &normal([batch, inputs, height, width], 0), |x| {
            ops::conv2d(x, weight.clone(), bias.clone(), 1, [1; 4])
        });
    }

    #[test]
    fn linear_maps_of_a_sample_have_the_same_bits_in_any_batch(
        batch in 2..70_usize,
        rows in size(60),
        inputs in size(700),
        outputs in size(300),
        biased in any::<bool>(),
    ) {
        let name = format!("linear map of {rows} rows, {inputs} to {outputs}, bias {biased}");
        let weight = normal([outputs, inputs], 1);
        let bias = biased.then(|| normal([outputs], 2));
        let batch = if rows * inputs > 4000 { 2 + batch % 4 } else { batch };
        check_with_gradient(&name, &normal([batch, rows, inputs], 0), |x| {
            ops::linear(x, weight.clone(), bias.clone())
        });
        // An image, of which the channels come last in no copy.
        check(&name, &normal([batch, inputs, rows], 0), |x| {
            ops::linear(x.swap_dims(1, 2), weight.clone(), bias.clone())
        });
    }

    #[test]
    fn attention_of_a_sample_has_the_same_bits_in_any_batch(
        batch in 2..6_usize,
        heads in size(4),
        [queries, keys] in [size(150), size(230)],
        channels in size(40),
        causal in any::<bool>(),
    ) {
        let name = format!("attention, {heads} heads, {queries} queries, {keys} keys, {channels} channels");
        let causal = causal && keys >= queries;
        // Queries, keys and values side by side, as one tensor of samples.
        let x = normal([batch, heads, queries + 2 * keys, channels], 0);
        let parts = |x: Tensor<4>| {
            let [q, k, v] = [(0, queries), (queries, keys), (queries + keys, keys)]
                .map(|(first, count)| x.clone().narrow(2, first, count));
            (q, k, v)
        };
        check_with_gradient(&name, &x, |x| {
            let (q, k, v) = parts(x);
            ops::attention(q, k, v, causal, 0.3)
        });
        check_with_gradient(&name, &x, |x| {
            let (q, k, v) = parts(x);
            let (y, probabilities) = ops::attention_with_probabilities(q, k, v, 0.3);
            Tensor::cat(vec![y, probabilities], 3)
        });
    }

    #[test]
    fn norms_and_activations_of_a_sample_have_the_same_bits_in_any_batch(
        batch in 2..10_usize,
        groups in size(8),
        width in size(12),
        [height, breadth] in [size(30), size(30)],
    ) {
        let channels = groups * width;
        let x = normal([batch, channels, height, 2 * breadth], 0);
        let (gamma, beta) = (normal([channels], 1), normal([channels], 2));
        let (wide_gamma, wide_beta) = (normal([2 * breadth], 3), normal([2 * breadth], 4));
        check_with_gradient("group norm", &x, |x| {
            ops::group_norm(x, groups, gamma.clone(), beta.clone(), 1e-5)
        });
        check_with_gradient("group norm with SiLU", &x, |x| {
            ops::group_norm_silu(x, groups, gamma.clone(), beta.clone(), 1e-5)
        });
        check_with_gradient("layer norm", &x, |x| {
            ops::layer_norm(x, wide_gamma.clone(), wide_beta.clone(), 1e-5)
        });
        check_with_gradient("softmax", &x, ops::softmax);
        check_with_gradient("SiLU", &x, ops::silu);
        check_with_gradient("GELU", &x, ops::gelu);
        check_with_gradient("tanh GELU", &x, ops::gelu_approximate);
        check_with_gradient("quick GELU", &x, ops::quick_gelu);
        check_with_gradient("GEGLU", &x, ops::geglu);
        check_with_gradient("upsampling", &x, ops::upsample_nearest_2x);
        check_with_gradient("sum", &x, |x| ops::add(x.clone(), x));
    }
}

#[test]
fn networks_give_a_sample_the_same_bits_in_any_batch() {
    for case in ["sd1-like", "sd2-like", "mini-like", "odd-size"] {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet =
            UNet2DConditionModel::load(&fixture(&format!("unet/{case}")), &device()).unwrap();
        let [_, channels, height, width] = golden.tensor::<4>("sample").dims();
        let states = golden.tensor::<3>("states").narrow(0, 0, 1);
        check(
            &format!("U-Net {case}"),
            &normal([9, channels, height, width], 0),
            |x| {
                let batch = x.dims()[0];
                let states = states.clone().repeat_dim(0, batch);
                unet.forward(x, &vec![300.0; batch], states)
            },
        );
    }
    let vae = AutoencoderKl::load(&fixture("vae/with-quant-conv"), &device()).unwrap();
    check("encoder", &normal([5, 3, 32, 32], 0), |x| {
        vae.encode(x).mean
    });
    check(
        "decoder",
        &normal([5, vae.config().latent_channels, 8, 8], 0),
        |x| vae.decode(x),
    );
}

#[test]
fn encoders_give_a_sample_the_same_bits_in_any_batch() {
    let models = fixture("../../../models");
    let clip = ClipModel::load(&models.join("mini-clip"), &device()).unwrap();
    let dino = DinoModel::load(&models.join("mini-dino"), &device()).unwrap();
    let pixels = |side: usize| normal([7, 3, side, side], 0);
    let side = clip.config().vision_config.image_size;
    check("CLIP's image encoder", &pixels(side), |x| {
        clip.image_features(x)
    });
    check("DINO", &pixels(dino.config().image_size), |x| {
        dino.features(x)
    });
    let clipseg = ClipSegModel::load(&models.join("mini-clipseg"), &device()).unwrap();
    let side = clipseg.config().clip.vision_config.image_size;
    let text = clipseg.text_features(&[vec![660, 5, 661]]);
    check("CLIPSeg", &pixels(side), |x| {
        let batch = x.dims()[0];
        clipseg.forward(x, text.clone().repeat_dim(0, batch))
    });
    let encoder = TextEncoder::load(&models.join("mini/text_encoder"), &device()).unwrap();
    let prompts = |numbers: Vec<f32>| -> Vec<Vec<u32>> {
        let prompt = |i: f32| (0..24).map(|t| (7 * i as u32 + 3 * t) % 600).collect();
        numbers.into_iter().map(prompt).collect()
    };
    let numbers = Tensor::from_data([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], &device());
    check("text encoder", &numbers, |x: Tensor<2>| {
        encoder.forward(&prompts(to_vec(x)), None)
    });
}
