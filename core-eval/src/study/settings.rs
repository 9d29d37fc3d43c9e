//! `study.toml`: the rules of a study, fixed when its page is made.

use std::path::Path;

use anyhow::{Result, ensure};
use core_model::files::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::question::Question;
use super::{KEY, SETTINGS};

/// The version of the files of a study.
const VERSION: u32 = 1;

/// The rules of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of the study: a digest of these rules, of `key.csv` and of the images.
    pub study: String,
    /// The version of these files.
    pub version: u32,
    /// The seed of all random choices.
    pub seed: u64,
    /// The variants that are compared.
    pub variants: Vec<String>,
    /// The questions, in their order.
    pub questions: Vec<Question>,
    /// For how many people there is a design.
    pub people: usize,
    /// How many pairs each of them compares, beside catch trials and repetitions.
    pub per_person: usize,
    /// How many trials each of them sees in all.
    pub trials: usize,
    /// How many of these are catch trials.
    pub catch_trials: usize,
    /// How many of these repeat a pair with swapped sides.
    pub repeats: usize,
    /// SHA-256 of all images.
    pub images: String,
    /// Whose votes are left out.
    pub exclusions: Exclusions,
}

/// The rules by which a person's votes are left out. They are part of the digest that names the study, so
/// they cannot be changed after votes were seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclusions {
    /// The least share of catch trials in which the photo was recognised.
    pub catch_right_at_least: f64,
    /// The least median time from the moment a pair is shown to an answer, in seconds.
    pub median_seconds_at_least: f64,
    /// The largest share of answers A or B that are on one side.
    pub one_side_at_most: f64,
}

impl Default for Exclusions {
    fn default() -> Self {
        Self {
            catch_right_at_least: 0.8,
            median_seconds_at_least: 1.5,
            one_side_at_most: 0.9,
        }
    }
}

impl Settings {
    /// The questions of a catch trial: those of the study if the right answer to one of them is known,
    /// which is identity; otherwise identity alone.
    pub fn catch_questions(&self) -> Vec<Question> {
        match self.questions.contains(&Question::Identity) {
            true => self.questions.clone(),
            false => vec![Question::Identity],
        }
    }

    /// How many votes a person has given in the end.
    pub fn votes_per_person(&self) -> usize {
        let plain = self.trials - self.catch_trials;
        plain * self.questions.len() + self.catch_trials * self.catch_questions().len()
    }

    /// Gives the study its name.
    pub(super) fn named(mut self, key: &str) -> Result<Self> {
        self.version = VERSION;
        self.study = self.digest(key)?;
        Ok(self)
    }

    fn digest(&self, key: &str) -> Result<String> {
        let unnamed = Self {
            study: String::new(),
            ..self.clone()
        };
        let mut hasher = Sha256::new();
        hasher.update(toml::to_string(&unnamed)?);
        hasher.update(key);
        Ok(hex(&hasher.finalize()[..6]))
    }

    /// The text of the file.
    pub(super) fn to_toml(&self) -> Result<String> {
        let note = "# The rules of this study, written by `core-eval study make`. They are part of the name \
                    `study`, which every vote\n# carries: change nothing here, make a new study instead.\n\n";
        Ok(format!("{note}{}", toml::to_string(self)?))
    }

    /// Reads the file, and checks that neither it nor the key was changed.
    ///
    /// # Errors
    /// An absent or damaged file, another version, rules or a key that do not fit the name of the study.
    pub(super) fn read(folder: &Path, key: &str) -> Result<Self> {
        let path = folder.join(SETTINGS);
        ensure!(
            path.is_file(),
            "{}: there is no such file; name a folder that `core-eval study make` wrote, as \
             results/ablation/study",
            path.display()
        );
        let settings: Self = core_train::config::parse(&path)?;
        ensure!(
            settings.version == VERSION,
            "{}: `version` is {}; this program reads version {VERSION}, so use the one that made the study",
            path.display(),
            settings.version
        );
        ensure!(
            settings.study == settings.digest(key)?,
            "{}: the rules here, or {KEY}, are not those with which the page of study {} was made; \
             restore the files as `core-eval study make` wrote them",
            path.display(),
            settings.study
        );
        Ok(settings)
    }
}

/// What a person reads in the end: a digest of the study and of how many votes were given. The page
/// computes the same.
pub(super) fn completion_code(study: &str, votes: usize) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let text = format!("{study} {votes}");
    let hash = text.bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016X}")[..8].to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            study: String::new(),
            version: VERSION,
            seed: 0,
            variants: vec!["CoRe".into(), "<img onerror=alert(1)>".into()],
            questions: vec![Question::Prompt],
            people: 2,
            per_person: 4,
            trials: 7,
            catch_trials: 1,
            repeats: 2,
            images: "x".into(),
            exclusions: Exclusions::default(),
        }
    }

    #[test]
    fn rules_and_key_cannot_be_changed_after_the_page_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SETTINGS);
        let settings = settings().named("key").unwrap();
        let text = settings.to_toml().unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Settings::read(folder.path(), "key").unwrap(), settings);
        let refused = |key| format!("{:#}", Settings::read(folder.path(), key).unwrap_err());
        assert!(refused("other").contains("key.csv"), "{}", refused("other"));
        std::fs::write(&path, text.replace("0.8", "0.5")).unwrap();
        assert!(refused("key").contains("restore"), "{}", refused("key"));
    }

    #[test]
    fn a_catch_trial_always_asks_the_question_whose_answer_is_known() {
        let mut settings = settings();
        assert_eq!(settings.catch_questions(), [Question::Identity]);
        assert_eq!(settings.votes_per_person(), 7);
        settings.questions = vec![Question::Identity, Question::Overall];
        assert_eq!(settings.catch_questions(), settings.questions);
        assert_eq!(settings.votes_per_person(), 14);
    }

    #[test]
    fn the_completion_code_is_a_hash_of_study_and_count() {
        // FNV-1a of 64 bits of "a 1", from the definition of the hash.
        assert_eq!(completion_code("a", 1).len(), 8);
        assert_ne!(completion_code("a", 1), completion_code("a", 2));
        assert_ne!(completion_code("a", 1), completion_code("b", 1));
    }
}
