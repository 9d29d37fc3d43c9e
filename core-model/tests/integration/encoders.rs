//! Text encoder, CLIP and DINO against transformers; see `generate_fixtures/clip.py` and
//! `generate_fixtures/dino.py`.

use std::fs;
use std::path::Path;

use crate::common::{device, fixture};
use burn::tensor::{Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::checkpoint::Checkpoint;
use core_model::clip::{ClipConfig, ClipModel};
use core_model::dino::{DinoConfig, DinoModel};
use core_model::params::{set_trainable, to_vec};
use core_model::text_encoder::{TextEncoder, TextEncoderConfig};
use serde_json::Value;
use tempfile::TempDir;

/// What transformers computed, in one file an area.
struct Expected(Checkpoint);

impl Expected {
    fn open(area: &str) -> Self {
        let path = fixture(area).join("expected.safetensors");
        Self(Checkpoint::open(&path, |key| Some(key.into())).unwrap())
    }

    fn tensor<const D: usize>(&self, key: &str) -> Tensor<D> {
        let (values, shape) = self.0.read_f32(key).unwrap().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    fn ids(&self) -> Vec<Vec<u32>> {
        let (values, shape) = self.0.read_i64("ids").unwrap().unwrap();
        values
            .chunks(shape[1])
            .map(|row| row.iter().map(|id| *id as u32).collect())
            .collect()
    }
}

fn assert_close<const D: usize>(ours: Tensor<D>, theirs: Tensor<D>, name: &str) {
    assert_eq!(ours.dims(), theirs.dims(), "{name}");
    let (ours, theirs) = (to_vec(ours), to_vec(theirs));
    let scale = theirs
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let pairs = ours.iter().zip(&theirs);
    let difference = pairs.fold(0.0_f32, |largest, (a, b)| largest.max((a - b).abs())) / scale;
    assert!(
        difference <= 1e-4,
        "{name}: relative difference {difference:e}"
    );
}

fn text_encoder(name: &str) -> TextEncoder {
    TextEncoder::load(&fixture("text-encoder").join(name), &device()).unwrap()
}

fn clip(name: &str) -> ClipModel {
    ClipModel::load(&fixture(name), &device()).unwrap()
}

fn dino(name: &str) -> DinoModel {
    DinoModel::load(&fixture("dino").join(name), &device()).unwrap()
}

/// A fixture folder whose configuration has another value for a key.
fn changed(name: &str, from: &str, to: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(fixture(name).join("config.json")).unwrap();
    assert!(config.contains(from), "{config}");
    fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
    let weights = "model.safetensors";
    fs::copy(fixture(name).join(weights), folder.path().join(weights)).unwrap();
    folder
}

#[test]
fn hidden_states_are_those_of_transformers_for_every_activation_and_spelling() {
    let expected = Expected::open("text-encoder");
    let ids = expected.ids();
    let known: Vec<Vec<u32>> = ids
        .iter()
        .map(|row| row.iter().map(|id| *id.min(&39)).collect())
        .collect();
    for (folder, key) in [
        ("quick-gelu", "quick-gelu"),
        ("old-spelling", "quick-gelu"),
        ("gelu", "gelu"),
        ("gelu-new", "gelu-new"),
        // As transformers publishes them (tests/generate_fixtures/weights.py).
        ("../weights/text-encoder-sharded", "quick-gelu"),
        ("../weights/text-encoder-variant", "quick-gelu"),
    ] {
        let model = text_encoder(folder);
        let plain = expected.tensor(&format!("{key}.plain"));
        assert_close(model.forward(&known, None), plain, folder);
        let hidden = model.forward(&ids, Some(expected.tensor::<2>("rows")));
        assert_close(
            hidden,
            expected.tensor(&format!("{key}.last_hidden_state")),
            folder,
        );
    }
}

#[test]
fn placeholder_rows_have_the_gradient_of_transformers() {
    let expected = Expected::open("text-encoder");
    for name in ["quick-gelu", "gelu", "gelu-new"] {
        for trainable in [false, true] {
            let model = text_encoder(name);
            let names = model.names().clone();
            let model = set_trainable(model, &names, |_| trainable);
            let rows = expected.tensor::<2>("rows").autodiff().require_grad();
            let hidden = model.forward(&expected.ids(), Some(rows.clone()));
            let weights = expected.tensor::<3>("weights").autodiff();
            let gradients = (hidden * weights).sum().backward();
            let gradient = rows.grad(&gradients).unwrap();
            assert_close(gradient, expected.tensor(&format!("{name}.gradient")), name);
        }
    }
}

#[test]
fn later_words_do_not_change_earlier_states() {
    let model = text_encoder("gelu");
    let long = model.forward(&[vec![38, 3, 17, 5, 9]], None);
    let short = model.forward(&[vec![38, 3, 17]], None);
    assert_close(long.narrow(1, 0, 3), short, "causal attention");
}

/// `CLIPConfig.__post_init__`: what early versions of transformers wrote beside `text_config`.
#[test]
fn early_config_dicts_stand_for_the_configs_of_a_clip_model() {
    let (from, to) = ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"quick_gelu\"");
    let plain = changed("clip/new", from, to);
    let early = changed("clip/new", from, from);
    let read = |path: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let wanted = read(&plain.path().join("config.json"));
    let path = early.path().join("config.json");
    let mut config = read(&path);
    for part in ["text_config", "vision_config"] {
        config[format!("{part}_dict")] = wanted[part].clone();
    }
    fs::write(&path, config.to_string()).unwrap();
    let load = |folder: &Path| ClipModel::load(folder, &device()).unwrap();
    assert_eq!(load(early.path()).config(), load(plain.path()).config());
    assert_ne!(
        load(early.path()).config(),
        load(&fixture("clip/new")).config()
    );
}

#[test]
fn a_row_of_the_token_table_as_a_placeholder_is_that_token() {
    let model = text_encoder("quick-gelu");
    let row = model.token_embedding(17);
    assert_eq!(row.len(), 24);
    let rows = Tensor::from_data(TensorData::new(row, [1, 24]), &device());
    let with_word = model.forward(&[vec![38, 17, 39]], None);
    let with_row = model.forward(&[vec![38, 40, 39]], Some(rows));
    assert_eq!(to_vec(with_word), to_vec(with_row));
}

#[test]
fn clip_features_are_those_of_transformers() {
    let expected = Expected::open("clip");
    for (folder, key) in [
        ("clip/new", "new"),
        ("clip/legacy", "legacy"),
        ("clip/no-scale", "new"),
        ("weights/clip-pickled", "new"),
    ] {
        let model = clip(folder);
        let text = model.text_features(&expected.ids());
        assert_close(text, expected.tensor(&format!("{key}.text")), folder);
        let image = model.image_features(expected.tensor("pixels"));
        assert_close(image, expected.tensor(&format!("{key}.image")), folder);
        match model.logit_scale() {
            Some(scale) => assert_close(scale, expected.tensor(&format!("{key}.logit_scale")), key),
            None => assert_eq!(folder, "clip/no-scale"),
        }
    }
}

#[test]
fn a_clip_that_gets_more_tokens_keeps_all_other_parameters_and_loses_none() {
    for folder in ["clip/new", "clip/no-scale"] {
        let model = clip(folder);
        let [old, width] = model.text_encoder().token_table().dims();
        let rows = Tensor::<2>::ones([2, width], &device());
        let grown = model.with_more_tokens(rows.clone()).unwrap();
        let keys = |model: &ClipModel| -> Vec<String> {
            let mut keys: Vec<_> = model
                .names()
                .iter()
                .map(|(key, _)| key.to_string())
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&grown), keys(&model), "{folder}");
        assert_eq!(
            grown.logit_scale().map(to_vec),
            model.logit_scale().map(to_vec),
            "{folder}"
        );
        let table = grown.text_encoder().token_table();
        assert_eq!(table.dims(), [old + 2, width], "{folder}");
        assert_eq!(to_vec(table.narrow(0, old, 2)), to_vec(rows), "{folder}");
    }
}

