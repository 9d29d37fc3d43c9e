//! Cross Initialization, from words and from names, and training on several templates, against
//! PyTorch (fixtures from `generate_fixtures/cross_initialization.py`).

use core_train::RunConfig;

use crate::common::{photos, train, write};
use crate::golden::Golden;

fn golden() -> Golden {
    Golden::load("cross_initialization")
}

#[test]
fn the_encoders_output_for_as_many_words_as_vectors_equals_pytorch() {
    golden().check("words");
}

#[test]
fn the_encoders_output_for_one_word_written_once_for_each_vector_equals_pytorch() {
    golden().check("one-token");
}

#[test]
fn the_encoders_output_for_the_mean_of_names_equals_pytorch() {
    golden().check("names");
}

#[test]
fn a_replay_may_choose_among_several_prompts() {
    golden().check("several-templates");
}

#[test]
fn every_case_of_the_fixtures_is_a_test() {
    golden().assert_cases(&["words", "one-token", "names", "several-templates"]);
}

/// What training says of a run file with these lines in front, after other prompts and photos.
fn message(lines: &str, concept: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    write(folder.path(), "gap.txt", "red beach\n\ngreen\n");
    write(folder.path(), "none.txt", "");
    write(folder.path(), "names.txt", "red beach\ngreen\n");
    let text = format!(
        "{lines}\n[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"toy dog\"\n{concept}\n[[stages]]\ntrain = [\"embedding\"]\nsteps = 1\n\
         batch_size = 1\nlearning_rate = 1e-2\nprompts = [\"a {{}}\"]\n",
        crate::common::fixture("model")
    );
    let config = write(folder.path(), "run.toml", &text);
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program.arg("train").arg(&config).arg("--output");
    let output = program.arg(folder.path().join("out")).output().unwrap();
    assert!(!folder.path().join("out.partial").exists());
    let message = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => String::new(),
        Some(1) => message,
        code => panic!("{code:?}: {message}"),
    }
}

#[test]
fn starts_that_do_not_fit_are_refused_with_both_numbers() {
    let output = "initializer = \"encoder_output\"";
    let names = |value: &str| format!("initializer = {{ encoder_output_of_names = {value} }}");
    for (lines, concept, parts) in [
        (output, "num_vectors = 3", &["2 tokens", "3 vectors"][..]),
        (
            &names("[\"red beach\"]"),
            "num_vectors = 3",
            &["at most 2", "3 vectors"],
        ),
        (&names("[]"), "", &["encoder_output_of_names", "no name"]),
        (&names("\"none.txt\""), "", &["none.txt", "no name"]),
        (
            &names("\"gap.txt\""),
            "",
            &["gap.txt", "empty line", "line 2"],
        ),
        (&names("\"absent.txt\""), "", &["absent.txt"]),
        (
            "initializer = \"encoder\"",
            "",
            &["encoder", "encoder_output"],
        ),
        (
            "num_vectors = 2",
            "num_vectors = 3",
            &["`num_vectors` is 2", "3"],
        ),
        ("num_vectors = 0", "", &["`num_vectors` is 0"]),
        (&names("\"names.txt\""), "num_vectors = 2", &[]),
        (output, "num_vectors = 2", &[]),
    ] {
        let message = message(lines, concept);
        for part in parts {
            assert!(message.contains(part), "{lines}, {concept}: {message}");
        }
        assert_eq!(message.is_empty(), parts.is_empty(), "{message}");
    }
}

#[test]
fn a_run_keeps_names_and_number_of_vectors_and_does_not_need_their_file_again() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let names = write(folder.path(), "names.txt", "red beach\ngreen\n");
    let text = format!(
        "num_vectors = 2\ninitializer = {{ encoder_output_of_names = \"names.txt\" }}\n[model]\n\
         path = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\nsuper_category = \"dog\"\n\
         [[stages]]\ntrain = [\"embedding\"]\nsteps = 1\nbatch_size = 1\nlearning_rate = 1e-2\n\
         prompts = [\"a {{}}\"]\n",
        crate::common::fixture("model")
    );
    let config = write(folder.path(), "run.toml", &text);
    let output = folder.path().join("out");
    train(&config, &output, None);
    std::fs::remove_file(names).unwrap();
    let kept = RunConfig::load(&output.join("config.toml"), &[]).unwrap();
    assert_eq!((kept.num_vectors, kept.concept.num_vectors()), (None, 2));
    let again = folder.path().join("again");
    train(&output.join("config.toml"), &again, None);
    let metrics = |run: &std::path::Path| std::fs::read(run.join("metrics.csv")).unwrap();
    assert_eq!(metrics(&output), metrics(&again));
}
