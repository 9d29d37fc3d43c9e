//! The U-Net's files: what is saved, and what is refused by name.

use std::path::Path;

use super::{CASES, load, timesteps};
use crate::common::{Golden, device, edited, fixture, stored_tensors};
use core_model::Network;
use core_model::Precision;
use core_model::unet::{PerLevel, UNet2DConditionConfig, UNet2DConditionModel};
use serde_json::{Value, json};

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

fn failure(folder: &Path) -> String {
    UNet2DConditionModel::load(folder, &device())
        .unwrap_err()
        .to_string()
}

/// Asserts that a network is refused with these words when a key of its config is changed: its weights are named
/// in any case.
fn assert_weights_refused(case: &str, key: &str, value: Value, words: &[&str]) {
    let message = failure(edited(case, key, value).path());
    for part in [&["diffusion_pytorch_model.safetensors"], words].concat() {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let words = ["attn2.to_k.weight", "[8, 12]", "[8, 16]"];
    assert_weights_refused("unet/sd1-like", "cross_attention_dim", json!(16), &words);
}

#[test]
fn a_missing_tensor_is_named_with_the_shape_it_needs() {
    let words = ["down_blocks.0.resnets.1.norm1.weight", "[8] is missing"];
    assert_weights_refused("unet/sd1-like", "layers_per_block", json!(2), &words);
}

#[test]
fn a_tensor_that_belongs_to_nothing_is_named() {
    let (case, key) = ("unet/rare-options", "transformer_layers_per_block");
    let words = ["belongs to no part", "transformer_blocks.1"];
    assert_weights_refused(case, key, json!(1), &words);
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
