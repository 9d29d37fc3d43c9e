//! Learned embeddings as other tools write them; see `generate_fixtures/learned_embedding.py`.

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
fn what_torch_saved_is_read_as_data() {
    use EmbeddingLayout::{EmbParams, OneKey, OneKeyPerVector, StringToParam};
    let reference = LearnedEmbedding::load(&fixture("reference.safetensors")).unwrap();
    for (name, layout, token) in [
        ("diffusers.bin", OneKey, "<robot>"),
        ("half.bin", OneKey, "<robot>"),
        ("bfloat.bin", OneKey, "<robot>"),
        ("double.bin", OneKey, "<robot>"),
        ("view.bin", OneKey, "<robot>"),
        ("parameter.bin", OneKey, "<robot>"),
        ("one-key-per-vector.bin", OneKeyPerVector, "robot"),
        ("kohya.pt", EmbParams, "kohya"),
        ("automatic1111.pt", StringToParam, "automatic1111"),
        ("textual-inversion.pt", StringToParam, "textual-inversion"),
    ] {
        let path = fixture(name);
        let (embedding, found) = LearnedEmbedding::load_with_layout(&path, Some(8)).unwrap();
        assert_eq!(found, layout, "{name}");
        assert_eq!(embedding.token, token);
        assert_eq!(embedding.num_vectors, 3, "{name}");
        assert_eq!(embedding.vectors, reference.vectors, "{name}");
    }
    let one = LearnedEmbedding::load(&fixture("one-dimensional.bin")).unwrap();
    assert_eq!(one.vectors, reference.vectors[..8]);
    let webui = LearnedEmbedding::load(&fixture("automatic1111.pt")).unwrap();
    let metadata = ["name", "step", "sd_checkpoint_name"].map(|key| webui.metadata[key].as_str());
    assert_eq!(metadata, ["robot", "100", "sd"]);
}

#[test]
fn a_pickle_that_names_a_program_is_read_without_running_it() {
    let reference = LearnedEmbedding::load(&fixture("reference.safetensors")).unwrap();
    let embedding = LearnedEmbedding::load(&fixture("harmful.bin")).unwrap();
    assert_eq!(embedding.vectors, reference.vectors);
}

#[test]
fn files_of_torch_before_version_1_6_are_read() {
    let reference = LearnedEmbedding::load(&fixture("reference.safetensors")).unwrap();
    let embedding = LearnedEmbedding::load(&fixture("before-1.6.bin")).unwrap();
    assert_eq!(embedding.token, "<robot>");
    assert_eq!(embedding.vectors, reference.vectors);
}

/// Every cut and many flipped bits of a file: an error or an embedding, but no panic, and no more
/// memory than the file is worth.
#[test]
fn damaged_files_are_errors_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "automatic1111.pt",
        "view.bin",
        "before-1.6.bin",
        "reference.safetensors",
    ] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let path = folder.path().join(name);
        let mut refused = 0;
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            refused += usize::from(LearnedEmbedding::load(&path).is_err());
        }
        assert_eq!(refused, whole.len(), "{name}");
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                if let Ok(embedding) = LearnedEmbedding::load(&path) {
                    assert!(embedding.vectors.len() <= whole.len(), "{name}: byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = LearnedEmbedding::load(&fixture("absent.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("absent.safetensors"), "{error}");
}
