//! The tokenizer against transformers' `CLIPTokenizer`; see `generate_fixtures/tokenizer.py`.

use std::fs;
use std::path::{Path, PathBuf};

use core_model::text_encoder::TextEncoderConfig;
use core_model::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
    #[serde(default)]
    files: Map<String, Value>,
    length: usize,
    vocab_size: usize,
    placeholders: Vec<String>,
    cases: Vec<Case>,
}

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// CLIP's vocabulary.
fn vocabulary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/clip-tokenizer")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// CLIP's vocabulary with these files beside it.
fn folder(files: &Map<String, Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        fs::copy(vocabulary().join(name), folder.path().join(name)).unwrap();
    }
    for (name, content) in files {
        fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

fn clip() -> Tokenizer {
    Tokenizer::from_dir(&vocabulary()).unwrap()
}

fn config_error(config: Value) -> String {
    let folder = folder(&Map::from_iter([(
        "tokenizer_config.json".to_string(),
        config,
    )]));
    Tokenizer::from_dir(folder.path()).unwrap_err().to_string()
}

fn check(mut tokenizer: Tokenizer, variant: &Variant) {
    let name = &variant.name;
    assert_eq!(tokenizer.context_length(), variant.length, "{name}");
    assert_eq!(tokenizer.vocab_size(), variant.vocab_size, "{name}");
    for placeholder in &variant.placeholders {
        tokenizer.add_placeholder(placeholder, 1).unwrap();
    }
    for case in &variant.cases {
        assert_eq!(
            tokenizer.encode(&case.text).ids,
            case.ids,
            "{name}: {:?}",
            case.text
        );
    }
}

#[test]
fn all_golden_texts_have_the_published_ids() {
    let cases: Vec<Case> = read(&fixtures("clip-tokenizer/golden.json"));
    assert_eq!(cases.len(), 149);
    let tokenizer = clip();
    for case in cases {
        let encoding = tokenizer.encode(&case.text);
        let (ids, padding) = encoding.ids.split_at(case.ids.len());
        assert_eq!(ids, case.ids, "{:?}", case.text);
        assert!(padding.iter().all(|id| *id == 49407));
        assert_eq!(encoding.ids[encoding.length - 1], 49407);
    }
}

#[test]
fn every_layout_of_special_and_added_tokens_gives_the_ids_of_transformers() {
    let variants: Vec<Variant> = read(&fixtures("clip-tokenizer/variants.json"));
    assert_eq!(variants.len(), 6);
    for variant in variants {
        let folder = folder(&variant.files);
        check(Tokenizer::from_dir(folder.path()).unwrap(), &variant);
    }
}

#[test]
fn a_single_tokenizer_json_gives_the_ids_of_transformers() {
    let folder = fixtures("tokenizer-json");
    let variant: Variant = read(&folder.join("cases.json"));
    check(Tokenizer::from_dir(&folder).unwrap(), &variant);
}

#[test]
fn several_vectors_take_neighbouring_positions_with_ids_after_the_vocabulary() {
    let mut tokenizer = clip();
    tokenizer.add_placeholder("<robot>", 3).unwrap();
    tokenizer.add_placeholder("<cat>", 2).unwrap();
    let encoding = tokenizer.encode("a <robot> and <robot>, a <cat>");
    assert_eq!(encoding.placeholder, Some(2..5));
    let robot = [49408, 49409, 49410];
    assert_eq!(encoding.ids[2..5], robot);
    assert_eq!(encoding.ids[6..9], robot);
    assert_eq!(encoding.ids[11..13], [49411, 49412]);
    assert_eq!(encoding.length, 14);
    assert_eq!(tokenizer.vocab_size(), 49408);
    assert!(!encoding.truncated);
}

#[test]
fn a_placeholder_that_is_cut_off_is_not_reported() {
    let mut tokenizer = clip();
    tokenizer.add_placeholder("<robot>", 2).unwrap();
    let at = |words: usize| tokenizer.encode(&("word ".repeat(words) + "<robot>"));
    assert_eq!(at(73).placeholder, Some(74..76));
    assert!(!at(73).truncated);
    for words in [74, 75, 200] {
        let encoding = at(words);
        assert_eq!(encoding.placeholder, None, "{words}");
        assert!(encoding.truncated);
        assert_eq!((encoding.length, encoding.ids.len()), (77, 77));
        assert_eq!(encoding.ids[76], 49407);
    }
}

#[test]
fn tokens_read_as_a_person_would_write_them() {
    let mut tokenizer = clip();
    tokenizer.add_placeholder("<robot>", 2).unwrap();
    let encoding = tokenizer.encode("a café <robot>");
    let tokens: Vec<String> = encoding.ids[..encoding.length]
        .iter()
        .map(|id| tokenizer.token(*id))
        .collect();
    assert_eq!(
        tokens,
        [
            "<|startoftext|>",
            "a",
            "café",
            "<robot>",
            "<robot>_1",
            "<|endoftext|>"
        ]
    );
    assert_eq!(tokenizer.token(1_000_000), "");
}

#[test]
fn placeholders_that_cannot_be_told_apart_from_words_are_refused() {
    let mut tokenizer = clip();
    tokenizer.add_placeholder("<robot>", 1).unwrap();
    for (token, vectors, reason) in [
        ("", 1, "is empty"),
        (" \t", 1, "is empty"),
        (" <toy>", 1, "white space"),
        ("<ROBOT>", 1, "was added before"),
        ("dog", 1, "already a word of the vocabulary"),
        ("Dog", 1, "already a word of the vocabulary"),
        ("<|endoftext|>", 1, "already a word of the vocabulary"),
        ("<|endoftext|>x", 1, "holds a special token"),
        ("<toy>", 0, "0 vectors"),
        ("<toy>", 76, "a prompt has room for 1 to 75"),
    ] {
        let message = tokenizer
            .add_placeholder(token, vectors)
            .unwrap_err()
            .to_string();
        assert!(message.contains(reason), "{token:?}: {message}");
        assert!(message.contains(token), "{token:?}: {message}");
    }
    // Nothing of what was refused is left behind.
    tokenizer.add_placeholder("<toy>", 75).unwrap();
    assert_eq!(tokenizer.encode("<toy>").ids[1], 49409);
    assert_eq!(tokenizer.encode("dog").ids[1], 1929);
}

#[test]
fn an_absent_folder_is_an_error_that_names_a_file() {
    let message = Tokenizer::from_dir(Path::new("absent"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("absent/vocab.json"), "{message}");
}

#[test]
fn settings_that_do_not_fit_the_vocabulary_are_errors_that_name_the_key() {
    for (config, reason) in [
        (json!({"pad_token": "<pad>"}), "`pad_token` is `<pad>`"),
        (json!({"bos_token": 5}), "`bos_token` is 5"),
        (json!({"model_max_length": 2}), "`model_max_length` is 2"),
        (
            json!({"model_max_length": "long"}),
            "`model_max_length` is \"long\"",
        ),
        (
            json!({"added_tokens_decoder": {"60000": {"content": "<far>", "special": false}}}),
            "added token `<far>` has id 60000",
        ),
    ] {
        let message = config_error(config);
        assert!(
            message.contains("tokenizer_config.json") || message.contains("<far>"),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn a_damaged_vocabulary_is_an_error_that_names_the_file() {
    for (name, content, reason) in [
        ("vocab.json", r#"{"a": 0"#, "EOF"),
        ("vocab.json", r#"{"a": 0, "b": 2}"#, "`b` has id 2"),
        ("vocab.json", r#"{"a": 0, "b": 1}"#, "which is no token"),
        (
            "merges.txt",
            "#version: 0.2\na b c\n",
            "line 2 is not a pair",
        ),
    ] {
        let folder = folder(&Map::new());
        fs::write(folder.path().join(name), content).unwrap();
        let message = Tokenizer::from_dir(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains(reason),
            "{message}"
        );
    }
}

#[test]
fn a_tokenizer_fits_a_text_encoder_with_a_larger_table_and_fewer_positions() {
    let config = TextEncoderConfig {
        vocab_size: 49410,
        max_position_embeddings: 24,
        ..TextEncoderConfig::default()
    };
    let mut tokenizer = clip().fit(&config).unwrap();
    tokenizer.add_placeholder("<robot>", 2).unwrap();
    let encoding = tokenizer.encode("a <robot>");
    assert_eq!(encoding.ids[..5], [49406, 320, 49410, 49411, 49407]);
    assert_eq!(encoding.ids.len(), 24);
    assert_eq!(tokenizer.token(49411), "<robot>_1");
    assert_eq!(tokenizer.token(49408), "");
    let message = tokenizer.fit(&config).unwrap_err().to_string();
    assert!(message.contains("after fitting"), "{message}");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let small = TextEncoderConfig {
        vocab_size: 1000,
        ..TextEncoderConfig::default()
    };
    let message = clip().fit(&small).unwrap_err().to_string();
    assert!(
        message.contains("49408") && message.contains("`vocab_size` is 1000"),
        "{message}"
    );
    let short = TextEncoderConfig {
        max_position_embeddings: 24,
        ..TextEncoderConfig::default()
    };
    let config = json!({"model_max_length": 77});
    let folder = folder(&Map::from_iter([(
        "tokenizer_config.json".to_string(),
        config,
    )]));
    let stated = Tokenizer::from_dir(folder.path()).unwrap();
    let message = stated.fit(&short).unwrap_err().to_string();
    assert!(
        message.contains("`max_position_embeddings` is 24"),
        "{message}"
    );
}

#[test]
fn a_rare_word_may_be_several_entries_of_the_vocabulary_and_no_special_token() {
    let tokenizer = clip();
    // The rare words of DreamBooth, of OFT, and that of Custom Diffusion taken as text.
    for (word, ids) in [
        ("sks", &[48136][..]),
        ("qwe", &[80, 649]),
        ("ktn", &[74, 7248]),
    ] {
        let encoding = tokenizer.encode(word);
        assert_eq!(encoding.ids[1..encoding.length - 1], *ids, "{word}");
        assert!(tokenizer.knows(word));
    }
    for text in ["", " ", "<|endoftext|>", "a <|startoftext|> dog"] {
        assert!(!tokenizer.knows(text), "{text:?}");
    }
}
