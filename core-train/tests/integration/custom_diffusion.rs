//! Custom Diffusion, ClassDiffusion, and rare tokens of several vocabulary entries, against PyTorch
//! (fixtures from `generate_fixtures/custom_diffusion.py`).

use std::path::{Path, PathBuf};

use core_train::stepper::Stepper;
use core_train::{BaseModel, RunConfig};

use crate::common::{fixture, network, open, photos, read, train, train_step_by_step, write};
use crate::golden::Golden;

fn golden() -> Golden {
    Golden::load("custom_diffusion")
}

#[test]
fn custom_diffusion_with_masks_words_and_prior_equals_pytorch() {
    golden().check("custom-diffusion");
}

#[test]
fn the_first_tokens_gradient_stays_stopped_where_activations_are_recomputed() {
    golden().check("first-token-recomputed");
}

#[test]
fn classdiffusion_equals_pytorch() {
    golden().check("classdiffusion");
}

#[test]
fn every_case_of_the_fixtures_is_a_test() {
    golden().assert_cases(&[
        "custom-diffusion",
        "first-token-recomputed",
        "classdiffusion",
        "token-of-two-entries",
    ]);
}

/// What is wrong with a replay file whose mask was changed: its entry in the header, or its numbers,
/// which become the bytes of one in float16.
fn with_mask(change: impl FnOnce(&mut serde_json::Value), number: Option<[u8; 2]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let golden = golden();
    let config = write(folder.path(), "run.toml", &golden.toml("custom-diffusion"));
    let bytes = std::fs::read(golden.replay()).unwrap();
    let (size, rest) = bytes.split_at(8);
    let size = u64::from_le_bytes(size.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(size);
    let mut data = data.to_vec();
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let place = |at: usize| header["mask"]["data_offsets"][at].as_u64().unwrap() as usize;
    if let Some(number) = number {
        let mask = &mut data[place(0)..place(1)];
        mask.chunks_mut(2)
            .for_each(|value| value.copy_from_slice(&number));
    }
    change(&mut header);
    let header = header.to_string();
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend(header.bytes().chain(data));
    let path = folder.path().join("replay.safetensors");
    std::fs::write(&path, changed).unwrap();
    let run = RunConfig::load(&config, &[]).unwrap();
    let base = BaseModel::load(&run.model, "cpu").unwrap();
    let stepper = Stepper::new(&run, base, Some(&path));
    stepper.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn masks_that_a_replay_lacks_or_that_are_none_are_refused() {
    let rename = |header: &mut serde_json::Value| header["other"] = header["mask"].take();
    let rename = |header: &mut serde_json::Value| {
        rename(header);
        header.as_object_mut().unwrap().remove("mask");
    };
    let reshape =
        |header: &mut serde_json::Value| header["mask"]["shape"] = [8, 2, 1, 8, 32].into();
    let half = [0x00, 0x38];
    for (message, parts) in [
        (
            with_mask(rename, None),
            &["`mask`", "missing", "[8, 2, 1, 16, 16]"][..],
        ),
        (with_mask(|_| (), Some(half)), &["`mask`", "0.5", "0 and 1"]),
        (with_mask(|_| (), Some([0, 0])), &["`mask`", "no 1"]),
        (
            with_mask(reshape, None),
            &["`mask`", "[8, 2, 1, 8, 32]", "[8, 2, 1, 16, 16]"],
        ),
    ] {
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
    }
}

/// A run of two stages on photos: Custom Diffusion, then ClassDiffusion.
fn two_stages(folder: &Path) -> PathBuf {
    photos(&folder.join("photos"));
    let stage = |name: &str, term: &str| {
        format!(
            "[[stages]]\nname = {name:?}\ntrain = [\"embedding\", \"cross_attention_kv\"]\n\
             steps = 3\nbatch_size = 2\nlearning_rate = 1e-3\nprompts = [\"the {{}}\", \"a {{}}\"]\n\
             augmentation = \"custom_diffusion\"\nstop_first_token_gradient = true\n\
             [stages.optimizer]\nmax_grad_norm = 1.0\n[[stages.regularizers]]\n{term}\n"
        )
    };
    let text = format!(
        "phrase = \"{{token}} {{class}}\"\ninitializer = {{ id = 300 }}\n[model]\npath = {:?}\n\
         [concept]\nname = \"robot\"\nimages = \"photos\"\nsuper_category = \"dog\"\nflip = true\n{}{}",
        fixture("model"),
        stage(
            "custom-diffusion",
            "kind = \"prior_preservation\"\nimages = \"photos\""
        ),
        stage(
            "classdiffusion",
            "kind = \"semantic_preservation\"\nweight = 0.25\nprompt = \"the {}\""
        ),
    );
    write(folder, "run.toml", &text)
}

#[test]
fn a_run_stopped_after_every_step_ends_with_the_same_bytes_and_moves_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = two_stages(folder.path());
    let whole = folder.path().join("whole");
    train(&config, &whole, None);
    let parts = folder.path().join("parts");
    assert_eq!(train_step_by_step(&config, &parts), 6);
    let changed = "unet/changed_weights.safetensors";
    for file in ["metrics.csv", "learned_embeds.safetensors", changed] {
        let [one, other] = [&whole, &parts].map(|run| std::fs::read(run.join(file)).unwrap());
        assert!(one == other, "{file}");
    }
    let start = open(&fixture("model").join("unet/diffusion_pytorch_model.safetensors"));
    let end = network(&whole, "unet");
    for key in start.keys() {
        let moved = read(&start, key) != end[key];
        let named = key.contains(".attn2.to_k.") || key.contains(".attn2.to_v.");
        assert_eq!(moved, named, "{key}");
    }
}

#[test]
fn a_dry_run_tells_time_and_memory_and_draws_no_class_image() {
    let folder = tempfile::tempdir().unwrap();
    let config = two_stages(folder.path());
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program.arg("train").arg(&config).arg("--dry-run");
    let output = program.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "semantic_preservation",
        "s per step",
        "time:",
        "peak memory",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_rare_token_of_two_vocabulary_entries_equals_pytorch() {
    golden().check("token-of-two-entries");
}

/// What `core-train train` says of a run with this rare token, and whether it went well.
fn train_with_rare_token(token: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let text = format!(
        "rare_token = {token:?}\n[model]\npath = {:?}\n[concept]\nname = \"robot\"\n\
         images = \"photos\"\nsuper_category = \"toy dog\"\n[[stages]]\ntrain = [\"unet\"]\nsteps = 1\n\
         batch_size = 1\nlearning_rate = 1e-4\nprompts = [\"a {{}}\"]\n",
        fixture("model")
    );
    let config = write(folder.path(), "run.toml", &text);
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program.arg("train").arg(&config).arg("--output");
    let output = program.arg(folder.path().join("out")).output().unwrap();
    assert!(!folder.path().join("out.partial").exists());
    let message = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), message)
}

#[test]
fn a_rare_token_of_several_entries_is_said_and_one_outside_the_vocabulary_refused() {
    let (trained, message) = train_with_rare_token("zq");
    assert!(trained, "{message}");
    for part in ["\"zq\"", "2 tokens", "`z`", "`q`"] {
        assert!(message.contains(part), "{message}");
    }
    for (token, part) in [
        ("<|endoftext|>", "vocabulary"),
        ("red <|startoftext|>", "vocabulary"),
        ("qwertyuiopasdfghjklzxcvbnm", "more tokens"),
        (" ", "expected a word"),
    ] {
        let (trained, message) = train_with_rare_token(token);
        assert!(!trained && message.contains("rare_token"), "{message}");
        assert!(message.contains(part), "{token}: {message}");
    }
}
