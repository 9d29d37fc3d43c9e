//! CLIPSeg against transformers' (tests/generate_fixtures/clipseg.py).

use crate::common::{Golden, device, fixture};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::clip::ClipModel;
use core_model::clipseg::{ClipSegDecoderConfig, ClipSegModel};
use core_model::params::{ParamNames, set_trainable, to_vec};

const CASES: [&str; 2] = ["simple", "refined"];

fn load(case: &str) -> ClipSegModel {
    ClipSegModel::load(&fixture(&format!("clipseg/{case}")), &device()).unwrap()
}

fn ids() -> Vec<Vec<u32>> {
    vec![
        vec![38, 3, 17, 5, 39, 0, 0, 0, 0],
        vec![38, 9, 8, 7, 6, 5, 4, 3, 39],
    ]
}

fn logits(model: &ClipSegModel, golden: &Golden) -> Tensor<3> {
    model.forward(golden.tensor("pixels"), model.text_features(&ids()))
}

struct Gradient<'a> {
    golden: &'a Golden,
    names: &'a ParamNames,
    grads: &'a Gradients,
    checked: usize,
}

impl ModuleVisitor for Gradient<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.name(param.id);
        // The gradient of a key's bias is rounding, which the script leaves out.
        if param.val().is_require_grad() && !name.ends_with("k_proj.bias") {
            let gradient = param.val().grad(self.grads).unwrap();
            self.golden.check(&format!("grad.{name}"), gradient);
            self.checked += 1;
        }
    }
}

#[test]
fn logits_and_gradients_of_the_decoder_are_those_of_transformers() {
    for case in CASES {
        let golden = Golden::open(&format!("clipseg/{case}"));
        let model = load(case);
        let names = model.names().clone();
        let model = set_trainable(model, &names, |name| name.starts_with("decoder."));
        let logits = logits(&model, &golden);
        golden.check("logits", logits.clone().inner());
        let weights = golden.tensor::<3>("weights").autodiff();
        let grads = (logits * weights).sum().backward();
        let mut gradient = Gradient {
            golden: &golden,
            names: &names,
            grads: &grads,
            checked: 0,
        };
        model.visit(&mut gradient);
        assert_eq!(gradient.checked, golden.count("grad."), "{case}");
    }
}

#[test]
fn what_is_saved_is_read_again_as_the_same_network() {
    let golden = Golden::open("clipseg/refined");
    let folder = tempfile::tempdir().unwrap();
    load("refined")
        .save(folder.path(), Precision::Float32)
        .unwrap();
    let again = ClipSegModel::load(folder.path(), &device()).unwrap();
    golden.check("logits", logits(&again, &golden));
}

#[test]
fn a_decoder_on_a_clip_model_is_saved_with_the_keys_of_both() {
    let clip = ClipModel::load(&fixture("clip/new"), &device()).unwrap();
    let config = ClipSegDecoderConfig {
        extract_layers: vec![0, 1],
        reduce_dim: 8,
        decoder_intermediate_size: 16,
        ..ClipSegDecoderConfig::default()
    };
    let model = ClipSegModel::on(clip, &config, 3).unwrap();
    let pixels = Tensor::<4>::ones([1, 3, 12, 12], &device());
    let text = model.text_features(&ids()[..1]);
    let fresh = to_vec(model.forward(pixels.clone(), text.clone()));
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), Precision::Float32).unwrap();
    let again = ClipSegModel::load(folder.path(), &device()).unwrap();
    assert_eq!(to_vec(again.forward(pixels, text)), fresh);
}

#[test]
fn impossible_decoders_are_refused_by_key() {
    for (from, to, key) in [
        ("    0,\n    2\n", "    2,\n    0\n", "extract_layers"),
        ("    0,\n    2\n", "    0,\n    4\n", "extract_layers"),
        (
            "\"use_complex_transposed_convolution\": false",
            "\"use_complex_transposed_convolution\": true",
            "patch_size",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let simple = fixture("clipseg/simple");
        let config = std::fs::read_to_string(simple.join("config.json")).unwrap();
        assert!(config.contains(from), "{config}");
        let config = config.replace(from, to);
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let weights = "model.safetensors";
        std::fs::copy(simple.join(weights), folder.path().join(weights)).unwrap();
        let refused = ClipSegModel::load(folder.path(), &device()).unwrap_err();
        assert!(refused.to_string().contains(key), "{refused}");
    }
    let refused = load("refined").config().check_size(48, 40).unwrap_err();
    assert!(refused.to_string().contains("48 by 40"), "{refused}");
}
