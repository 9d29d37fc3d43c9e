//! How the concept is written in prompts: what `{}` in a template becomes.

/// The place of the concept in a template.
pub const SLOT: &str = "{}";

/// The place of the concept's token in a phrase.
pub const TOKEN: &str = "{token}";

/// The place of the super-category in a phrase.
pub const CLASS: &str = "{class}";

/// The words for a concept, wherever a template has `{}`: in training, validation and evaluation
/// prompts and in the learned side of regularisation prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    pattern: String,
    token: String,
    class: String,
    words: String,
}

impl Phrase {
    /// `pattern` holds `{token}` once and may hold `{class}`; absent, it is the token alone.
    pub fn new(pattern: Option<&str>, token: &str, class: &str) -> Self {
        let mut phrase = Self {
            pattern: pattern.unwrap_or(TOKEN).to_string(),
            token: token.to_string(),
            class: class.to_string(),
            words: String::new(),
        };
        phrase.words = phrase.filled(&phrase.pattern);
        phrase
    }

    fn filled(&self, pattern: &str) -> String {
        pattern
            .replace(CLASS, &self.class)
            .replace(TOKEN, &self.token)
    }

    /// The words before the concept's token.
    pub fn before_token(&self) -> String {
        let before = self.pattern.split(TOKEN).next();
        self.filled(before.unwrap_or_default())
    }

    /// The words before the super-category, where it follows the concept's token.
    pub fn before_class(&self) -> Option<String> {
        let (before, after) = self.pattern.split_once(TOKEN)?;
        let (between, _) = after.split_once(CLASS)?;
        Some(self.filled(&format!("{before}{TOKEN}{between}")))
    }

    /// The concept's token: its placeholder, or a rare word of the vocabulary.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The super-category.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// What `{}` becomes.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// A template about the concept.
    pub fn fill(&self, template: &str) -> String {
        template.replace(SLOT, &self.words)
    }

    /// The same template about the super-category.
    pub fn fill_with_class(&self, template: &str) -> String {
        template.replace(SLOT, &self.class)
    }
}

#[cfg(test)]
mod tests {
    use super::Phrase;

    #[test]
    fn braces_become_the_phrase_or_the_super_category() {
        let phrase = Phrase::new(Some("{token} {class}"), "<tom>", "cat");
        assert_eq!(phrase.fill("a {} in space"), "a <tom> cat in space");
        assert_eq!(phrase.fill_with_class("a {} in space"), "a cat in space");
        assert_eq!(Phrase::new(None, "<tom>", "cat").words(), "<tom>");
    }

    #[test]
    fn the_places_of_token_and_super_category_in_the_phrase_are_known() {
        let phrase = Phrase::new(Some("my {token} {class}"), "<tom>", "cat");
        assert_eq!(phrase.before_token(), "my ");
        assert_eq!(phrase.before_class().as_deref(), Some("my <tom> "));
        for without in [None, Some("{class} {token}")] {
            assert_eq!(Phrase::new(without, "<tom>", "cat").before_class(), None);
        }
    }
}
