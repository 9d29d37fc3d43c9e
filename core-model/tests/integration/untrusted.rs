//! Files are data: whatever they hold, readers answer with a value or with one message. Bytes are
//! changed, cut and inserted at random in files that were right, and keys of configs get other
//! values; nothing may panic, and no message may be empty.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_model::Network;
use core_model::checkpoint::Checkpoint;
use core_model::clip::ClipModel;
use core_model::dino::DinoModel;
use core_model::files::read_to_string;
use core_model::image_processor::{ImageProcessor, load_image};
use core_model::learned_embedding::LearnedEmbedding;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::original_layout;
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

/// The same cases in every run; as many as `CORE_CASES` says, for long runs (scripts/million-inputs).
fn settings() -> ProptestConfig {
    let wanted = std::env::var("CORE_CASES").ok();
    let cases = wanted.map_or(300, |text| text.parse().expect("CORE_CASES is a number"));
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// One thing that happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    /// Eight bytes as one number, where sizes and offsets are.
    Number(prop::sample::Index, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, byte)| Damage::Set(i, byte)),
        (at(), 0..8_u8).prop_map(|(i, bit)| Damage::Flip(i, bit)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, v)| Damage::Insert(i, v)),
        (at(), any::<u64>()).prop_map(|(i, n)| Damage::Number(i, n)),
    ]
}

impl Damage {
    /// `reach` bytes from the start are where damage matters most.
    fn apply(&self, bytes: &mut Vec<u8>, reach: usize) {
        let reach = reach.min(bytes.len());
        if reach == 0 {
            return;
        }
        match self {
            Self::Set(i, byte) => bytes[i.index(reach)] = *byte,
            Self::Flip(i, bit) => bytes[i.index(reach)] ^= 1 << bit,
            Self::Cut(i) => bytes.truncate(i.index(reach)),
            Self::Insert(i, more) => {
                let at = i.index(reach);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Number(i, number) => {
                let at = i.index(reach);
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

fn said<T>(result: core_model::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Everything that opens a file of tensors.
fn read_everything(path: &Path) {
    if let Some(file) = said(Checkpoint::open(path, |key| Some(key.to_string()))) {
        let keys: Vec<String> = file.keys().map(String::from).collect();
        for key in keys {
            said(file.read_f32(&key));
            said(file.read_i64(&key));
        }
    }
    said(LearnedEmbedding::load(path));
    said(original_layout::contents(path));
}

fn damaged(source: &Path, reach: usize, damages: &[Damage]) -> tempfile::NamedTempFile {
    let mut bytes = std::fs::read(source).unwrap();
    damages.iter().for_each(|one| one.apply(&mut bytes, reach));
    let name = source.file_name().unwrap().to_str().unwrap();
    let file = tempfile::Builder::new().suffix(name).tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// Image files of every kind.
fn images() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["image-files", "image-processor/files"] {
        let entries = std::fs::read_dir(fixture(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| {
        let end = path.extension().unwrap_or_default();
        end != "json" && end != "safetensors"
    });
    files.sort();
    files
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn damaged_safetensors_are_refused_or_read(
        damages in prop::collection::vec(damage(), 1..4),
        reach in prop_oneof![Just(8), Just(200), Just(4000)],
    ) {
        let source = fixture("clip/new/model.safetensors");
        read_everything(damaged(&source, reach, &damages).path());
    }

    #[test]
    fn any_bytes_are_refused_or_read(
        header in "[\\[\\]{}\":,a-zA-Z0-9_ .-]{0,80}",
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        claim in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
    ) {
        let mut file = claim.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(&bytes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, &file).unwrap();
        read_everything(&path);
        let path = folder.path().join("x.bin");
        std::fs::write(&path, &bytes).unwrap();
        said(LearnedEmbedding::load(&path));
    }

    #[test]
    fn damaged_pickles_are_refused_or_read(
        damages in prop::collection::vec(damage(), 1..4),
        which in any::<prop::sample::Index>(),
    ) {
        let folder = fixture("learned_embedding");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("pt" | "bin")))
            .collect();
        files.push(fixture("weights/snapshot.ckpt"));
        files.sort();
        let source = &files[which.index(files.len())];
        read_everything(damaged(source, usize::MAX, &damages).path());
    }

    #[test]
    fn damaged_images_are_refused_or_read(
        damages in prop::collection::vec(damage(), 1..4),
        reach in prop_oneof![Just(64), Just(700), Just(usize::MAX)],
        which in any::<prop::sample::Index>(),
    ) {
        let files = images();
        let source = &files[which.index(files.len())];
        said(load_image(damaged(source, reach, &damages).path()));
    }

    #[test]
    fn any_bytes_are_a_text_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        if let Some(text) = said(read_to_string(file.path())) {
            assert!(!text.contains('\r') && !text.starts_with('\u{feff}'));
        }
    }

    #[test]
    fn configs_with_other_values_are_refused_or_used(
        which in any::<prop::sample::Index>(),
        key in any::<prop::sample::Index>(),
        value in value(),
    ) {
        type Load = fn(&Path);
        let networks: [(&str, &str, Load); 6] = [
            ("unet/sd2-like", "config.json", |p| { said(UNet2DConditionModel::load(p, &Device::flex())); }),
            ("vae/with-quant-conv", "config.json", |p| { said(AutoencoderKl::load(p, &Device::flex())); }),
            ("clip/new", "config.json", |p| { said(ClipModel::load(p, &Device::flex())); }),
            ("dino/dinov2", "config.json", |p| { said(DinoModel::load(p, &Device::flex())); }),
            ("text-encoder/gelu", "config.json", |p| { said(TextEncoder::load(p, &Device::flex())); }),
            ("pipeline/model/tokenizer", "tokenizer_config.json", |p| { said(Tokenizer::from_dir(p)); }),
        ];
        let (folder, file, load) = networks[which.index(networks.len())];
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let path = copy.path().join(file);
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let object = config.as_object_mut().unwrap();
        let keys: Vec<String> = object.keys().cloned().collect();
        object.insert(keys[key.index(keys.len())].clone(), value);
        std::fs::write(&path, config.to_string()).unwrap();
        load(copy.path());
    }

    #[test]
    fn scheduler_and_processor_configs_with_other_values_are_refused_or_used(
        key in any::<prop::sample::Index>(),
        value in value(),
        steps in 1..1200_usize,
    ) {
        let keys = [
            "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
            "steps_offset", "timestep_spacing", "prediction_type", "lambda_min_clipped",
            "solver_order", "use_karras_sigmas", "rescale_betas_zero_snr", "final_sigmas_type",
            "clip_sample_range", "skip_prk_steps",
        ];
        let text = json!({keys[key.index(keys.len())]: value}).to_string();
        if let Some(config) = said(SchedulerConfig::from_json("scheduler_config.json", &text)) {
            for kind in SchedulerKind::ALL {
                said(kind.build(&config, steps));
            }
        }
        let keys = ["size", "crop_size", "do_resize", "resample", "image_mean", "rescale_factor"];
        let folder = tempfile::tempdir().unwrap();
        let text = json!({keys[key.index(keys.len())]: value}).to_string();
        std::fs::write(folder.path().join("preprocessor_config.json"), text).unwrap();
        said(ImageProcessor::from_dir(folder.path()));
    }
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
