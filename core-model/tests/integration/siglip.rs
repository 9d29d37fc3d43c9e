//! SigLIP against transformers; see `generate_fixtures/siglip.py`.

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::image_processor::{ImageProcessor, load_image};
use core_model::params::to_vec;
use core_model::siglip::{SiglipModel, SiglipTokenizer};
use core_model::{Network, Precision};

use crate::common::{device, fixture};

/// Positions and rows of the fixtures' text tower.
const LENGTH: usize = 8;
const ROWS: usize = 21;

fn expected(key: &str) -> (Vec<f32>, Vec<usize>) {
    let path = fixture("siglip/expected.safetensors");
    let file = Checkpoint::open(&path, |key| Some(key.into())).unwrap();
    file.read_f32(key).unwrap().unwrap()
}

fn ids() -> Vec<Vec<u32>> {
    let path = fixture("siglip/expected.safetensors");
    let file = Checkpoint::open(&path, |key| Some(key.into())).unwrap();
    let (values, shape) = file.read_i64("ids").unwrap().unwrap();
    let row = |row: &[i64]| row.iter().map(|id| *id as u32).collect();
    values.chunks(shape[1]).map(row).collect()
}

fn pixels() -> Tensor<4> {
    let (values, shape) = expected("pixels");
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn model(name: &str) -> SiglipModel {
    SiglipModel::load(&fixture("siglip").join(name), &device()).unwrap()
}

fn assert_close(ours: &[f32], theirs: &[f32], tolerance: f32, name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let scale = theirs.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance * scale, "{name}: {a} and {b}");
    }
}

/// A copy of a fixture's folder, with a change to one of its files.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("siglip/default")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
    folder
}

#[test]
fn siglip_features_are_those_of_transformers() {
    for name in ["default", "other-widths"] {
        let model = model(name);
        let (text, shape) = expected(&format!("{name}.text"));
        let ours = model.text_features(&ids());
        assert_eq!(ours.dims().to_vec(), shape);
        assert_close(&to_vec(ours), &text, 1e-4, name);
        let (image, shape) = expected(&format!("{name}.image"));
        let ours = model.image_features(pixels());
        assert_eq!(ours.dims().to_vec(), shape);
        assert_close(&to_vec(ours), &image, 1e-4, name);
    }
}

#[test]
fn siglip_reads_images_as_transformers_does() {
    let processor = ImageProcessor::from_dir(&fixture("siglip/default")).unwrap();
    let photograph = load_image(&fixture("image-processor/photograph.png")).unwrap();
    let ours = processor.preprocess(&[photograph], &device()).unwrap();
    let theirs = to_vec(pixels().narrow(0, 0, 1));
    assert_close(&to_vec(ours), &theirs, 1e-6, "photograph");
}

#[test]
fn siglip_prompts_become_the_ids_of_transformers_padded_to_their_length() {
    let texts = fs::read_to_string(fixture("siglip/texts.json")).unwrap();
    let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
    let folder = fixture("siglip/default");
    let tokenizer = SiglipTokenizer::from_dir(&folder, LENGTH, ROWS).unwrap();
    let mut cut = Vec::new();
    for (text, ids) in texts.iter().zip(ids()) {
        let encoding = tokenizer.encode(text).unwrap();
        assert_eq!(encoding.ids, ids, "{text}");
        cut.push(encoding.truncated);
    }
    // The three long ones have more than seven tokens beside the end of text.
    assert_eq!(cut, [false, true, true, true, false]);
}

#[test]
fn a_folder_of_the_class_siglip_tokenizer_makes_text_plain_itself() {
    let normalizer = "\"type\": \"Sequence\",";
    let class = "\"tokenizer_class\": \"TokenizersBackend\"";
    let folder = changed(
        "tokenizer_config.json",
        class,
        "\"tokenizer_class\": \"SiglipTokenizer\"",
    );
    let path = folder.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(normalizer), "{text}");
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["normalizer"] = serde_json::Value::Null;
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = SiglipTokenizer::from_dir(folder.path(), LENGTH, ROWS).unwrap();
    let encoding = tokenizer.encode("A RED dog's hat, on the beach!").unwrap();
    assert_eq!(encoding.ids, ids()[1]);
}

#[test]
fn a_saved_siglip_has_transformers_keys_and_gives_the_same_numbers() {
    let model = model("other-widths");
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path(), Precision::Float32).unwrap();
    let keys = |path: &Path| {
        let file = Checkpoint::open(&path.join("model.safetensors"), |key| Some(key.into()));
        let mut keys: Vec<String> = file.unwrap().keys().map(String::from).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(folder.path()), keys(&fixture("siglip/other-widths")));
    let again = SiglipModel::load(folder.path(), &device()).unwrap();
    let image = |model: &SiglipModel| to_vec(model.image_features(pixels()));
    assert_eq!(image(&again), image(&model));
}

#[test]
fn other_members_of_the_family_are_refused_by_the_key_that_differs() {
    for (from, to, part) in [
        (
            "\"model_type\": \"siglip\",",
            "\"model_type\": \"siglip2\",",
            "`model_type`",
        ),
        (
            "\"vision_use_head\": true",
            "\"vision_use_head\": false",
            "`vision_use_head`",
        ),
        (
            "\"projection_size\": 18",
            "\"projection_size\": 17",
            "`text_config.projection_size` is 17",
        ),
        (
            "\"vocab_size\": 21",
            "\"vocab_size\": 22",
            "but the network needs [22, 18]",
        ),
    ] {
        let folder = changed("config.json", from, to);
        let message = SiglipModel::check(folder.path()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_tokenizer_that_cannot_be_read_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("spiece.model"), b"").unwrap();
    let message = SiglipTokenizer::from_dir(folder.path(), LENGTH, ROWS).unwrap_err();
    let message = message.to_string();
    assert!(
        message.contains("spiece.model") && message.contains("tokenizer.json"),
        "{message}"
    );

    let small = SiglipTokenizer::from_dir(&fixture("siglip/default"), LENGTH, 20).unwrap_err();
    assert!(small.to_string().contains("`vocab_size` is 20"), "{small}");

    let folder = changed(
        "tokenizer_config.json",
        "\"pad_token\": \"</s>\"",
        "\"pad_token\": \"<p>\"",
    );
    let message = SiglipTokenizer::from_dir(folder.path(), LENGTH, ROWS).unwrap_err();
    assert!(message.to_string().contains("`<p>`"), "{message}");
}
