//! Only what a stage names moves.

use core_model::checkpoint::Checkpoint;
use core_model::folder::ModelFolder;
use core_train::stepper::Stepper;
use core_train::{BaseModel, RunConfig};

use crate::common::{fixture, network, photos, train, write};

#[test]
fn a_stage_moves_what_it_names_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let text = format!(
        "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"dog\"\nnum_vectors = 2\n[[stages]]\n\
         train = [\"embedding\", \"cross_attention_kv\"]\nsteps = 2\nbatch_size = 2\n\
         learning_rate = 1e-2\nprompts = [\"a photo of a {{}}\"]\n",
        fixture("model")
    );
    let digests = || {
        ModelFolder::new(fixture("model"))
            .digests()
            .unwrap()
            .clone()
    };
    let before = digests();
    let config = write(folder.path(), "run.toml", &text);
    let output = folder.path().join("out");
    train(&config, &output, None);

    // The model folder is only read.
    assert_eq!(digests(), before);

    // Every vector of the concept moved away from the word it started at, each its own way.
    let open =
        |path: &std::path::Path| Checkpoint::open(path, |key| Some(key.to_string())).unwrap();
    let learned = open(&output.join("learned_embeds.safetensors"));
    assert_eq!(learned.keys().collect::<Vec<_>>(), ["<robot>"]);
    assert_eq!(learned.metadata()["super_category"], "dog");
    assert_eq!(learned.metadata()["base_model"], "model");
    let (rows, shape) = learned.read_f32("<robot>").unwrap().unwrap();
    assert_eq!(shape, [2, 16]);
    assert_ne!(rows[..16], rows[16..]);

    // Of the U-Net the keys and values of cross-attention moved and no other bit.
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let start = open(&fixture("model").join(weights));
    let end = network(&output, "unet");
    assert_eq!(start.keys().count(), end.len());
    for key in start.keys() {
        let moved = start.read_f32(key).unwrap().unwrap().0 != end[key];
        let named = key.contains(".attn2.to_k.") || key.contains(".attn2.to_v.");
        assert_eq!(moved, named, "{key}");
    }
    let config = |folder: &std::path::Path| std::fs::read(folder.join("unet/config.json")).unwrap();
    assert_eq!(config(&output), config(&fixture("model")));
}

#[test]
fn what_stands_for_the_concept_moves_alone() {
    for (train, optimizer) in [
        ("\"embedding\"", "adamw"),
        ("\"neti\"", "adamw"),
        (
            "{ kind = \"embedding\", direction = { scale = \"max\" } }",
            "spherical_sgd",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        let text = format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
             super_category = \"dog\"\n[[stages]]\ntrain = [{train}]\nsteps = 2\nbatch_size = 2\n\
             learning_rate = 1e-2\nprompts = [\"a photo of a {{}}\"]\n[stages.optimizer]\n\
             kind = {optimizer:?}\n",
            fixture("model")
        );
        let config = write(folder.path(), "run.toml", &text);
        let config = RunConfig::load(&config, &[]).unwrap();
        let base = BaseModel::load(&config.model, "cpu").unwrap();
        let mut stepper = Stepper::new(&config, base, None).unwrap();
        let moves = |name: &str| config.stages[0].moves(name);
        let moving = stepper.model().tensors(moves);
        let resting = stepper.model().tensors(|name| !moves(name));
        while let Some(step) = stepper.next_step() {
            step.unwrap();
        }
        assert!(!moving.is_empty() && resting.len() > 100, "{train}");
        for (start, end) in moving.iter().zip(stepper.model().tensors(moves)) {
            assert_ne!(start.values, end.values, "{train}: {}", start.name);
        }
        for (start, end) in resting.iter().zip(stepper.model().tensors(|n| !moves(n))) {
            assert_eq!(start.name, end.name);
            assert_eq!(start.values, end.values, "{train}: {}", start.name);
        }
    }
}
