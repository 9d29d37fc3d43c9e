//! The U-Net against diffusers' (tests/generate_fixtures/unet.py).

mod files;

use crate::common::{Golden, device, fixture};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::conditioning::Conditioning;
use core_model::params::{Weights, set_trainable, to_vec};
use core_model::unet::{Probabilities, UNet2DConditionModel};

const CASES: [&str; 5] = [
    "sd1-like",
    "sd2-like",
    "mini-like",
    "odd-size",
    "rare-options",
];

fn load(case: &str) -> UNet2DConditionModel {
    UNet2DConditionModel::load(&fixture(&format!("unet/{case}")), &device()).unwrap()
}

fn with_and_without_checkpointing() -> impl Iterator<Item = (&'static str, bool)> {
    let each = |case: &&'static str| [(*case, false), (*case, true)];
    CASES.iter().flat_map(each)
}

fn timesteps(golden: &Golden) -> Vec<f32> {
    to_vec(golden.tensor::<1>("timesteps"))
}

/// The scalar that the script differentiates: prediction and attention, weighted.
fn loss(prediction: Tensor<4>, maps: &[Tensor<4>], weight: Tensor<4>) -> Tensor<1> {
    let mut loss = (prediction * weight).mean();
    for (layer, map) in maps.iter().enumerate() {
        let [batch, _, _, tokens] = map.dims();
        let token = map.clone().mean_dims(&[1, 2]).reshape([batch, tokens]);
        let ramp: Vec<f32> = (1..=tokens).map(|i| i as f32).collect();
        let ramp = Tensor::<1>::from_floats(ramp.as_slice(), &device()).unsqueeze::<2>();
        loss = loss + (token.square() * ramp).sum() * (layer as f64 + 1.0);
    }
    loss
}

#[test]
fn prediction_probabilities_and_gradients_are_those_of_diffusers() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case).with_gradient_checkpointing(checkpointing);
        let names = unet.names().clone();
        let unet = set_trainable(unet, &names, |_| true);
        let states = golden.tensor::<3>("states").autodiff().require_grad();
        let (prediction, maps) = unet.forward_with_attention(
            golden.tensor("sample"),
            &timesteps(&golden),
            states.clone(),
        );
        golden.check("prediction", prediction.clone().inner());
        assert_eq!(maps.len(), golden.count("probabilities."));
        for (layer, map) in maps.iter().enumerate() {
            golden.check(&format!("probabilities.{layer}"), map.clone().inner());
        }
        let loss = loss(prediction, &maps, golden.tensor("weight"));
        golden.check("loss", loss.clone().inner());
        let grads = loss.backward();
        golden.check("states_grad", states.grad(&grads).unwrap());
        golden.check_gradients(&unet, &names, &grads);
    }
}

#[test]
fn gradients_reach_the_prompt_through_a_frozen_network() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let states = golden.tensor::<3>("states").autodiff().require_grad();
        let unet = load(case).with_gradient_checkpointing(checkpointing);
        let (prediction, maps) = unet.forward_with_attention(
            golden.tensor("sample"),
            &timesteps(&golden),
            states.clone(),
        );
        let grads = loss(prediction, &maps, golden.tensor("weight")).backward();
        golden.check("states_grad", states.grad(&grads).unwrap());
    }
}

#[test]
fn the_first_tokens_gradient_can_be_stopped_and_nothing_else_changes() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let states = golden.tensor::<3>("states").autodiff().require_grad();
        let unet = load(case)
            .with_gradient_checkpointing(checkpointing)
            .with_first_token_gradient_stopped(true);
        let (prediction, maps) = unet.forward_with_attention(
            golden.tensor("sample"),
            &timesteps(&golden),
            states.clone(),
        );
        golden.check("prediction", prediction.clone().inner());
        let grads = loss(prediction, &maps, golden.tensor("weight")).backward();
        let grad = states.grad(&grads).unwrap();
        let tokens = grad.dims()[1];
        let first = to_vec(grad.clone().narrow(1, 0, 1));
        assert!(first.iter().all(|value| *value == 0.0), "{case}");
        let first = golden.tensor::<3>("states_grad").narrow(1, 0, 1);
        let others = grad.narrow(1, 1, tokens - 1);
        golden.check("states_grad", Tensor::cat(vec![first, others], 1));
    }
}

#[test]
fn states_of_every_layer_have_gradients_that_add_up_to_those_of_shared_states() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case).with_gradient_checkpointing(checkpointing);
        let states = golden.tensor::<3>("states").unsqueeze_dim::<4>(0);
        let states = states.repeat_dim(0, unet.cross_attentions());
        let [keys, values] = [states.clone(), states].map(|s| s.autodiff().require_grad());
        let (prediction, maps) = unet.forward_with_attention(
            golden.tensor("sample"),
            &timesteps(&golden),
            Conditioning::per_layer(keys.clone(), Some(values.clone())),
        );
        assert_eq!(maps.len(), unet.cross_attentions());
        golden.check("prediction", prediction.clone().inner());
        let grads = loss(prediction, &maps, golden.tensor("weight")).backward();
        let sum = keys.grad(&grads).unwrap() + values.grad(&grads).unwrap();
        golden.check("states_grad", sum.sum_dim(0).squeeze_dim::<3>(0));
    }
}

