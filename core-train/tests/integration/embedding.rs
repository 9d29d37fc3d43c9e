//! `core-train embedding`: learned concepts of other tools.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use core_model::Network;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::text_encoder::TextEncoder;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn embedding() -> Command {
    let mut command = Command::cargo_bin("core-train").unwrap();
    command.arg("embedding");
    command
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_row_of_the_vocabulary_is_nearest_to_its_own_token() {
    let folder = tempfile::tempdir().unwrap();
    let model = checkout().join("models/mini");
    let device = burn::tensor::Device::flex();
    let encoder = TextEncoder::load(&model.join("text_encoder"), &device).unwrap();
    let doubled = |id| -> Vec<f32> {
        let row = encoder.token_embedding(id).into_iter();
        row.map(|value| 2.0 * value).collect()
    };
    let file = folder.path().join("two.safetensors");
    let rows = [doubled(300), doubled(301)];
    let concept = LearnedEmbedding::new("<two>", &rows).unwrap();
    concept.save(&file).unwrap();
    let text = printed(
        embedding()
            .arg("inspect")
            .arg(&file)
            .arg("--model")
            .arg(&model),
    );
    assert!(text.contains("token `<two>`, 2 vectors of 128"), "{text}");
    assert!(text.contains("vocabulary: 673 tokens"), "{text}");
    let norm = concept.norms()[1];
    let tokenizer = core_model::tokenizer::Tokenizer::from_dir(&model.join("tokenizer")).unwrap();
    let line = format!(
        "vector 1: norm {norm:.4}, nearest by cosine `{}` 1.000",
        tokenizer.token(301).trim()
    );
    assert!(text.contains(&line), "{line}: {text}");
}

#[test]
fn a_pickle_of_another_tool_becomes_a_file_that_all_tools_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = checkout().join("core-model/tests/fixtures/learned_embedding");
    let output = folder.path().join("robot.safetensors");
    let mut command = embedding();
    command
        .arg("convert")
        .arg(fixtures.join("automatic1111.pt"));
    let text = printed(command.arg(&output).args(["--token", "<robot>"]));
    assert!(text.contains("string_to_param (AUTOMATIC1111)"), "{text}");
    let reference = LearnedEmbedding::load(&fixtures.join("reference.safetensors")).unwrap();
    let converted = LearnedEmbedding::load(&output).unwrap();
    assert_eq!(converted.vectors, reference.vectors);
    assert_eq!(converted.token, "<robot>");
    assert_eq!(converted.metadata["sd_checkpoint_name"], "sd");

    let mut command = embedding();
    command.arg("convert").arg(fixtures.join("harmful.bin"));
    let output = command
        .arg(folder.path().join("x.safetensors"))
        .output()
        .unwrap();
    // The program that it names is skipped, and said.
    assert!(output.status.success());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains(".system"), "{warning}");
    let converted = LearnedEmbedding::load(&folder.path().join("x.safetensors")).unwrap();
    assert_eq!(converted.vectors, reference.vectors);
}