#[test]
fn dino_states_are_those_of_transformers_with_and_without_pooler() {
    let expected = Expected::open("dino");
    let pixels: Tensor<4> = expected.tensor("pixels");
    for name in ["pooler", "no-pooler", "no-qkv-bias", "prefixed"] {
        let model = dino(name);
        let hidden = model.forward(pixels.clone());
        assert_close(hidden.clone(), expected.tensor(name), name);
        let class = hidden.narrow(1, 0, 1).reshape([2, 18]);
        assert_eq!(to_vec(model.features(pixels.clone())), to_vec(class));
    }
}

#[test]
fn dinov2_states_are_those_of_transformers_at_another_size_than_trained() {
    let expected = Expected::open("dino");
    let pixels: Tensor<4> = expected.tensor("pixels");
    for name in ["dinov2", "dinov2-gated"] {
        let model = dino(name);
        let hidden = model.forward(pixels.clone());
        assert_close(hidden, expected.tensor(name), name);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path(), Precision::Float16).unwrap();
        let again = DinoModel::load(folder.path(), &device()).unwrap();
        assert_eq!(again.config(), model.config());
        let features = |model: &DinoModel| to_vec(model.features(pixels.clone()));
        assert_eq!(features(&again), features(&model));
    }
}

#[test]
fn saved_models_give_the_same_numbers_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let expected = Expected::open("clip");
    let (ids, pixels) = (expected.ids(), expected.tensor::<4>("pixels"));

    let model = clip("clip/new");
    model.save(path, Precision::Float32).unwrap();
    let again = ClipModel::load(path, &device()).unwrap();
    assert_eq!(again.config(), model.config());
    assert_eq!(
        to_vec(again.text_features(&ids)),
        to_vec(model.text_features(&ids))
    );
    let image = |model: &ClipModel| to_vec(model.image_features(pixels.clone()));
    assert_eq!(image(&again), image(&model));
    assert_eq!(
        to_vec(again.logit_scale().unwrap()),
        to_vec(model.logit_scale().unwrap())
    );

    let encoder = model.text_encoder();
    encoder.save(path, Precision::Float32).unwrap();
    let again = TextEncoder::load(path, &device()).unwrap();
    let hidden = |model: &TextEncoder| to_vec(model.forward(&ids, None));
    assert_eq!(hidden(&again), hidden(&encoder));
    let file = Checkpoint::open(&path.join("model.safetensors"), |key| Some(key.into())).unwrap();
    assert!(file.keys().all(|key| key.starts_with("text_model.")));

    let model = dino("no-pooler");
    model.save(path, Precision::Float16).unwrap();
    let again = DinoModel::load(path, &device()).unwrap();
    let hidden = |model: &DinoModel| to_vec(model.forward(pixels.clone()));
    assert_eq!(hidden(&again), hidden(&model));
}