#[test]
fn layers_are_counted_in_the_order_in_which_they_are_passed() {
    let golden = Golden::open("unet/sd2-like");
    let unet = load("sd2-like");
    let layers = unet.cross_attentions();
    let states = golden.tensor::<3>("states").unsqueeze_dim::<4>(0);
    let states = states.repeat_dim(0, layers);
    let maps = |keys: Tensor<4>| -> Vec<Vec<f32>> {
        let prompt = Conditioning::per_layer(keys, None);
        let (_, maps) =
            unet.forward_with_attention(golden.tensor("sample"), &timesteps(&golden), prompt);
        maps.into_iter().map(to_vec).collect()
    };
    let before = maps(states.clone());
    for layer in 0..layers {
        let [_, batch, tokens, channels] = states.dims();
        let other = states.clone().slice_assign(
            [layer..layer + 1, 0..batch, 0..tokens, 0..channels],
            states.clone().narrow(0, layer, 1) * 0.5,
        );
        let after = maps(other);
        assert_eq!(after[..layer], before[..layer], "layers before {layer}");
        assert_ne!(after[layer], before[layer], "layer {layer}");
    }
}

#[test]
fn weights_in_half_precision_give_the_numbers_of_their_rounded_values_on_the_cpu() {
    if Precision::Float16.computed_on(&device()) != DType::F32 {
        // GPUs compute in half precision too; half.rs has that.
        return;
    }
    for case in CASES {
        let golden = Golden::open(&format!("unet/{case}"));
        let folder = fixture(&format!("unet/{case}"));
        for (precision, rounding) in [(Precision::Float16, 1e-6), (Precision::Bfloat16, 0.2)] {
            let run = |precision, trained: bool| {
                let weights = Weights {
                    precision,
                    ..Default::default()
                };
                let unet = UNet2DConditionModel::load_weights(&folder, weights, &device()).unwrap();
                let names = unet.names().clone();
                let unet = set_trainable(unet, &names, |key| trained && key.contains("attn2"));
                let states = golden.tensor::<3>("states").autodiff().require_grad();
                let sample = golden.tensor("sample");
                let prediction = unet.forward(sample, &timesteps(&golden), states.clone());
                let grads = prediction.clone().square().mean().backward();
                [
                    to_vec(prediction.inner().flatten::<1>(0, 3)),
                    to_vec(states.grad(&grads).unwrap().flatten::<1>(0, 2)),
                ]
            };
            // The fixtures hold float16: nothing is lost in it, something in bfloat16.
            let full = run(Precision::Float32, false);
            for half in [run(precision, false), run(precision, true)] {
                for (full, half) in full.iter().zip(&half) {
                    let largest = full.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                    for (a, b) in full.iter().zip(half) {
                        assert!((a - b).abs() <= rounding * largest, "{case}: {a} and {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn bfloat16_is_refused_where_a_backend_reads_it_wrongly() {
    let refused = Precision::Bfloat16.check("wgpu:0").unwrap_err();
    assert!(refused.to_string().contains("float16"), "{refused}");
    assert!(Precision::Bfloat16.check("cpu").is_ok());
    assert!(Precision::Float16.check("wgpu").is_ok());
}

#[test]
fn gradient_checkpointing_changes_neither_prediction_nor_gradients() {
    for case in CASES {
        let golden = Golden::open(&format!("unet/{case}"));
        let run = |checkpointing| {
            let unet = load(case).with_gradient_checkpointing(checkpointing);
            let states = golden.tensor::<3>("states").autodiff().require_grad();
            let prediction =
                unet.forward(golden.tensor("sample"), &timesteps(&golden), states.clone());
            let grads = prediction.clone().square().mean().backward();
            [
                to_vec(prediction.inner().flatten::<1>(0, 3)),
                to_vec(states.grad(&grads).unwrap().flatten::<1>(0, 2)),
            ]
        };
        let ([plain, gradient], [recomputed, again]) = (run(false), run(true));
        assert_eq!(plain, recomputed, "{case}");
        let largest = gradient.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (a, b) in gradient.iter().zip(&again) {
            assert!((a - b).abs() <= 1e-6 * largest, "{case}: {a} and {b}");
        }
    }
}

#[test]
fn mean_attention_and_its_gradients_are_those_of_the_probabilities() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let run = |attention: Probabilities| {
            let unet = load(case).with_gradient_checkpointing(checkpointing);
            let states = golden.tensor::<3>("states").autodiff().require_grad();
            let (sample, timesteps) = (golden.tensor("sample"), timesteps(&golden));
            let (count, all) = (timesteps.len(), states.clone());
            let (prediction, maps) = unet.forward_some(sample, &timesteps, all, count, attention);
            let prediction = prediction.unwrap();
            let grads = loss(prediction.clone(), &maps, prediction.inner()).backward();
            let gradient = to_vec(states.grad(&grads).unwrap().flatten::<1>(0, 2));
            let shapes: Vec<[usize; 4]> = maps.iter().map(Tensor::dims).collect();
            (gradient, shapes)
        };
        let ((full, of_maps), (means, of_means)) =
            (run(Probabilities::Whole), run(Probabilities::Means));
        for (maps, means) in of_maps.iter().zip(&of_means) {
            assert_eq!(*means, [maps[0], 1, 1, maps[3]], "{case}");
        }
        let largest = full.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (a, b) in full.iter().zip(&means) {
            assert!((a - b).abs() <= 1e-5 * largest, "{case}: {a} and {b}");
        }
    }
}

#[test]
fn asking_for_attention_does_not_change_the_prediction() {
    for case in CASES {
        let golden = Golden::open(&format!("unet/{case}"));
        let plain = load(case).forward(
            golden.tensor("sample"),
            &timesteps(&golden),
            golden.tensor("states"),
        );
        golden.check("prediction", plain);
    }
}

/// The gradients of all parameters, one after the other.
fn all_gradients(unet: &UNet2DConditionModel, grads: &Gradients) -> Vec<f32> {
    struct Visitor<'a>(&'a Gradients, Vec<f32>);
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.extend(to_vec(param.val().grad(self.0).unwrap()));
        }
    }
    let mut visitor = Visitor(grads, Vec::new());
    unet.visit(&mut visitor);
    visitor.1
}

#[test]
fn several_prompts_of_a_sample_have_the_bits_of_a_repeated_sample() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case).with_gradient_checkpointing(checkpointing);
        let (sample, once) = (golden.tensor::<4>("sample"), timesteps(&golden));
        let states = golden.tensor::<3>("states");
        let states = Tensor::cat(vec![states.clone(), states.clone() * 0.5, states * -1.5], 0);
        let names = unet.names().clone();
        for trained in [false, true] {
            let unet = set_trainable(unet.clone(), &names, |_| trained);
            let run = |sample: Tensor<4>, timesteps: &[f32]| {
                let states = states.clone().autodiff().require_grad();
                let (prediction, maps) =
                    unet.forward_with_attention(sample, timesteps, states.clone());
                let weight = prediction.clone().inner().sin();
                let values = to_vec(prediction.clone());
                let grads = loss(prediction, &maps, weight).backward();
                let mut all = vec![values, to_vec(states.grad(&grads).unwrap())];
                all.extend(maps.into_iter().map(to_vec));
                if trained {
                    all.push(all_gradients(&unet, &grads));
                }
                all
            };
            let repeated = run(sample.clone().repeat_dim(0, 3), &once.repeat(3));
            let shared = run(sample.clone(), &once);
            assert!(shared == repeated, "{case}, trained: {trained}");
        }
    }
}

