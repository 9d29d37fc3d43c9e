//! The autoencoder against diffusers' (tests/generate_fixtures/vae.py).

use crate::common::{Golden, device, edited, fixture, stored_tensors};
use core_model::Network;
use core_model::Precision;
use core_model::params::set_trainable;
use core_model::vae::AutoencoderKl;
use serde_json::json;

/// The second case has the attention keys of diffusers before 0.18.
const CASES: [&str; 3] = ["with-quant-conv", "without-quant-conv", "odd-size"];

fn load(case: &str) -> AutoencoderKl {
    AutoencoderKl::load(&fixture(&format!("vae/{case}")), &device()).unwrap()
}

#[test]
fn moments_pictures_and_gradients_are_those_of_diffusers() {
    for case in CASES {
        let golden = Golden::open(&format!("vae/{case}"));
        let vae = load(case);
        let names = vae.names().clone();
        let vae = set_trainable(vae, &names, |_| true);
        let posterior = vae.encode(golden.tensor("pixels"));
        golden.check("mean", posterior.mean.clone().inner());
        golden.check("logvar", posterior.logvar.clone().inner());
        let decoded = vae.decode(posterior.sample(golden.tensor("noise")));
        golden.check("decoded", decoded.clone().inner());
        let weight = golden.tensor::<4>("weight");
        let grads = ((decoded * weight).mean() + posterior.logvar.mean()).backward();
        golden.check_gradients(&vae, &names, &grads);
    }
}

/// As diffusers publishes them (tests/generate_fixtures/weights.py).
#[test]
fn shards_variants_and_pickles_are_the_network_that_diffusers_saved() {
    let golden = Golden::open("vae/with-quant-conv");
    for name in [
        "vae-sharded",
        "vae-variant",
        "vae-sharded-variant",
        "vae-pickled",
        "vae-sharded-pickled",
    ] {
        let folder = fixture(&format!("weights/{name}"));
        let vae = AutoencoderKl::load(&folder, &device()).unwrap();
        golden.check("mean", vae.encode(golden.tensor("pixels")).mean);
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("vae/with-quant-conv");
    std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    let name = "diffusion_pytorch_model.safetensors";
    let mut bytes = std::fs::read(from.join(name)).unwrap();
    // The last value of the last tensor, in float16.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0x00, 0x7e]);
    std::fs::write(folder.path().join(name), bytes).unwrap();
    let message = AutoencoderKl::load(folder.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(name) && message.contains("holds NaN"),
        "{message}"
    );
}

#[test]
fn saving_and_loading_gives_the_same_network() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        let golden = Golden::open(&format!("vae/{case}"));
        let vae = load(case).with_scaling_factor(0.5);
        vae.save(folder.path(), Precision::Float32).unwrap();
        let again = AutoencoderKl::load(folder.path(), &device()).unwrap();
        assert_eq!(again.config(), vae.config());
        assert_eq!(again.config().scaling_factor, 0.5);
        golden.check("mean", again.encode(golden.tensor("pixels")).mean);
    }
}

#[test]
fn saved_weights_have_the_keys_and_shapes_of_today_s_diffusers() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        load(case).save(folder.path(), Precision::Float16).unwrap();
        let expected = stored_tensors(&fixture(&format!("vae/{case}")))
            .into_iter()
            .map(|(key, shape)| {
                let key = key
                    .replace(".query.", ".to_q.")
                    .replace(".key.", ".to_k.")
                    .replace(".value.", ".to_v.")
                    .replace(".proj_attn.", ".to_out.0.");
                (key, shape)
            })
            .collect();
        assert_eq!(stored_tensors(folder.path()), expected);
    }
    let legacy = "encoder.mid_block.attentions.0.proj_attn.weight";
    assert!(stored_tensors(&fixture("vae/without-quant-conv")).contains_key(legacy));
}

#[test]
fn files_that_do_not_fit_are_refused_with_file_key_and_shapes() {
    let weights = "diffusion_pytorch_model.safetensors";
    let config = "config.json";
    let cases: [(&str, _, &[&str]); 8] = [
        ("latent_channels", json!(8), &[weights, "[8, 12", "[16, 12"]),
        (
            "use_quant_conv",
            json!(false),
            &[weights, "quant_conv", "belongs to no part"],
        ),
        (
            "layers_per_block",
            json!(2),
            &[weights, "resnets.1.norm1.weight", "is missing"],
        ),
        ("act_fn", json!("relu"), &[config, "act_fn", "relu"]),
        ("shift_factor", json!(0.1), &[config, "shift_factor", "0.1"]),
        (
            "latents_mean",
            json!([0.0, 0.0, 0.0, 0.0]),
            &[config, "latents_mean"],
        ),
        (
            "norm_num_groups",
            json!(5),
            &[config, "block_out_channels", "norm_num_groups, 5"],
        ),
        (
            "down_block_types",
            json!(["DownBlock2D"]),
            &[config, "DownBlock2D", "DownEncoderBlock2D"],
        ),
    ];
    for (key, value, parts) in cases {
        let folder = edited("vae/with-quant-conv", key, value);
        let error = AutoencoderKl::load(folder.path(), &device()).unwrap_err();
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "{key}: {message}");
        }
    }
}
