//! Learned embeddings as other tools write them; see `generate_fixtures/learned_embedding.py`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use core_model::learned_embedding::{EmbeddingLayout, LearnedEmbedding};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/learned_embedding");
    folder.join(name)
}

#[test]
fn every_layout_gives_the_same_vectors() {
    use EmbeddingLayout::{
        ByWidth, ClipL, EmbParams, EmpParams, OneKey, OneKeyPerVector, StringToParam,
    };
    let reference = LearnedEmbedding::load(&fixture("reference.safetensors")).unwrap();
    assert_eq!(reference.token, "<robot>");
    assert_eq!((reference.num_vectors, reference.dim), (3, 8));
    for (name, layout, token) in [
        ("half", OneKey, "<robot>"),
        ("bfloat", OneKey, "<robot>"),
        ("double", OneKey, "<robot>"),
        ("automatic1111", StringToParam, "automatic1111"),
        (
            "automatic1111-nested",
            StringToParam,
            "automatic1111-nested",
        ),
        ("kohya", EmbParams, "kohya"),
        ("onetrainer", EmpParams, "onetrainer"),
        ("comfyui", ClipL, "comfyui"),
        ("by-width", ByWidth, "second"),
        ("one-key-per-vector", OneKeyPerVector, "robot"),
    ] {
        let path = fixture(&format!("{name}.safetensors"));
        let (embedding, found) = LearnedEmbedding::load_with_layout(&path, Some(8)).unwrap();
        assert_eq!(found, layout, "{name}");
        assert_eq!(embedding.token, token);
        assert_eq!(embedding.num_vectors, 3, "{name}");
        assert_eq!(embedding.vectors, reference.vectors, "{name}");
    }
}

#[test]
fn a_one_dimensional_tensor_is_one_vector() {
    let reference = LearnedEmbedding::load(&fixture("reference.safetensors")).unwrap();
    let one = LearnedEmbedding::load(&fixture("one-dimensional.safetensors")).unwrap();
    assert_eq!((one.num_vectors, one.dim), (1, 8));
    assert_eq!(one.vectors, reference.vectors[..8]);
}

#[test]
fn a_real_pickle_is_refused_with_the_way_to_convert_it() {
    let error = LearnedEmbedding::load(&fixture("pickle.bin"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("pickle.bin") && error.contains("weights_only=True"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = LearnedEmbedding::load(&fixture("absent.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("absent.safetensors"), "{error}");
}
