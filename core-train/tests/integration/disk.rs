//! What a run takes on disk is known before it is trained.

use std::path::Path;

use core_model::folder::ModelFolder;
use core_train::RunConfig;
use core_train::cost::disk::{ModelShapes, RunBytes};

use crate::common::{fixture, photos, train, write};

/// The bytes of a file or folder in blocks.
fn bytes(path: &Path) -> u64 {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let own = metadata.len().next_multiple_of(4096);
    if !metadata.is_dir() {
        return own;
    }
    let entries = std::fs::read_dir(path).unwrap();
    own + entries
        .map(|entry| bytes(&entry.unwrap().path()))
        .sum::<u64>()
}

#[test]
fn every_set_of_weights_takes_about_what_was_computed() {
    for (sets, results) in [
        ("\"embedding\"", &[][..]),
        ("\"unet\", \"text_encoder\"", &["unet", "text_encoder"]),
        ("\"embedding\", \"cross_attention_kv\"", &["unet"]),
        (
            "{ kind = \"lora\", rank = 8, targets = \"all\", text_encoder = true }",
            &["lora.safetensors"],
        ),
        ("{ kind = \"oft\", blocks = 2 }", &["oft"]),
        ("\"neti\"", &[]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        let text = format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
             super_category = \"dog\"\n[[stages]]\ntrain = [{sets}]\nsteps = 1\nbatch_size = 1\n\
             learning_rate = 1e-3\nprompts = [\"a photo of a {{}}\"]\n",
            fixture("model")
        );
        let config = write(folder.path(), "run.toml", &text);
        let shapes = ModelShapes::read(&ModelFolder::new(fixture("model"))).unwrap();
        let RunBytes { weights, rest, .. } =
            shapes.run(&RunConfig::load(&config, &[]).unwrap()).unwrap();
        let output = folder.path().join("out");
        train(&config, &output, None);
        let found: u64 = results
            .iter()
            .map(|result| bytes(&output.join(result)))
            .sum();
        let near = |expected: u64, found: u64| {
            let off = expected.abs_diff(found);
            assert!(
                off <= found / 20 + 2 * 4096,
                "{sets}: {expected}, not {found}"
            );
        };
        near(weights, found);
        near(rest, bytes(&output) - found);
    }
}
