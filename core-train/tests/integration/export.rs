//! `core-train export`: the folder draws what the run draws, and is what diffusers expects.
//! (That diffusers draws the same from it is shown by `benchmarks/interop.py`.)

use std::path::{Path, PathBuf};
use std::process::Output;

use core_model::checkpoint::Checkpoint;
use serde_json::Value;

use crate::common::{fixture, train, write};

/// A run of one step per stage on the tiny checkpoint.
fn run_folder(folder: &Path, num_vectors: usize) -> PathBuf {
    let stage = |train: &str| {
        format!(
            "[[stages]]\nname = {train:?}\ntrain = [{train:?}]\nsteps = 1\nbatch_size = 2\n\
             learning_rate = 1e-2\nprompts = [\"a photo of a {{}}\"]\n"
        )
    };
    crate::common::photos(&folder.join("photos"));
    let text = format!(
        "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"dog\"\nnum_vectors = {num_vectors}\n{}{}",
        fixture("model"),
        stage("embedding"),
        stage("unet"),
    );
    let config = write(folder, "run.toml", &text);
    let run = folder.join("run");
    train(&config, &run, None);
    run
}

fn core_train(words: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    command.args(words).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The final latents of one image.
fn latents(source: &[&str], folder: &Path) -> Vec<f32> {
    let (file, out) = (folder.join("latents.safetensors"), folder.join("images"));
    let words = [
        "generate",
        "--prompt",
        "a photo of a <robot>",
        "--steps",
        "3",
        "--save-latents",
        text(&file),
        "--out",
        text(&out),
    ];
    let output = core_train(&[&words, source].concat());
    assert!(output.status.success(), "{output:?}");
    let file = Checkpoint::open(&file, |key| Some(key.to_string())).unwrap();
    file.read_f32("latents").unwrap().unwrap().0
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_folder_draws_what_the_run_draws() {
    for num_vectors in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let run = run_folder(folder.path(), num_vectors);
        let out = folder.path().join("exported");
        let output = core_train(&["export", text(&run), text(&out)]);
        assert!(output.status.success(), "{output:?}");
        let ours = latents(&["--run", text(&run)], folder.path());
        let exported = latents(&["--model", text(&out)], folder.path());
        assert_eq!(ours, exported, "{num_vectors} vectors");

        let weights = out.join("text_encoder/model.safetensors");
        let weights = Checkpoint::open(&weights, |key| Some(key.to_string())).unwrap();
        let table = "text_model.embeddings.token_embedding.weight";
        let rows = weights.info(table).unwrap().shape[0];
        let config = json(&out.join("text_encoder/config.json"));
        assert_eq!(config["vocab_size"], rows);
        let added = json(&out.join("tokenizer/added_tokens.json"));
        assert_eq!(added["<robot>"], rows - num_vectors);
        assert_eq!(added.get("<robot>_1").is_some(), num_vectors > 1);
        let index = json(&out.join("model_index.json"));
        assert_eq!(index["_class_name"], "StableDiffusionPipeline");
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_of_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(folder.path(), 1);
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let output = core_train(&["export", text(&run), text(&taken)]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"));
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 0);

    let unet = run.join("unet/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&unet).unwrap();
    std::fs::write(&unet, &bytes[..bytes.len() / 2]).unwrap();
    let parent = folder.path().join("new");
    let out = parent.join("exported");
    let output = core_train(&["export", text(&run), text(&out)]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("diffusion_pytorch_model.safetensors"),
        "{message}"
    );
    assert!(!parent.exists() || std::fs::read_dir(&parent).unwrap().count() == 0);

    let output = core_train(&["export", text(&taken), text(&out)]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("no run folder"), "{message}");
}

/// The model card of an exported folder.
fn card(out: &Path) -> String {
    std::fs::read_to_string(out.join("README.md")).unwrap()
}

#[test]
fn a_model_card_says_what_the_hub_reads_and_how_the_model_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(folder.path(), 1);
    let out = folder.path().join("exported");
    let output = core_train(&["export", text(&run), text(&out)]);
    assert!(output.status.success(), "{output:?}");
    let card = card(&out);
    let expected = "---\nbase_model: \"model\"\nlibrary_name: diffusers\npipeline_tag: text-to-image\n\
                    instance_prompt: \"a photo of a <robot>\"\ntags:\n- text-to-image\n- diffusers\n\
                    - diffusers-training\n- stable-diffusion\n- stable-diffusion-diffusers\n\
                    - textual_inversion\n- dreambooth\n---\n\n# robot\n";
    assert!(card.starts_with(expected), "{card}");
    for part in [
        "| embedding | embedding | 1 | 2 | 1e-2 | none |",
        "| unet | unet | 1 | 2 | 1e-2 | none |",
        "StableDiffusionPipeline.from_pretrained(\".\")",
        "## Scores\n\nNot measured.",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(!card.contains(text(folder.path())), "{card}");
}

/// A results folder with scores of one variant, in which a run lies.
fn results(folder: &Path) -> PathBuf {
    let results = folder.join("results");
    std::fs::create_dir_all(results.join("runs")).unwrap();
    let summary = "variant,metric,concept,mean,low,high,difference,difference_low,difference_high,n\n\
                   CoRe,dino,all,0.5,0.4,0.6,,,,3\n\
                   CoRe,dino,robot,0.56789,0.512,0.6234,,,,16\n\
                   Textual Inversion,dino,robot,0.3,0.2,0.4,,,,16\n";
    std::fs::write(results.join("summary.csv"), summary).unwrap();
    let protocol = r#"{"protocol": {"name": "dreambooth", "source": "Ruiz et al. 2023"}}"#;
    std::fs::write(results.join("protocol.json"), protocol).unwrap();
    results
}

#[test]
fn a_model_card_shows_the_scores_of_a_named_variant_with_their_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let results = results(folder.path());
    let run = run_folder(&results.join("runs"), 1);
    let out = folder.path().join("exported");
    let output = core_train(&["export", text(&run), text(&out), "--variant", "CoRe"]);
    assert!(output.status.success(), "{output:?}");
    let card = card(&out);
    assert!(
        card.contains("Protocol `dreambooth` (Ruiz et al. 2023):"),
        "{card}"
    );
    assert!(
        card.contains("| dino | 0.568 | 0.512 to 0.623 | 16 |"),
        "{card}"
    );
    assert!(!card.contains("0.300"), "{card}");
}

#[test]
fn scores_that_are_not_there_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = run_folder(folder.path(), 1);
    let results = results(folder.path());
    let out = folder.path().join("exported");
    let refused = |words: &[&str]| {
        let output = core_train(&[&["export", text(&run), text(&out)], words].concat());
        assert!(!output.status.success());
        assert!(!out.exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(&["--variant", "CoRe"]);
    assert!(message.contains("--scores"), "{message}");
    let message = refused(&["--scores", text(&results)]);
    assert!(message.contains("--variant"), "{message}");
    let message = refused(&["--scores", text(&results), "--variant", "core"]);
    assert!(
        message.contains("`core`") && message.contains("CoRe, Textual Inversion"),
        "{message}"
    );
    let message = refused(&["--scores", text(&run), "--variant", "CoRe"]);
    assert!(message.contains("holds no summary.csv"), "{message}");
    std::fs::write(results.join("summary.csv"), "variant,metric\nCoRe,dino\n").unwrap();
    let message = refused(&["--scores", text(&results), "--variant", "CoRe"]);
    assert!(
        message.contains("summary.csv") && message.contains("`concept`"),
        "{message}"
    );
    std::fs::write(results.join("protocol.json"), "{}").unwrap();
    let message = refused(&["--scores", text(&results), "--variant", "CoRe"]);
    assert!(message.contains("protocol.json"), "{message}");
}
