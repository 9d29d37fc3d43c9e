//! The U-Net against diffusers' (tests/generate_fixtures/unet.py).

use std::path::Path;

use crate::common::{Golden, device, edited, fixture, stored_tensors};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::conditioning::Conditioning;
use core_model::params::{Weights, set_trainable, to_vec};
use core_model::unet::{PerLevel, Probabilities, UNet2DConditionConfig, UNet2DConditionModel};
use serde_json::{Value, json};

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
fn saving_and_loading_gives_the_same_network() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case);
        unet.save(folder.path(), Precision::Float32).unwrap();
        let again = UNet2DConditionModel::load(folder.path(), &device()).unwrap();
        assert_eq!(again.config(), unet.config());
        let prediction = again.forward(
            golden.tensor("sample"),
            &timesteps(&golden),
            golden.tensor("states"),
        );
        golden.check("prediction", prediction);
    }
}

#[test]
fn saved_weights_have_the_keys_and_shapes_of_diffusers() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        load(case).save(folder.path(), Precision::Float16).unwrap();
        let saved = stored_tensors(folder.path());
        assert_eq!(saved, stored_tensors(&fixture(&format!("unet/{case}"))));
    }
    let projection = "mid_block.attentions.0.proj_in.weight";
    let stored = |case| stored_tensors(&fixture(case))[projection].clone();
    assert_eq!(stored("unet/sd1-like"), [16, 16, 1, 1]);
    assert_eq!(stored("unet/sd2-like"), [16, 16]);
}

#[test]
fn saved_configs_say_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path.join("config.json")).unwrap()).unwrap()
    };
    for case in CASES {
        let original = fixture(&format!("unet/{case}"));
        load(case).save(folder.path(), Precision::Float16).unwrap();
        let (original, saved) = (read(&original), read(folder.path()));
        assert_eq!(saved["_class_name"], "UNet2DConditionModel");
        for (key, value) in original.as_object().unwrap() {
            let Some(saved) = saved.get(key) else {
                continue;
            };
            let same_number = value.is_number() && value.as_f64() == saved.as_f64();
            assert!(value == saved || same_number, "{key}: {value}, {saved}");
        }
    }
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

fn failure(folder: &Path) -> String {
    UNet2DConditionModel::load(folder, &device())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let folder = edited("unet/sd1-like", "cross_attention_dim", json!(16));
    let message = failure(folder.path());
    let parts = [
        "diffusion_pytorch_model.safetensors",
        "attn2.to_k.weight",
        "[8, 12]",
        "[8, 16]",
    ];
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_missing_tensor_is_named_with_the_shape_it_needs() {
    let folder = edited("unet/sd1-like", "layers_per_block", json!(2));
    let message = failure(folder.path());
    let parts = [
        "diffusion_pytorch_model.safetensors",
        "down_blocks.0.resnets.1.norm1.weight",
        "[8] is missing",
    ];
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_tensor_that_belongs_to_nothing_is_named() {
    let folder = edited(
        "unet/rare-options",
        "transformer_layers_per_block",
        json!(1),
    );
    let message = failure(folder.path());
    let parts = [
        "diffusion_pytorch_model.safetensors",
        "belongs to no part",
        "transformer_blocks.1",
    ];
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_the_network_cannot_compute_is_refused_by_key() {
    let cases = [
        ("dual_cross_attention", json!(true)),
        ("class_embed_type", json!("timestep")),
        ("class_embeddings_concat", json!(true)),
        ("num_class_embeds", json!(10)),
        ("addition_embed_type", json!("text_time")),
        ("encoder_hid_dim", json!(32)),
        ("time_cond_proj_dim", json!(16)),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("conv_in_kernel", json!(5)),
        ("act_fn", json!("gelu")),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("mid_block_type", Value::Null),
        ("norm_num_groups", json!(5)),
        ("attention_head_dim", json!([2, 5, 2])),
        ("attention_head_dim", json!([2, 2])),
        ("cross_attention_dim", json!([12, 12, 16])),
        ("block_out_channels", json!([])),
        ("down_block_types", json!(["AttnDownBlock2D"])),
    ];
    for (key, value) in cases {
        let message = failure(edited("unet/mini-like", key, value.clone()).path());
        assert!(message.contains("config.json"), "{key} {value}: {message}");
        // A wrong block's name is refused by its value.
        let named = match key {
            "down_block_types" => "AttnDownBlock2D",
            "norm_num_groups" => "norm_num_groups, 5",
            key => key,
        };
        assert!(message.contains(named), "{key} {value}: {message}");
    }
}

#[test]
fn null_is_read_where_published_configs_say_it() {
    for (key, value) in [
        ("upcast_attention", Value::Null),
        ("dual_cross_attention", Value::Null),
        ("num_attention_heads", Value::Null),
        ("sample_size", Value::Null),
    ] {
        let folder = edited("unet/mini-like", key, value);
        UNet2DConditionModel::load(folder.path(), &device()).unwrap();
    }
}

#[test]
fn absent_keys_are_those_of_stable_diffusion_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    // SD 1.5's file states these; the class's own defaults do the rest.
    let text = json!({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768});
    std::fs::write(&path, text.to_string()).unwrap();
    let config = UNet2DConditionConfig::from_file(&path).unwrap();
    assert_eq!(config.block_out_channels, [320, 640, 1280, 1280]);
    assert_eq!(config.layers_per_block, PerLevel::All(2));
    assert_eq!(config.heads(3), Some(8));
    assert_eq!(config.cross_attention_dim, PerLevel::All(768));
    assert!(!config.use_linear_projection);
}
