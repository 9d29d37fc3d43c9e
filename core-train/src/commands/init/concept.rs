//! What is known of a concept without asking.

use std::path::Path;

use anyhow::Result;
use core_train::config::{ConceptConfig, parse};
use core_train::world::Category;

/// The file in a folder of photos that says what they show.
const CONCEPT: &str = "concept.toml";

/// A concept as its folder describes it.
pub(super) enum Concept {
    /// By a `concept.toml` beside the photos.
    Described(Box<ConceptConfig>),
    /// By the folder's name, and the word in it that names a kind of thing, if one is known.
    Named {
        name: String,
        category: Option<Category>,
    },
}

impl Concept {
    /// # Errors
    /// A damaged `concept.toml`.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let file = folder.join(CONCEPT);
        if file.is_file() {
            return Ok(Self::Described(Box::new(parse(&file)?)));
        }
        let whole = folder
            .canonicalize()
            .unwrap_or_else(|_| folder.to_path_buf());
        let name = plain(&whole.file_name().unwrap_or_default().to_string_lossy());
        Ok(Self::Named {
            category: category(&name),
            name,
        })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Described(config) => &config.name,
            Self::Named { name, .. } => name,
        }
    }

    /// What stands for it in prompts.
    pub(super) fn token(&self) -> String {
        match self {
            Self::Described(config) => config.placeholder_token(),
            Self::Named { name, .. } => format!("<{name}>"),
        }
    }
}

/// A name that can be a token and the name of a file: small letters and digits with hyphens between.
fn plain(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    match words.is_empty() {
        true => "concept".into(),
        false => words.join("-"),
    }
}

/// The last word of a name that names a kind of thing.
fn category(name: &str) -> Option<Category> {
    let known = |word: &str| Category::ALL.iter().copied().find(|c| c.word() == word);
    name.split('-').rev().find_map(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_become_names_of_concepts() {
        let named = ["Spotted Dog", "tom_2024 (copy)", "Mück", "..."].map(plain);
        assert_eq!(named, ["spotted-dog", "tom-2024-copy", "mück", "concept"]);
    }

    #[test]
    fn the_last_word_that_names_a_kind_of_thing_counts() {
        assert_eq!(category("spotted-dog"), Some(Category::Dog));
        assert_eq!(category("car-cup"), Some(Category::Cup));
        assert_eq!(category("dogs"), None);
    }
}