#[test]
fn fresh_models_are_a_function_of_their_seed() {
    let config = TextEncoderConfig {
        vocab_size: 40,
        hidden_size: 24,
        num_attention_heads: 3,
        num_hidden_layers: 1,
        intermediate_size: 40,
        max_position_embeddings: 9,
        eos_token_id: 39,
        ..TextEncoderConfig::default()
    };
    let hidden = |seed: u64| {
        let model = TextEncoder::init(&config, seed, &device()).unwrap();
        to_vec(model.forward(&[vec![38, 3, 39]], None))
    };
    assert_eq!(hidden(1), hidden(1));
    assert_ne!(hidden(1), hidden(2));

    let config = ClipConfig {
        text_config: config,
        projection_dim: 6,
        ..clip("clip/new").config().clone()
    };
    let model = ClipModel::init(&config, 0, &device()).unwrap();
    assert_eq!(to_vec(model.logit_scale().unwrap()), [2.6592]);
    assert_eq!(model.text_features(&[vec![38, 39]]).dims(), [1, 6]);
    assert_eq!(
        model
            .image_features(Tensor::zeros([2, 3, 12, 12], &device()))
            .dims(),
        [2, 6]
    );

    let config = DinoConfig {
        hidden_act: config.vision_config.hidden_act,
        ..dino("pooler").config().clone()
    };
    let model = DinoModel::init(&config, 0, &device()).unwrap();
    let class = model.features(Tensor::zeros([2, 3, 12, 12], &device()));
    assert_eq!(class.dims(), [2, 18]);
}

#[test]
fn a_file_that_does_not_fit_its_config_is_an_error_that_names_the_key() {
    let device = device();
    for (from, to, reason) in [
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "encoder.layers.2.",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "encoder.layers.2.",
        ),
        (
            "\"vocab_size\": 40",
            "\"vocab_size\": 41",
            "shape [40, 24] but the network needs [41, 24]",
        ),
        (
            "\"num_attention_heads\": 3",
            "\"num_attention_heads\": 5",
            "`num_attention_heads`",
        ),
        (
            "\"num_attention_heads\": 3",
            "\"num_attention_heads\": 0",
            "`num_attention_heads`",
        ),
        ("\"quick_gelu\"", "\"mish\"", "unknown variant `mish`"),
        (
            "\"hidden_size\": 24",
            "\"hidden_size\": \"wide\"",
            "config.json",
        ),
    ] {
        let folder = changed("text-encoder/quick-gelu", from, to);
        let message = TextEncoder::load(folder.path(), &device)
            .unwrap_err()
            .to_string();
        assert!(message.contains(reason), "{to}: {message}");
        let checked = TextEncoder::check(folder.path()).unwrap_err().to_string();
        assert_eq!(checked, message);
    }
    for (from, to, reason) in [
        ("\"patch_size\": 4", "\"patch_size\": 5", "`patch_size`"),
        ("\"patch_size\": 4", "\"patch_size\": 0", "`patch_size`"),
        (
            "\"image_size\": 12",
            "\"image_size\": 16",
            "position_embedding",
        ),
    ] {
        let folder = changed("clip/new", from, to);
        let message = ClipModel::load(folder.path(), &device)
            .unwrap_err()
            .to_string();
        assert!(message.contains(reason), "{to}: {message}");
        let checked = ClipModel::check(folder.path()).unwrap_err().to_string();
        assert_eq!(checked, message);
        let folder = changed("dino/pooler", from, to);
        let message = DinoModel::load(folder.path(), &device)
            .unwrap_err()
            .to_string();
        assert!(message.contains(reason), "{to}: {message}");
        let checked = DinoModel::check(folder.path()).unwrap_err().to_string();
        assert_eq!(checked, message);
    }
    let message = ClipModel::load(Path::new("absent"), &device)
        .unwrap_err()
        .to_string();
    assert!(message.contains("absent"), "{message}");
}

#[test]
fn a_check_reads_configuration_and_header_and_no_number() {
    let folder = changed("clip/new", "\"patch_size\": 4", "\"patch_size\": 4");
    let file = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // As float32 these bytes are NaN.
    bytes[8 + header..].fill(0xff);
    fs::write(&file, bytes).unwrap();
    let message = ClipModel::load(folder.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(message.contains("holds NaN"), "{message}");
    let config = ClipModel::check(folder.path()).unwrap();
    assert_eq!(&config, clip("clip/new").config());
}
