//! One-file checkpoints become the folders that diffusers' converters make of them
//! (tests/generate_fixtures/original_layout.py).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::noise_scheduler::PredictionType;
use core_model::original_layout::import;
use core_model::tokenizer::Tokenizer;
use serde_json::Value;
use tempfile::TempDir;

/// Key, shape, component, key there, which third of the rows.
type Row = (
    String,
    Vec<usize>,
    Option<String>,
    Option<String>,
    Option<usize>,
);

fn table(name: &str) -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/original-layout");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Values that tell every tensor and every place in it apart.
fn values(key: &str, count: usize) -> Vec<f32> {
    let start = key
        .bytes()
        .fold(7_u32, |a, b| a.wrapping_mul(31) + u32::from(b))
        % 65_521;
    (0..count)
        .map(|i| start as f32 + (i % 1009) as f32 / 1024.0)
        .collect()
}

fn write(path: &Path, rows: &[Row], metadata: &[(&str, &str)]) {
    let mut tensors: Vec<TensorToWrite> = Vec::new();
    for (key, shape, ..) in rows {
        if tensors.iter().all(|tensor| tensor.name != *key) {
            tensors.push(TensorToWrite {
                name: key.clone(),
                shape: shape.clone(),
                values: values(key, shape.iter().product()),
            });
        }
    }
    save_tensors(path, tensors, Precision::Float32, metadata).unwrap();
}

/// A file of these tensors in a folder of its own.
fn checkpoint(rows: &[Row]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.safetensors");
    write(&file, rows, &[]);
    (folder, file)
}

