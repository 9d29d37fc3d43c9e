//! Everything that reads a file of one format, given its bytes. Property tests (`untrusted.rs`) and the
//! fuzz targets (`fuzz/`) call the same functions: whatever the bytes are, a reader answers with a value
//! or with an error that says something.

#![allow(unreachable_pub, reason = "the fuzz targets are another crate")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_model::Network;
use core_model::checkpoint::Checkpoint;
use core_model::clip::ClipModel;
use core_model::clipseg::ClipSegModel;
use core_model::dino::DinoModel;
use core_model::files::read_to_string;
use core_model::image_processor::{ImageProcessor, load_image};
use core_model::learned_embedding::LearnedEmbedding;
use core_model::noise_scheduler::{SchedulerConfig, SchedulerKind};
use core_model::original_layout;
use core_model::siglip::SiglipModel;
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::UNet2DConditionModel;
use core_model::vae::AutoencoderKl;

use crate::scratch::{said, scratch};

/// A scratch file with these bytes.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch("files", |_| ()).join(name);
    std::fs::write(&path, bytes).expect("a scratch file");
    path
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../core-model/tests/fixtures")
        .join(name)
}

/// A scratch copy of a folder of fixtures, in which `name` has these bytes.
fn folder_with(fixtures: &str, name: &str, bytes: &[u8]) -> PathBuf {
    let folder = scratch(&fixtures.replace('/', "-"), |folder| {
        for entry in std::fs::read_dir(fixture(fixtures)).expect("fixtures") {
            let path = entry.expect("fixtures").path();
            if path.is_file() {
                let target = folder.join(path.file_name().unwrap_or_default());
                std::fs::copy(&path, target).expect("a scratch copy");
            }
        }
    });
    std::fs::write(folder.join(name), bytes).expect("a scratch file");
    folder
}

/// Everything that opens a file of tensors.
pub fn tensors(path: &Path) {
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

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) {
    tensors(&file("x.safetensors", bytes));
}

/// A file of `torch.save`, by each of its endings.
pub fn pickle(bytes: &[u8]) {
    for name in ["x.pt", "x.bin", "x.ckpt"] {
        tensors(&file(name, bytes));
    }
}

/// An image.
pub fn image(bytes: &[u8]) {
    said(load_image(&file("image", bytes)));
}

/// A text.
pub fn text(bytes: &[u8]) {
    if let Some(text) = said(read_to_string(&file("text", bytes))) {
        assert!(!text.contains('\r') && !text.starts_with('\u{feff}'));
    }
}

type Load = fn(&Path);

/// The configs: folder of fixtures, file, and what reads the folder.
pub const CONFIGS: [(&str, &str, Load); 9] = [
    ("unet/sd2-like", "config.json", |folder| {
        said(UNet2DConditionModel::load(folder, &Device::flex()));
    }),
    ("vae/with-quant-conv", "config.json", |folder| {
        said(AutoencoderKl::load(folder, &Device::flex()));
    }),
    ("clip/new", "config.json", |folder| {
        said(ClipModel::load(folder, &Device::flex()));
    }),
    ("clipseg/simple", "config.json", |folder| {
        said(ClipSegModel::load(folder, &Device::flex()));
    }),
    ("dino/dinov2", "config.json", |folder| {
        said(DinoModel::load(folder, &Device::flex()));
    }),
    ("siglip/default", "config.json", |folder| {
        said(SiglipModel::load(folder, &Device::flex()));
    }),
    ("text-encoder/gelu", "config.json", |folder| {
        said(TextEncoder::load(folder, &Device::flex()));
    }),
    (
        "pipeline/model/scheduler",
        "scheduler_config.json",
        |folder| {
            let path = folder.join("scheduler_config.json");
            let text = read_to_string(&path);
            let config = said(text).and_then(|text| said(SchedulerConfig::from_json(path, &text)));
            for kind in SchedulerKind::ALL {
                for steps in [1, 50, 1001] {
                    config
                        .as_ref()
                        .map(|config| said(kind.build(config, steps)));
                }
            }
        },
    ),
    (
        "pipeline/model/scheduler",
        "preprocessor_config.json",
        |folder| {
            said(ImageProcessor::from_dir(folder));
        },
    ),
];

/// A config, in a folder with everything that it belongs to. The first byte chooses which of
/// [`CONFIGS`] it is.
pub fn config(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let (fixtures, name, load) = CONFIGS[usize::from(*which) % CONFIGS.len()];
    load(&folder_with(fixtures, name, bytes));
}

/// The files of a tokenizer, each with the folder of fixtures that has the others.
pub const TOKENIZER_FILES: [(&str, &str); 7] = [
    ("pipeline/model/tokenizer", "vocab.json"),
    ("pipeline/model/tokenizer", "merges.txt"),
    ("pipeline/model/tokenizer", "tokenizer_config.json"),
    ("pipeline/model/tokenizer", "special_tokens_map.json"),
    ("pipeline/model/tokenizer", "added_tokens.json"),
    ("tokenizer-json", "tokenizer.json"),
    ("tokenizer-json", "tokenizer_config.json"),
];

/// A tokenizer of which one file has these bytes; the first byte chooses which of
/// [`TOKENIZER_FILES`] it is. The tokenizer is used.
pub fn tokenizer(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let (fixtures, name) = TOKENIZER_FILES[usize::from(*which) % TOKENIZER_FILES.len()];
    let folder = folder_with(fixtures, name, bytes);
    let tokenizer = said(Tokenizer::from_dir(&folder));
    // The next input changes another file of this folder.
    match std::fs::read(fixture(fixtures).join(name)) {
        Ok(right) => std::fs::write(folder.join(name), right).expect("a scratch file"),
        Err(_) => std::fs::remove_file(folder.join(name)).expect("a scratch file"),
    }
    let Some(mut tokenizer) = tokenizer else {
        return;
    };
    for words in [
        "",
        "a photo of a <dog>, DOG's 12 \u{1F600}\u{0}",
        "a  <|endoftext|> b",
    ] {
        tokenizer.encode(words);
        said(tokenizer.check_rows(words));
    }
    if said(tokenizer.add_placeholder("<dog>", 2)).is_some() {
        let encoding = tokenizer.encode("a photo of a <dog>");
        assert_eq!(encoding.ids.len(), tokenizer.context_length());
    }
    tokenizer.token(0);
    tokenizer.token(u32::MAX);
}
