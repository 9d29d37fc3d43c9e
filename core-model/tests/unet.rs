//! The U-Net against diffusers' (tests/generate_fixtures/unet.py).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use common::{Golden, fixture};
use core_model::checkpoint::Precision;
use core_model::params::{ParamNames, set_trainable, to_vec};
use core_model::unet::UNet2DConditionModel;

const CASES: [&str; 5] = [
    "sd1-like",
    "sd2-like",
    "mini-like",
    "odd-size",
    "only-cross",
];
const TRAINED: [&str; 3] = [
    "conv_in.weight",
    "conv_norm_out.weight",
    "time_embedding.linear_1.bias",
];

fn load(case: &str) -> UNet2DConditionModel {
    UNet2DConditionModel::load(&fixture(&format!("unet/{case}")), &Device::flex()).unwrap()
}

/// The scalar that the script differentiates: prediction and attention, weighted.
fn loss(prediction: Tensor<4>, maps: &[Tensor<4>], weight: Tensor<4>) -> Tensor<1> {
    let mut loss = (prediction * weight).mean();
    for (layer, map) in maps.iter().enumerate() {
        let [batch, _, _, tokens] = map.dims();
        let token = map.clone().mean_dims(&[1, 2]).reshape([batch, tokens]);
        let ramp: Vec<f32> = (1..=tokens).map(|i| i as f32).collect();
        let ramp = Tensor::<1>::from_floats(ramp.as_slice(), &Device::flex()).unsqueeze::<2>();
        loss = loss + (token.square() * ramp).sum() * (layer as f64 + 1.0);
    }
    loss
}

struct Gradient<'a> {
    golden: &'a Golden,
    names: &'a ParamNames,
    grads: &'a Gradients,
    checked: usize,
}

impl ModuleVisitor for Gradient<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let key = format!("grad.{}", self.names.name(param.id));
        let grad = param.val().grad(self.grads);
        assert_eq!(grad.is_some(), self.golden.contains(&key), "{key}");
        if let Some(grad) = grad {
            self.golden.check(&key, grad);
            self.checked += 1;
        }
    }
}

#[test]
fn prediction_probabilities_and_gradients_are_those_of_diffusers() {
    for case in CASES {
        let golden = Golden::open(&format!("unet/{case}"));
        let unet = load(case);
        let names = unet.names().clone();
        let unet = set_trainable(unet, &names, |key| TRAINED.contains(&key));
        let states = golden.tensor::<3>("states").autodiff().require_grad();
        let timesteps = to_vec(golden.tensor::<1>("timesteps"));
        let (prediction, maps) =
            unet.forward_with_attention(golden.tensor("sample"), &timesteps, states.clone());
        golden.check("prediction", prediction.clone().inner());
        for (layer, map) in maps.iter().enumerate() {
            golden.check(&format!("probabilities.{layer}"), map.clone().inner());
        }
        assert!(!golden.contains(&format!("probabilities.{}", maps.len())));
        let loss = loss(prediction, &maps, golden.tensor("weight"));
        golden.check("loss", loss.clone().inner());
        let grads = loss.backward();
        golden.check("states_grad", states.grad(&grads).unwrap());
        let mut visitor = Gradient {
            golden: &golden,
            names: &names,
            grads: &grads,
            checked: 0,
        };
        unet.visit(&mut visitor);
        assert_eq!(visitor.checked, TRAINED.len());
    }
}

#[test]
fn asking_for_attention_does_not_change_the_prediction() {
    let golden = Golden::open("unet/sd2-like");
    let unet = load("sd2-like");
    let timesteps = to_vec(golden.tensor::<1>("timesteps"));
    let plain = unet.forward(golden.tensor("sample"), &timesteps, golden.tensor("states"));
    golden.check("prediction", plain);
}

#[test]
fn every_sample_has_its_own_timestep() {
    let golden = Golden::open("unet/sd1-like");
    let unet = load("sd1-like");
    let (sample, states) = (golden.tensor::<4>("sample"), golden.tensor::<3>("states"));
    let timesteps = to_vec(golden.tensor::<1>("timesteps"));
    let alone = unet.forward(
        sample.narrow(0, 1, 1),
        &timesteps[1..2],
        states.narrow(0, 1, 1),
    );
    let together = golden.tensor::<4>("prediction").narrow(0, 1, 1);
    let difference = (alone - together).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn saving_and_loading_gives_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::open("unet/mini-like");
    load("mini-like")
        .save(folder.path(), Precision::Full)
        .unwrap();
    let again = UNet2DConditionModel::load(folder.path(), &Device::flex()).unwrap();
    let timesteps = to_vec(golden.tensor::<1>("timesteps"));
    golden.check(
        "prediction",
        again.forward(golden.tensor("sample"), &timesteps, golden.tensor("states")),
    );
}

/// A copy of a fixture whose config.json is edited.
fn edited(case: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let source = fixture(&format!("unet/{case}")).join(name);
        std::fs::copy(source, folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
    folder
}

fn failure(folder: &std::path::Path) -> String {
    UNet2DConditionModel::load(folder, &Device::flex())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let folder = edited(
        "sd1-like",
        "\"cross_attention_dim\": 12",
        "\"cross_attention_dim\": 16",
    );
    let message = failure(folder.path());
    assert!(
        message.contains("diffusion_pytorch_model.safetensors"),
        "{message}"
    );
    assert!(message.contains("attn2.to_k.weight"), "{message}");
    assert!(
        message.contains("[16, 12]") && message.contains("[16, 16]"),
        "{message}"
    );
}

#[test]
fn a_missing_tensor_is_named_with_the_shape_it_needs() {
    let folder = edited(
        "sd1-like",
        "\"layers_per_block\": 1",
        "\"layers_per_block\": 2",
    );
    let message = failure(folder.path());
    assert!(
        message.contains("is missing") && message.contains("resnets.1"),
        "{message}"
    );
}

#[test]
fn a_tensor_that_belongs_to_nothing_is_named() {
    let folder = edited(
        "only-cross",
        "\"transformer_layers_per_block\": 2",
        "\"transformer_layers_per_block\": 1",
    );
    let message = failure(folder.path());
    assert!(message.contains("belongs to no part"), "{message}");
    assert!(message.contains("transformer_blocks.1"), "{message}");
}

#[test]
fn what_the_network_cannot_compute_is_refused_by_key() {
    let cases = [
        (
            "\"dual_cross_attention\": false",
            "\"dual_cross_attention\": true",
        ),
        (
            "\"class_embed_type\": null",
            "\"class_embed_type\": \"timestep\"",
        ),
        ("\"act_fn\": \"silu\"", "\"act_fn\": \"gelu\""),
        ("\"conv_in_kernel\": 3", "\"conv_in_kernel\": 5"),
        ("\"norm_num_groups\": 4", "\"norm_num_groups\": 5"),
    ];
    for (from, to) in cases {
        let message = failure(edited("sd1-like", from, to).path());
        let value = to.split(": ").nth(1).unwrap();
        assert!(message.contains("config.json"), "{message}");
        assert!(message.contains(value), "{message}");
    }
}
