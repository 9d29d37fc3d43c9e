//! Whether a tokenizer has an entry for every word of the captions.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use core_model::tokenizer::Tokenizer;

use crate::world::{Accessory, Background, Category, Color, Expression, Style};

/// Tokens of a prompt that are no words: its start and its end.
const ENDS: usize = 2;

/// The tokenizer in a folder, for captions of things with these nouns.
///
/// # Errors
/// An absent or damaged tokenizer, or one that cuts a word of the captions into pieces.
pub(super) fn read_tokenizer(folder: &Path, nouns: &[Category]) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    check_words(&tokenizer, nouns).with_context(|| {
        format!(
            "{}: train it anew (core-train pretrain experiments/pretrain/tokenizer.toml), and then what \
             was trained with it",
            folder.display()
        )
    })?;
    Ok(tokenizer)
}

/// Refuses a tokenizer that cuts a word of the captions into pieces.
///
/// # Errors
/// The first such word.
pub(super) fn check_words(tokenizer: &Tokenizer, nouns: &[Category]) -> Result<()> {
    for word in words(nouns) {
        let pieces = tokenizer.encode(word).length - ENDS;
        ensure!(
            pieces == 1,
            "the tokenizer has no entry for `{word}`, a word of the captions, and cuts it into {pieces} pieces"
        );
    }
    Ok(())
}

/// The words for all attributes of scenes with these nouns.
fn words(nouns: &[Category]) -> BTreeSet<&'static str> {
    let mut phrases: Vec<&str> = vec!["a", "an"];
    phrases.extend(nouns.iter().map(|category| category.word()));
    if nouns.contains(&Category::Person) {
        phrases.extend(Expression::ALL.iter().map(|expression| expression.word()));
    }
    phrases.extend(Color::ALL.iter().map(|color| color.word()));
    for accessory in Accessory::ALL {
        phrases.extend([accessory.phrase(), accessory.paraphrase()]);
    }
    for background in Background::ALL {
        phrases.extend([background.phrase(), background.paraphrase()]);
    }
    for style in Style::ALL {
        phrases.extend([style.phrase(), style.paraphrase()]);
    }
    phrases
        .into_iter()
        .flat_map(str::split_whitespace)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mini/tokenizer")
    }

    #[test]
    fn the_shipped_tokenizer_has_an_entry_for_every_word_of_the_captions() {
        read_tokenizer(&shipped(), Category::ALL).unwrap();
        let things = words(Category::THINGS);
        assert!(things.contains("rabbit") && things.contains("pencil"));
        assert!(!things.contains("smiling") && words(Category::ALL).contains("smiling"));
    }

    #[test]
    fn a_tokenizer_that_lost_a_word_is_refused_with_folder_and_word() {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(shipped()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let merges = folder.path().join("merges.txt");
        let text = std::fs::read_to_string(&merges).unwrap();
        let kept: String = text
            .lines()
            .filter(|line| line.replace(' ', "") != "rabbit</w>")
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(kept.len() < text.len());
        std::fs::write(&merges, kept).unwrap();
        let message = format!(
            "{:#}",
            read_tokenizer(folder.path(), Category::THINGS).unwrap_err()
        );
        let name = folder.path().display().to_string();
        for part in [name.as_str(), "`rabbit`", "tokenizer.toml"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
