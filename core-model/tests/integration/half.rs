//! Networks in float16 against themselves in float32. On the device that `CORE_TEST_DEVICE` names:
//! GPUs compute in float16, and the cpu widens weights, of which the fixtures lose nothing in float16.

use burn::tensor::{DType, FloatDType, Tensor};
use core_model::conditioning::Conditioning;
use core_model::ops;
use core_model::params::{Weights, set_trainable, to_vec};
use core_model::text_encoder::TextEncoder;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;
use core_model::{Network, Precision};

use crate::common::{Golden, device, fixture};

/// Half the distance between 1 and the next number of float16, the error of one rounding.
const ROUNDING: f32 = 1.0 / 2048.0;

/// Roundings that add up from the input of these networks to their outputs.
const ROUNDINGS: f32 = 32.0;

fn load<N: Network>(folder: &str, precision: Precision) -> N {
    let weights = Weights {
        precision,
        ..Weights::default()
    };
    N::load_weights(&fixture(folder), weights, &device()).unwrap()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32, "networks give float32");
    to_vec(tensor.inner())
}

/// Fails unless `half` is `full` within the roundings of float16, and, where the device computes in
/// float16, shows some of them.
fn assert_rounded(what: &str, full: &[f32], half: &[f32]) {
    let largest = full.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let differences = full.iter().zip(half).map(|(a, b)| (a - b).abs());
    // A NaN must not vanish in a maximum.
    let worst = differences.fold(0.0_f32, |m, x| if x > m || x.is_nan() { x } else { m }) / largest;
    assert!(
        worst <= ROUNDINGS * ROUNDING,
        "{what}: differs by {worst:e} of the largest value"
    );
    let rounds = Precision::Float16.computed_on(&device()) == DType::F16;
    assert_eq!(worst > 1e-5, rounds, "{what}: differs by {worst:e}");
}

/// In the format in which the device computes networks in float16.
fn ones<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let format = Precision::Float16.computed_on(&device());
    Tensor::ones(shape, (&device(), format))
}

/// A sum of ones in float16 stays at 2048, to which it cannot add 1, or at 16384 where eight of them are
/// added up side by side.
#[test]
fn products_and_convolutions_of_float16_add_up_in_float32() {
    const TERMS: usize = 32_768;
    let convolve = |x, weight| ops::conv2d(x, weight, None, 1, [0; 4]);

    let product = ops::linear(ones([1, TERMS]), ones([1, TERMS]), None);
    assert_eq!(to_vec(product), [TERMS as f32], "product");
    let y = convolve(ones([1, TERMS, 1, 1]), ones([1, TERMS, 1, 1]));
    assert_eq!(to_vec(y), [TERMS as f32], "convolution");

    let gradient = |of: &Tensor<4>, y: Tensor<4>| {
        let grads = y.cast(FloatDType::F32).sum().backward();
        to_vec(of.grad(&grads).unwrap())
    };
    let x = ones([1, 1, 1, 1]).autodiff().require_grad();
    let y = convolve(x.clone(), ones([TERMS, 1, 1, 1]));
    assert_eq!(gradient(&x, y), [TERMS as f32], "gradient of the input");
    // One after the other, and few, as Mesa's software driver leaves loops after 65535 rounds.
    let weight = ones([1, 1, 1, 1]).autodiff().require_grad();
    let y = convolve(ones([1, 1, 64, 64]), weight.clone());
    assert_eq!(gradient(&weight, y), [4096.0], "gradient of the weight");
}

#[test]
fn predictions_maps_and_gradients_of_the_unet_are_those_of_float32() {
    for (case, checkpointing) in [
        ("sd1-like", false),
        ("sd2-like", false),
        ("sd2-like", true),
        ("mini-like", false),
    ] {
        let golden = Golden::open(&format!("unet/{case}"));
        let run = |precision, trained: bool| {
            let unet: UNet2DConditionModel = load(&format!("unet/{case}"), precision);
            let names = unet.names().clone();
            let unet = set_trainable(unet, &names, |key| trained && key.contains("attn2"))
                .with_gradient_checkpointing(checkpointing);
            let states = golden.tensor::<3>("states").autodiff().require_grad();
            let timesteps = to_vec(golden.tensor::<1>("timesteps"));
            let prompt = Conditioning::from(states.clone());
            let sample = golden.tensor("sample");
            let (prediction, maps) = unet.forward_with_attention(sample, &timesteps, prompt);
            let mut loss = prediction.clone().square().mean();
            for map in &maps {
                loss = loss + map.clone().square().mean();
            }
            // As the loss scale of training does, so that gradients stay in float16's range.
            let grads = (loss * 65_536.0).backward();
            let maps = maps.into_iter().map(|map| map.flatten::<1>(0, 3)).collect();
            [
                values(prediction),
                values(Tensor::cat(maps, 0)),
                values(states.grad(&grads).unwrap()),
            ]
        };
        let full = run(Precision::Float32, false);
        for trained in [false, true] {
            let half = run(Precision::Float16, trained);
            for (what, (full, half)) in ["prediction", "maps", "gradient"]
                .iter()
                .zip(full.iter().zip(&half))
            {
                assert_rounded(&format!("{case}, {checkpointing}: {what}"), full, half);
            }
        }
    }
}

#[test]
fn latents_and_images_of_the_autoencoder_are_those_of_float32() {
    let golden = Golden::open("vae/with-quant-conv");
    let run = |precision| {
        let vae: AutoencoderKl = load("vae/with-quant-conv", precision);
        let latents = vae.encode(golden.tensor("pixels"));
        [
            values(vae.decode(latents.sample(golden.tensor("noise")))),
            values(latents.mean),
        ]
    };
    let (full, half) = (run(Precision::Float32), run(Precision::Float16));
    assert_rounded("image", &full[0], &half[0]);
    assert_rounded("mean", &full[1], &half[1]);
}

#[test]
fn hidden_states_and_gradients_of_the_text_encoder_are_those_of_float32() {
    let run = |precision| {
        let encoder: TextEncoder = load("text-encoder/gelu", precision);
        let d = encoder.config().hidden_size;
        let rows = core_model::rng::randn([1, d], 3, "rows", 0, &device());
        let rows = rows.autodiff().require_grad();
        let placeholder = encoder.config().vocab_size as u32;
        let hidden = encoder.forward(&[vec![3, placeholder, 5, 9]], Some(rows.clone()));
        let weights = core_model::rng::randn([1, 4, d], 3, "weights", 0, &device());
        let grads = (hidden.clone() * weights).sum().backward();
        [values(hidden), values(rows.grad(&grads).unwrap())]
    };
    let (full, half) = (run(Precision::Float32), run(Precision::Float16));
    assert_rounded("hidden states", &full[0], &half[0]);
    assert_rounded("gradient", &full[1], &half[1]);
}
