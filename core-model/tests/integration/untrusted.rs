//! Files are data: whatever they hold, readers answer with a value or with one message. Bytes are
//! changed, cut and inserted at random in files that were right, and keys of configs get other
//! values; nothing may panic or take long, and no message may be empty. `scripts/million-inputs` gives
//! each reader a million inputs.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::fixture;
use crate::damage::{corpus, damage, damaged, damaged_texts, inputs};
use crate::readers;

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The files of some folders of fixtures with one of these endings.
fn files(folders: &[&str], endings: &[&str]) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(fixture(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let ending = |path: &PathBuf| {
        path.extension()
            .unwrap_or_default()
            .to_str()
            .map(String::from)
    };
    paths.retain(|path| ending(path).is_some_and(|end| endings.contains(&end.as_str())));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// Damaged copies of files; damage is done to the bytes before `reach`.
fn damaged_files(
    sources: Vec<Vec<u8>>,
    reach: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Vec<u8>> {
    let damages = prop::collection::vec(damage(), 1..4);
    (0..sources.len(), reach, damages)
        .prop_map(move |(which, reach, damages)| damaged(&sources[which], reach, &damages))
}

#[test]
fn damaged_safetensors_are_refused_or_read() {
    let sources = vec![read(&fixture("clip/new/model.safetensors"))];
    let reach = prop_oneof![Just(8), Just(200), Just(4000)];
    inputs(damaged_files(sources, reach), |bytes| {
        readers::safetensors(&bytes);
    });
}

#[test]
fn any_bytes_are_refused_or_read() {
    let header = "[\\[\\]{}\":,a-zA-Z0-9_ .-]{0,80}";
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    let claim = prop_oneof![Just(None), any::<u64>().prop_map(Some)];
    inputs((header, bytes, claim), |(header, bytes, claim)| {
        let mut file = claim.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(&bytes);
        readers::safetensors(&file);
        readers::pickle(&bytes);
    });
}

#[test]
fn damaged_pickles_are_refused_or_read() {
    let sources = files(&["learned_embedding", "weights"], &["pt", "bin", "ckpt"]);
    inputs(damaged_files(sources, Just(usize::MAX)), |bytes| {
        readers::pickle(&bytes);
    });
}

#[test]
fn damaged_images_are_refused_or_read() {
    let endings = ["bmp", "gif", "jpg", "jpeg", "png", "tif", "tiff", "webp"];
    let sources = files(&["image-files", "image-processor/files"], &endings);
    let reach = prop_oneof![Just(64), Just(700), Just(usize::MAX)];
    inputs(damaged_files(sources, reach), |bytes| {
        readers::image(&bytes)
    });
}

#[test]
fn any_bytes_are_a_text_or_refused() {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    inputs(bytes, |bytes| readers::text(&bytes));
}

#[test]
fn damaged_configs_are_refused_or_used() {
    inputs(damaged_texts(corpus("config")), |bytes| {
        readers::config(&bytes)
    });
}

#[test]
fn configs_with_other_values_are_refused_or_used() {
    let configs = corpus("config");
    let strategy = (0..configs.len(), any::<prop::sample::Index>(), value());
    inputs(strategy, |(which, key, value)| {
        // The first byte says of what it is the config.
        let (kind, config) = configs[which].split_first().unwrap();
        let mut config: Value = serde_json::from_slice(config).unwrap();
        let object = config.as_object_mut().unwrap();
        let mut keys: Vec<String> = object.keys().cloned().collect();
        keys.extend(ABSENT_KEYS.map(String::from));
        object.insert(keys[key.index(keys.len())].clone(), value);
        let config = config.to_string().into_bytes();
        readers::config(&[vec![*kind], config].concat());
    });
}

/// Keys of samplers and image processors that the fixtures leave to their defaults.
const ABSENT_KEYS: [&str; 15] = [
    "beta_schedule",
    "trained_betas",
    "timestep_spacing",
    "prediction_type",
    "lambda_min_clipped",
    "solver_order",
    "use_karras_sigmas",
    "rescale_betas_zero_snr",
    "final_sigmas_type",
    "clip_sample_range",
    "skip_prk_steps",
    "size",
    "crop_size",
    "resample",
    "rescale_factor",
];

#[test]
fn damaged_tokenizers_are_refused_or_used() {
    inputs(damaged_texts(corpus("tokenizer")), |bytes| {
        readers::tokenizer(&bytes)
    });
}

/// Values that configs do not expect.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(-1)),
        Just(json!(3)),
        Just(json!(1e30)),
        Just(json!(u32::MAX)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MAX / 2)),
        any::<u16>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
    ];
    let leaf = prop_oneof![
        number,
        Just(Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        "[a-zA-Z0-9_<>|]{0,12}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            inner.prop_map(|value| json!({"a": value})),
        ]
    })
}
