//! Completions for shells, manual pages and exit codes.

use std::path::Path;
use std::process::Output;

fn core_train(words: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("core-train").unwrap();
    command.args(words).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_shell_gets_a_script_that_knows_commands_and_arguments() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = core_train(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        for part in ["core-train", "generate", "guidance-scale"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    let output = core_train(&["completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("tcsh") && message.contains("zsh"),
        "{message}"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    let output = core_train(&["man", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let names = names(&pages);
    for page in [
        "core-train.1",
        "core-train-generate.1",
        "core-train-lora-convert.1",
    ] {
        assert!(names.contains(&page.to_string()), "{names:?}");
    }
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{} manual pages\n", names.len()));
    let page = std::fs::read_to_string(pages.join("core-train.1")).unwrap();
    assert!(
        page.starts_with(".ie") || page.contains(".TH core-train 1"),
        "{page}"
    );
    assert!(page.contains("130 after Ctrl"), "{page}");
    let page = std::fs::read_to_string(pages.join("core-train-generate.1")).unwrap();
    assert!(page.contains("\\-\\-guidance\\-scale"), "{page}");

    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let output = core_train(&["man", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("file"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn exit_codes_are_those_that_help_names() {
    let output = core_train(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "0 if everything",
        "1 for an error",
        "2 for wrong arguments",
        "130 after Ctrl-C",
        "143 after SIGTERM",
    ] {
        assert!(help.contains(part), "{help}");
    }
    assert_eq!(core_train(&["generate"]).status.code(), Some(2));
    assert_eq!(core_train(&["fly"]).status.code(), Some(2));
    assert_eq!(
        core_train(&["model", "inspect", "/absent"]).status.code(),
        Some(1)
    );
}
