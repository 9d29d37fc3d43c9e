//! PhotoMaker and Face2Diffusion against an own reference in PyTorch; see
//! `generate_fixtures/id_adapters.py`.

use std::fs;
use std::path::Path;

use crate::common::{device, fixture};
use burn::tensor::{Tensor, TensorData};
use core_model::Network;
use core_model::checkpoint::Checkpoint;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::face2diffusion::{Face2DiffusionConfig, Mapping, MsidConfig};
use core_model::id_adapter::{
    ADAPTER, IdAdapterConfig, IdAdapterFolder, save_face2diffusion, save_photomaker,
};
use core_model::lora::LayerNames;
use core_model::params::{ParamBuilder, to_vec};
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::photomaker::{ClassWord, PhotoMaker};
use core_model::text_encoder::{TextEncoder, TextEncoderConfig};
use core_model::tokenizer::Tokenizer;
use core_model::unet::{PerLevel, UNet2DConditionConfig, UNet2DConditionModel};
use tempfile::TempDir;

struct Expected(Checkpoint);

impl Expected {
    fn open() -> Self {
        let path = fixture("id-adapters/expected.safetensors");
        Self(Checkpoint::open(&path, |key| Some(key.into())).unwrap())
    }

    fn tensor<const D: usize>(&self, key: &str) -> Tensor<D> {
        let (values, shape) = self.0.read_f32(key).unwrap().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    fn check<const D: usize>(&self, key: &str, ours: Tensor<D>) {
        let golden = self.tensor::<D>(key);
        assert_eq!(ours.dims(), golden.dims(), "{key}");
        let (ours, golden) = (to_vec(ours), to_vec(golden));
        let largest = golden.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let pairs = ours.iter().zip(&golden);
        let difference = pairs.fold(0.0_f32, |a, (x, y)| a.max((x - y).abs())) / largest;
        assert!(difference < 1e-4, "{key} differs by {difference:e}");
    }
}

fn folder(name: &str) -> IdAdapterFolder {
    IdAdapterFolder::open(&fixture("id-adapters").join(name)).unwrap()
}

/// A copy of a fixture whose adapter.json has another text in it.
fn edited(name: &str, from: &str, to: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("id-adapters").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join(ADAPTER);
    let text: String = fs::read_to_string(&path)
        .unwrap()
        .split_whitespace()
        .collect();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
    copy
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

fn mini_tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mini/tokenizer");
    Tokenizer::from_dir(&folder).unwrap()
}

#[test]
fn photomaker_in_both_published_files_gives_what_the_reference_gives() {
    let expected = Expected::open();
    let places = [vec![1, 2, 3], vec![4, 5]];
    for name in ["photomaker", "photomaker-safetensors"] {
        let network = folder(name).photomaker(&device()).unwrap();
        let id_embeds = network.embed(expected.tensor("photos"));
        expected.check("id_embeds", id_embeds.clone());
        let states = expected.tensor::<3>("states");
        let stacked = network
            .fuse_module()
            .stack(states.clone(), id_embeds, &places);
        expected.check("stacked", stacked.clone());
        // Other positions keep their bits.
        let untouched = |states: Tensor<3>| to_vec(states.narrow(1, 6, 1));
        assert_eq!(untouched(stacked), untouched(states));
    }
}

#[test]
fn photos_have_the_gradient_of_the_reference_with_frozen_text_states() {
    let expected = Expected::open();
    let network = folder("photomaker").photomaker(&device()).unwrap();
    let id_embeds = network.embed(expected.tensor("photos"));
    let id_embeds = id_embeds.autodiff().require_grad();
    let places = [vec![1, 2, 3], vec![4, 5]];
    let fuse_module = network.fuse_module();
    let stacked = fuse_module.stack(expected.tensor("states"), id_embeds.clone(), &places);
    let weights = expected.tensor::<3>("weights").autodiff();
    let gradients = (stacked * weights).sum().backward();
    let gradient = id_embeds.grad(&gradients).unwrap();
    expected.check("id_embeds_gradient", gradient);
}

#[test]
fn both_spellings_of_photomakers_lora_are_one() {
    let names = LayerNames::of_stable_diffusion().unwrap();
    let [old, new] =
        ["photomaker", "photomaker-safetensors"].map(|name| folder(name).lora(&names).unwrap());
    assert_eq!(old.layers, new.layers);
    let layers: Vec<&str> = old.layers.keys().map(String::as_str).collect();
    let block = "unet.down_blocks.0.attentions.0.transformer_blocks.0";
    assert_eq!(
        layers,
        [
            format!("{block}.attn1.to_q"),
            format!("{block}.attn2.to_out.0")
        ]
    );
    assert_eq!(old.ranks(), [2, 2]);
    assert!(old.layers.values().all(|layer| layer.alpha == 2.0));
}

#[test]
fn face2diffusion_gives_what_the_reference_gives() {
    let expected = Expected::open();
    let face2diffusion = folder("face2diffusion");
    let IdAdapterConfig::Face2Diffusion(config) = face2diffusion.config() else {
        panic!("another kind");
    };
    let path = fixture("id-adapters/face2diffusion");
    let networks = face2diffusion.face2diffusion(&device()).unwrap();
    let identity = networks.msid().forward(expected.tensor("faces"));
    expected.check("identity", identity.clone());
    let file = Checkpoint::open(&path.join("mapping.pt"), |key| Some(key.into())).unwrap();
    let pb = ParamBuilder::from_checkpoint(file, &device());
    let mapping = Mapping::new(config, &pb).unwrap();
    let expressions = mapping.expressions(
        expected.tensor::<2>("expressions"),
        expected.tensor::<2>("given"),
    );
    expected.check("vectors", mapping.forward(identity.clone(), expressions));
    // Several photos are one person: the mapping of their mean identity, without an expression.
    let none = mapping.null_expression(1);
    let mean = mapping.forward(identity.mean_dim(0), none);
    let vectors = networks.vectors(expected.tensor("faces"));
    assert_eq!(to_vec(vectors), to_vec(mean));
}

#[test]
fn the_text_encoder_takes_vectors_in_the_place_of_token_and_position_embedding() {
    let expected = Expected::open();
    let text_encoder = TextEncoder::load(&fixture("id-adapters/text-encoder"), &device()).unwrap();
    let (ids, shape) = expected.0.read_i64("ids").unwrap().unwrap();
    let ids: Vec<Vec<u32>> = ids
        .chunks(shape[1])
        .map(|row| row.iter().map(|id| *id as u32).collect())
        .collect();
    let vectors = expected.tensor::<3>("vectors").narrow(0, 0, 1);
    let vectors: Tensor<2> = vectors.reshape([2, 10]);
    let states = text_encoder.forward_with_inputs(&ids, vectors.clone());
    expected.check("text_states", states.clone());
    let unet = UNet2DConditionModel::init(&small_unet(), 0, &device()).unwrap();
    let model = PersonalizedModel::new(text_encoder, unet);
    let model = model.with_embedding(ConceptEmbedding::without_positions(vectors));
    assert_eq!(to_vec(model.encode(&ids)), to_vec(states));
}

fn small_unet() -> UNet2DConditionConfig {
    UNet2DConditionConfig {
        block_out_channels: vec![32; 4],
        norm_num_groups: 8,
        layers_per_block: PerLevel::All(1),
        cross_attention_dim: PerLevel::All(10),
        attention_head_dim: PerLevel::All(4),
        ..UNet2DConditionConfig::default()
    }
}

#[test]
fn files_without_a_head_that_adapter_json_names_are_refused_with_its_name() {
    let copy = edited("face2diffusion", "\"layers\":[1,3]", "\"layers\":[1,2,3]");
    let adapter = IdAdapterFolder::open(copy.path()).unwrap();
    let message = adapter.face2diffusion(&device()).unwrap_err().to_string();
    let parts = ["msid.pt", "`norms.layer_2`", "[1, 2, 3]", "adapter.json"];
    assert_says(&message, &parts);
    let copy = edited("photomaker", "[6,10]", "[6,10,4]");
    let adapter = IdAdapterFolder::open(copy.path()).unwrap();
    let message = adapter.photomaker(&device()).unwrap_err().to_string();
    let parts = [
        "photomaker-v1.bin",
        "`id_encoder.visual_projection_3.weight`",
    ];
    assert_says(&message, &parts);
}

#[test]
fn folders_that_are_no_adapters_are_refused_with_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let message = IdAdapterFolder::open(empty.path()).unwrap_err().to_string();
    assert_says(&message, &["adapter.json", "\"kind\": \"photomaker\""]);
    fs::write(empty.path().join(ADAPTER), r#"{"kind": "instantid"}"#).unwrap();
    let message = IdAdapterFolder::open(empty.path()).unwrap_err().to_string();
    assert_says(&message, &["adapter.json", "instantid", "face2diffusion"]);
    let text = r#"{"kind": "face2diffusion", "layers": [1]}"#;
    fs::write(empty.path().join(ADAPTER), text).unwrap();
    let message = IdAdapterFolder::open(empty.path()).unwrap_err().to_string();
    assert_says(&message, &["adapter.json", "`layers`"]);
    fs::write(empty.path().join(ADAPTER), r#"{"kind": "photomaker"}"#).unwrap();
    let adapter = IdAdapterFolder::open(empty.path()).unwrap();
    let IdAdapterConfig::PhotoMaker(config) = adapter.config() else {
        panic!("another kind");
    };
    assert_eq!((config.width(), config.vision.image_size()), (2048, 224));
    let message = adapter.photomaker(&device()).unwrap_err().to_string();
    assert_says(&message, &["no weights", "photomaker-v1.bin"]);
}

#[test]
fn adapters_of_another_base_are_refused_by_their_widths() {
    let text_encoder = TextEncoder::load(&fixture("id-adapters/text-encoder"), &device()).unwrap();
    let unet = UNet2DConditionModel::init(&small_unet(), 0, &device()).unwrap();
    let model = PersonalizedModel::new(text_encoder, unet);
    let message = |adapter: IdAdapterFolder| match adapter.check_base(&model) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_says(
        &message(folder("photomaker")),
        &["PhotoMaker v1 needs SDXL", "[6, 10]"],
    );
    let one = edited("photomaker", "[6,10]", "[6]");
    let one = IdAdapterFolder::open(one.path()).unwrap();
    assert_says(
        &message(one),
        &["6 values", "have 10", "another base model"],
    );
    assert_eq!(message(folder("face2diffusion")), "");
    let wide = edited("face2diffusion", "\"text_width\":10", "\"text_width\":768");
    let wide = IdAdapterFolder::open(wide.path()).unwrap();
    assert_says(&message(wide), &["768 values", "takes 10"]);
}

fn small_vit() -> DinoModel {
    let config = DinoConfig {
        hidden_size: 12,
        intermediate_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        image_size: 16,
        patch_size: 8,
        layer_norm_eps: 1e-6,
        ..DinoConfig::default()
    };
    DinoModel::init(&config, 1, &device()).unwrap()
}

#[test]
fn adapters_that_are_written_are_read_again() {
    let expected = Expected::open();
    let names = LayerNames::of_stable_diffusion().unwrap();
    let lora = folder("photomaker").lora(&names).unwrap();
    let written = tempfile::tempdir().unwrap();
    let photomaker = PhotoMaker::around(small_vit(), 10, 2, &device()).unwrap();
    save_photomaker(written.path(), &photomaker, &lora).unwrap();
    let adapter = IdAdapterFolder::open(written.path()).unwrap();
    let read = adapter.photomaker(&device()).unwrap();
    let faces = expected.tensor::<4>("faces");
    let [ours, theirs] = [&photomaker, &read].map(|network| to_vec(network.embed(faces.clone())));
    let largest = ours.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for (ours, theirs) in ours.iter().zip(theirs) {
        // The file is in float16.
        assert!((ours - theirs).abs() < 5e-3 * largest, "{ours} {theirs}");
    }
    assert_eq!(adapter.lora(&names).unwrap().layers, lora.layers);
    adapter.processor().unwrap();
    let files: Vec<String> = adapter.digests().unwrap().into_keys().collect();
    let wanted = [
        "adapter.json",
        "photomaker.safetensors",
        "preprocessor_config.json",
    ];
    assert_eq!(files, wanted);

    let config = Face2DiffusionConfig {
        msid: MsidConfig::of_vit(small_vit().config(), &[0, 2]),
        exp_dim: 3,
        text_width: 10,
    };
    let written = tempfile::tempdir().unwrap();
    let vit = small_vit();
    vit.save(&written.path().join("msid"), core_model::Precision::Float32)
        .unwrap();
    let mapping = Mapping::init(&config, 3, &device()).unwrap();
    save_face2diffusion(written.path(), &config, &mapping).unwrap();
    let adapter = IdAdapterFolder::open(written.path()).unwrap();
    let read = adapter.face2diffusion(&device()).unwrap();
    let identity = to_vec(read.msid().forward(faces.clone()));
    assert_eq!(identity, to_vec(vit.class_tokens(faces, &[0, 2])));
}

#[test]
fn the_last_token_of_the_class_word_is_there_once_for_every_photo() {
    let tokenizer = mini_tokenizer();
    let prompt = "a photo of a dog in the snow";
    let plain = tokenizer.encode(prompt);
    for class_word in ["dog", "a dog"] {
        let expanded = ClassWord::new(class_word, 3, &tokenizer)
            .expand(prompt, &tokenizer)
            .unwrap();
        // begin, a, photo, of, a, dog
        assert_eq!(expanded.places, [5, 6, 7]);
        assert_eq!(expanded.ids.len(), plain.ids.len());
        assert_eq!(expanded.ids[..6], plain.ids[..6]);
        assert_eq!(expanded.ids[5..8], [plain.ids[5]; 3]);
        let rest = plain.length - 6;
        assert_eq!(expanded.ids[8..8 + rest], plain.ids[6..plain.length]);
    }
    let without = ClassWord::new("dog", 3, &tokenizer)
        .expand("a cat", &tokenizer)
        .unwrap();
    assert_eq!(without.places, Vec::<usize>::new());
    assert_eq!(without.ids, tokenizer.encode("a cat").ids);
}

#[test]
fn prompts_with_which_photos_cannot_be_fused_are_refused_with_the_reason() {
    let tokenizer = mini_tokenizer();
    let message = |photos: usize, prompt: &str| {
        let word = ClassWord::new("dog", photos, &tokenizer);
        let refused = word.check(prompt, &tokenizer).unwrap_err();
        refused.to_string()
    };
    let absent = message(2, "a cat in the snow");
    assert_says(&absent, &["no class word `dog`", "\"a photo of a dog\""]);
    let twice = message(2, "a dog beside a dog");
    assert_says(&twice, &["`dog` 2 times", "one person"]);
    // 24 positions, of which begin, "a dog in the snow" and end take 7: 18 photos fit.
    let long = message(19, "a dog in the snow");
    assert_says(
        &long,
        &[
            "19 photos",
            "24 tokens",
            "18 photos fit",
            "`adapter.photos`",
        ],
    );
    let fits = ClassWord::new("dog", 18, &tokenizer).check("a dog in the snow", &tokenizer);
    assert!(fits.is_ok());
    let words = vec!["red"; 30].join(" ");
    let cut = message(1, &format!("a dog {words}"));
    assert_says(&cut, &["0 photos fit", "shorten"]);
}

#[test]
fn a_text_encoder_without_placeholders_gives_the_same_bits_either_way() {
    let config = TextEncoderConfig {
        vocab_size: 20,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 5,
        ..TextEncoderConfig::default()
    };
    let text_encoder = TextEncoder::init(&config, 0, &device()).unwrap();
    let ids = vec![vec![1, 4, 9, 2, 0]];
    let rows = Tensor::zeros([1, 8], &device());
    assert_eq!(
        to_vec(text_encoder.forward(&ids, None)),
        to_vec(text_encoder.forward_with_inputs(&ids, rows))
    );
}