#[test]
fn predictions_that_nobody_reads_change_no_bit_of_the_others() {
    for (case, checkpointing) in with_and_without_checkpointing() {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case).with_gradient_checkpointing(checkpointing);
        let (sample, times) = (golden.tensor::<4>("sample"), timesteps(&golden));
        let states = golden.tensor::<3>("states");
        let states = Tensor::cat(vec![states.clone(), states * 0.5], 0);
        let samples = times.len();
        let names = unet.names().clone();
        for (trained, kept) in [(false, samples), (true, samples), (false, 0), (true, 0)] {
            let unet = set_trainable(unet.clone(), &names, |_| trained);
            let run = |predictions: usize| {
                let states = states.clone().autodiff().require_grad();
                let (sample, states_in) = (sample.clone(), states.clone());
                let (prediction, maps) =
                    unet.forward_some(sample, &times, states_in, predictions, Probabilities::Whole);
                let prediction = match prediction {
                    Some(prediction) if kept > 0 => prediction.narrow(0, 0, kept),
                    _ => golden.tensor::<4>("sample") * 0.0,
                };
                let values = to_vec(prediction.clone().inner());
                let weight = prediction.clone().inner().sin();
                let grads = loss(prediction, &maps, weight).backward();
                let mut all = vec![values, to_vec(states.grad(&grads).unwrap())];
                all.extend(maps.into_iter().map(to_vec));
                all
            };
            assert!(run(kept) == run(2 * samples), "{case}, {trained}, {kept}");
        }
    }
}

#[test]
fn every_sample_has_its_own_timestep() {
    let golden = Golden::open("unet/sd1-like");
    let (sample, states) = (golden.tensor::<4>("sample"), golden.tensor::<3>("states"));
    let alone = load("sd1-like").forward(
        sample.narrow(0, 1, 1),
        &timesteps(&golden)[1..2],
        states.narrow(0, 1, 1),
    );
    let together = golden.tensor::<4>("prediction").narrow(0, 1, 1);
    let difference = (alone - together).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn a_fresh_network_depends_on_its_seed_alone() {
    let config = load("mini-like").config().clone();
    let predict = |seed| {
        let unet = UNet2DConditionModel::init(&config, seed, &device()).unwrap();
        let golden = Golden::open("unet/mini-like");
        to_vec(unet.forward(
            golden.tensor("sample"),
            &timesteps(&golden),
            golden.tensor("states"),
        ))
    };
    let first = predict(0);
    assert_eq!(first, predict(0));
    assert_ne!(first, predict(1));
}