fn imported(name: &str, prediction: Option<PredictionType>) -> (TempDir, PathBuf) {
    let (folder, file) = checkpoint(&table(name));
    let out = folder.path().join("models/out");
    import(&file, &out, prediction, Precision::Float32, &Device::flex()).unwrap();
    (folder, out)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_tensor_arrives_where_diffusers_puts_it() {
    for (name, prediction) in [
        ("sd1", None),
        ("sd2", Some(PredictionType::VPrediction)),
        ("shallow", None),
    ] {
        let (_folder, out) = imported(name, prediction);
        let mut expected = 0;
        for (component, file) in [
            ("unet", "diffusion_pytorch_model.safetensors"),
            ("vae", "diffusion_pytorch_model.safetensors"),
            ("text_encoder", "model.safetensors"),
        ] {
            let path = out.join(component).join(file);
            let written = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
            let rows = table(name).into_iter();
            let rows: Vec<Row> = rows
                .filter(|row| row.2.as_deref() == Some(component))
                .collect();
            assert_eq!(written.keys().count(), rows.len(), "{name} {component}");
            for (key, shape, _, ours, third) in rows {
                let ours = ours.unwrap();
                let all = values(&key, shape.iter().product());
                let size = all.len() / third.map_or(1, |_| 3);
                let part = &all[third.unwrap_or(0) * size..][..size];
                let (found, _) = written.read_f32(&ours).unwrap().unwrap();
                assert!(found == part, "{name}: {key} is not {ours}");
                expected += 1;
            }
        }
        let rows = table(name).into_iter();
        assert_eq!(expected, rows.filter(|row| row.2.is_some()).count());
    }
}

#[test]
fn configs_say_what_the_family_is() {
    let (_one, one) = imported("sd1", None);
    let (_two, two) = imported("sd2", Some(PredictionType::VPrediction));
    let unet = json(&one.join("unet/config.json"));
    assert_eq!(
        unet["block_out_channels"],
        serde_json::json!([32, 32, 64, 64])
    );
    assert_eq!(unet["attention_head_dim"], 8);
    assert_eq!(unet["cross_attention_dim"], 16);
    assert_eq!(unet["use_linear_projection"], false);
    assert_eq!(
        json(&two.join("unet/config.json"))["use_linear_projection"],
        true
    );
    for (folder, prediction, act, layers, pad) in [
        (&one, "epsilon", "quick_gelu", 2, 49407),
        (&two, "v_prediction", "gelu", 23, 0),
    ] {
        let scheduler = json(&folder.join("scheduler/scheduler_config.json"));
        assert_eq!(scheduler["prediction_type"], prediction);
        let text = json(&folder.join("text_encoder/config.json"));
        assert_eq!(text["hidden_act"], act);
        assert_eq!(text["num_hidden_layers"], layers);
        let tokenizer = Tokenizer::from_dir(&folder.join("tokenizer")).unwrap();
        assert_eq!(tokenizer.encode("a dog").ids[4..6], [pad, pad]);
    }
}

#[test]
fn the_depth_of_the_networks_is_read_off_the_shapes() {
    let (_folder, out) = imported("shallow", None);
    let unet = json(&out.join("unet/config.json"));
    assert_eq!(unet["block_out_channels"], serde_json::json!([32, 64, 64]));
    assert_eq!(unet["layers_per_block"], 1);
    assert_eq!(unet["down_block_types"][2], "DownBlock2D");
    let vae = json(&out.join("vae/config.json"));
    assert_eq!(vae["block_out_channels"], serde_json::json!([32, 32]));
    assert_eq!(vae["layers_per_block"], 1);
}

#[test]
fn a_file_may_tell_itself_what_it_predicts() {
    let mark = |key: &str| (key.to_string(), vec![0], None, None, None);
    let stated = [("modelspec.prediction_type", "v")];
    for (name, marks, metadata, prediction, zero_snr) in [
        ("sd1", vec!["v_pred"], &[][..], "v_prediction", false),
        ("sd2", vec!["v_pred", "ztsnr"], &[], "v_prediction", true),
        ("sd2", vec![], &stated, "v_prediction", false),
        ("sd2", vec![], &[(stated[0].0, "epsilon")], "epsilon", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.safetensors");
        let mut rows = table(name);
        rows.extend(marks.into_iter().map(mark));
        write(&file, &rows, metadata);
        let out = folder.path().join("out");
        import(&file, &out, None, Precision::Float16, &Device::flex()).unwrap();
        let scheduler = json(&out.join("scheduler/scheduler_config.json"));
        assert_eq!(scheduler["prediction_type"], prediction);
        assert_eq!(scheduler["rescale_betas_zero_snr"], zero_snr);
    }
}

#[test]
fn what_is_no_whole_model_of_the_family_is_refused_and_nothing_is_written() {
    let change = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = table("sd1");
        change(&mut rows);
        let (folder, file) = checkpoint(&rows);
        let out = folder.path().join("out");
        let refused = import(&file, &out, None, Precision::Float32, &Device::flex()).unwrap_err();
        assert!(!out.exists());
        refused.to_string()
    };
    let named = |key: &str| (key.to_string(), vec![1], None, None, None);
    let message = change(&|rows| rows.push(named("conditioner.embedders.0.x")));
    assert!(message.contains("Stable Diffusion XL"), "{message}");
    let message = change(&|rows| rows.push(named("model.diffusion_model.double_blocks.0.x")));
    assert!(message.contains("Flux"), "{message}");
    let message = change(&|rows| rows.push(named("control_model.x")));
    assert!(message.contains("ControlNet"), "{message}");
    let message = change(&|rows| rows.push(named("model.diffusion_model.x")));
    assert!(message.contains("`model.diffusion_model.x`"), "{message}");
    for (part, start) in [
        ("U-Net", "model.diffusion_model."),
        ("VAE", "first_stage_model."),
        ("text encoder", "cond_stage_model."),
    ] {
        let message = change(&|rows| rows.retain(|row| !row.0.starts_with(start)));
        let lacks = format!("has no {part}");
        assert!(message.contains(&lacks), "{message}");
    }
    let message = change(&|rows| {
        for row in rows
            .iter_mut()
            .filter(|row| row.0.ends_with("input_blocks.0.0.weight"))
        {
            row.1[1] = 9;
        }
    });
    assert!(message.contains("inpainting"), "{message}");
    let message =
        change(&|rows| rows.retain(|row| !row.0.ends_with("output_blocks.4.1.proj_in.weight")));
    assert!(
        message.contains("up_blocks.1.attentions.1.proj_in.weight"),
        "{message}"
    );
    // Training leaves these; they are no weights.
    let (folder, file) = checkpoint(&{
        let mut rows = table("sd1");
        rows.extend(
            [
                "model_ema.decay",
                "betas",
                "sqrt_alphas_cumprod",
                "first_stage_model.loss.logvar",
                "cond_stage_model.mask",
            ]
            .map(named),
        );
        rows
    });
    import(
        &file,
        &folder.path().join("out"),
        None,
        Precision::Float16,
        &Device::flex(),
    )
    .unwrap();
}

/// Some tools write the 23 layers that are read, others the whole tower of 24.
#[test]
fn the_second_generation_keeps_the_layers_that_diffusers_keeps() {
    let epsilon = Some(PredictionType::Epsilon);
    let (_whole, whole) = imported("sd2", epsilon);
    let mut rows = table("sd2");
    rows.retain(|row| !row.0.contains("resblocks.23."));
    let (folder, file) = checkpoint(&rows);
    let out = folder.path().join("out");
    import(&file, &out, epsilon, Precision::Float32, &Device::flex()).unwrap();
    for folder in [&whole, &out] {
        let config = json(&folder.join("text_encoder/config.json"));
        assert_eq!(config["num_hidden_layers"], 23);
    }
    let bytes = |folder: &Path| std::fs::read(folder.join("text_encoder/model.safetensors"));
    assert!(bytes(&whole).unwrap() == bytes(&out).unwrap());
}

#[test]
fn the_second_generation_needs_to_be_told_what_it_predicts() {
    let (folder, file) = checkpoint(&table("sd2"));
    let out = folder.path().join("out");
    let refused = import(&file, &out, None, Precision::Float32, &Device::flex()).unwrap_err();
    assert!(refused.to_string().contains("v_prediction"), "{refused}");
    std::fs::create_dir(&out).unwrap();
    let epsilon = Some(PredictionType::Epsilon);
    let refused = import(&file, &out, epsilon, Precision::Float32, &Device::flex()).unwrap_err();
    assert!(refused.to_string().contains("exists already"), "{refused}");
}
