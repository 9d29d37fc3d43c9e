//! CLIP's tokenizer, with placeholders for concepts that have no word.
//!
//! Follows the CLIP tokenizer of transformers: placeholders and special tokens are found first,
//! longest first; the rest is lower-cased, its white space collapsed, split into words, and the
//! bytes of a word are paired. A placeholder matches in upper and lower case, as a token that
//! `add_tokens` adds does there, and never passes through the pairing.

mod files;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::{AddedToken, NormalizedString, Normalizer};

use crate::error::{Error, Result};
use crate::text_encoder::TextEncoderConfig;

/// The files that a tokenizer's folder may hold.
pub(crate) const FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// What marks the last byte of a word.
const WORD_END: &str = "</w>";

/// A prompt as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// One id a position, padded to the context length.
    pub ids: Vec<u32>,
    /// Positions from the start to the first end of text, both included.
    pub length: usize,
    /// The positions of the first placeholder; absent too when truncation took one of them.
    pub placeholder: Option<Range<usize>>,
    /// Whether words were cut off.
    pub truncated: bool,
}

#[derive(Debug, Clone)]
struct Placeholder {
    token: String,
    /// As it is looked for in lower-cased text.
    normalized: String,
    ids: Range<u32>,
}

/// Text to ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    folder: PathBuf,
    /// Knows placeholder k as the one token `num_words + k`, however many vectors it has.
    words: tokenizers::Tokenizer,
    num_words: usize,
    /// What follows an added token of several vectors.
    continued: BTreeMap<u32, Vec<u32>>,
    bos: u32,
    eos: u32,
    unk: u32,
    pad: u32,
    vocab_size: usize,
    context_length: usize,
    /// Whether the folder says so, or CLIP's own length was taken.
    states_context_length: bool,
    /// Added tokens that the text encoder has no row for.
    without_row: Vec<String>,
    placeholders: Vec<Placeholder>,
}

impl Tokenizer {
    /// Refuses a prompt with an added token of the folder that the text encoder has no row for.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the token.
    pub fn check_rows(&self, prompt: &str) -> Result<()> {
        let normalized = self.normalize(prompt);
        let mut tokens = self.without_row.iter();
        match tokens.find(|token| normalized.contains(&self.normalize(token))) {
            None => Ok(()),
            Some(token) => Err(Error::Invalid(format!(
                "the prompt {prompt:?} holds the token `{token}`, which is in {} but has no row in \
                 the text encoder; the files belong to different models",
                self.folder.display()
            ))),
        }
    }

    /// How often a placeholder is in a prompt, in upper or lower case, as it is matched.
    pub fn occurrences(&self, prompt: &str, placeholder: &str) -> usize {
        let (prompt, placeholder) = (self.normalize(prompt), self.normalize(placeholder));
        prompt.matches(&placeholder).count()
    }

    /// Reads a tokenizer folder: `tokenizer.json`, or `vocab.json` and `merges.txt`; the special
    /// tokens and the context length come from `tokenizer_config.json`, `special_tokens_map.json`
    /// and `added_tokens.json`, each of which may be absent.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] naming an absent or damaged file, [`Error::Config`] for
    /// a special token that the vocabulary lacks or a context length without room for a word.
    pub fn from_dir(folder: &Path) -> Result<Self> {
        files::read(folder, None)
    }

    /// The same for a text encoder: ids of placeholders begin after its table, and prompts have
    /// its length where the folder states none. Added tokens without a row in the table are left
    /// out with a warning; [`check_rows`](Self::check_rows) refuses prompts that hold them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tokenizer has more tokens than the table rows, states a longer
    /// context than the text encoder has positions, or already has placeholders.
    pub fn fit(mut self, config: &TextEncoderConfig) -> Result<Self> {
        if self.num_words > config.vocab_size {
            self = files::read(&self.folder, Some(config.vocab_size))?;
            if let Some(token) = self.without_row.first() {
                tracing::warn!(
                    "{}: `{token}` and {} further added tokens have no row in the text encoder, \
                     so prompts cannot hold them",
                    self.folder.display(),
                    self.without_row.len() - 1
                );
            }
        }
        let refuse = |what: &str, ours: usize, key: &str, theirs: usize| {
            Err(Error::Invalid(format!(
                "{}: {what} {ours}, but the text encoder's `{key}` is {theirs}; they belong to \
                 different models",
                self.folder.display()
            )))
        };
        if self.num_words > config.vocab_size {
            return refuse(
                "number of tokens is",
                self.num_words,
                "vocab_size",
                config.vocab_size,
            );
        }
        let positions = config.max_position_embeddings;
        if !self.states_context_length && positions >= 3 {
            self.context_length = self.context_length.min(positions);
        }
        if self.context_length > positions {
            let key = "max_position_embeddings";
            return refuse("`model_max_length` is", self.context_length, key, positions);
        }
        if !self.placeholders.is_empty() {
            return Err(Error::Invalid(
                "placeholders must be added after fitting".into(),
            ));
        }
        self.vocab_size = config.vocab_size;
        Ok(self)
    }

    /// Makes `token` stand for `num_vectors` positions; vector i of the first placeholder has id
    /// `vocab_size() + i`, and further placeholders follow.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the token is empty, begins or ends with white space, is a word of
    /// the vocabulary, was added before or holds a special token, or when `num_vectors` is 0 or
    /// more than a prompt has room for.
    pub fn add_placeholder(&mut self, token: &str, num_vectors: usize) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::Invalid(format!(
                "placeholder token `{token}` {reason}"
            )))
        };
        if token.trim().is_empty() {
            return refuse("is empty; choose a word that means nothing yet, as `<my-dog>`".into());
        }
        if token.trim() != token {
            return refuse("begins or ends with white space; remove it".into());
        }
        let room = self.room();
        if num_vectors == 0 || num_vectors > room {
            return refuse(format!(
                "cannot stand for {num_vectors} vectors; a prompt has room for 1 to {room}"
            ));
        }
        let normalized = self.normalize(token);
        if self
            .placeholders
            .iter()
            .any(|other| other.normalized == normalized)
        {
            return refuse("was added before; case makes no difference".into());
        }
        if self.words.token_to_id(token).is_some() || self.split(token).len() == 1 {
            return refuse(format!(
                "is already a word of the vocabulary in {}; choose one that means nothing yet \
                 (--placeholder-token), as `<{token}>`",
                self.folder.display()
            ));
        }
        let mut words = self.words.clone();
        let failed = |error: tokenizers::Error| Error::Invalid(format!("`{token}`: {error}"));
        words
            .add_tokens([AddedToken::from(token, false)])
            .map_err(failed)?;
        let id = (self.num_words + self.placeholders.len()) as u32;
        if words.encode(token, false).map_err(failed)?.get_ids() != [id] {
            return refuse(
                "holds a special token or another placeholder; choose another \
                 (--placeholder-token), as `<my-dog>`"
                    .into(),
            );
        }
        let first = self
            .placeholders
            .last()
            .map_or(self.vocab_size as u32, |last| last.ids.end);
        self.words = words;
        self.placeholders.push(Placeholder {
            token: token.to_string(),
            normalized,
            ids: first..first + num_vectors as u32,
        });
        Ok(())
    }

    /// Begin, words, end, padding. What does not fit is cut off before the end. An added token `x`
    /// of a folder that also has `x_1`, `x_2`, ... stands for all of them, as in diffusers'
    /// `maybe_convert_prompt`.
    pub fn encode(&self, text: &str) -> Encoding {
        let mut ids = vec![self.bos];
        let mut placeholder = None;
        for id in self.split(text) {
            let index = (id as usize).checked_sub(self.num_words);
            match index.and_then(|index| self.placeholders.get(index)) {
                Some(found) => {
                    let start = ids.len();
                    ids.extend(found.ids.clone());
                    placeholder.get_or_insert(start..ids.len());
                }
                None => {
                    ids.push(id);
                    ids.extend(self.continued.get(&id).into_iter().flatten());
                }
            }
        }
        let end = self.room() + 1;
        let truncated = ids.len() > end;
        ids.truncate(end);
        ids.push(self.eos);
        let first_end = ids.iter().position(|id| *id == self.eos);
        let length = first_end.map_or(ids.len(), |at| at + 1);
        ids.resize(self.context_length, self.pad);
        Encoding {
            ids,
            length,
            placeholder: placeholder.filter(|range| range.end <= end),
            truncated,
        }
    }

    /// Whether `text` is made of words or pieces of words of the vocabulary, none of which is a
    /// special token; empty text is not.
    pub fn knows(&self, text: &str) -> bool {
        let ids = self.split(text);
        let special = [self.bos, self.eos, self.unk];
        !ids.is_empty() && ids.iter().all(|id| !special.contains(id))
    }

    /// Positions of a prompt, begin and end included.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The first id of a placeholder: the number of the folder's tokens, or of the rows of the text
    /// encoder's table after [`fit`](Self::fit).
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What an id stands for, as a reader would write it: the end-of-word mark is left out, vector
    /// i > 0 of a placeholder has `_i` appended, and an unknown id is empty.
    pub fn token(&self, id: u32) -> String {
        if let Some(owner) = self.placeholders.iter().find(|p| p.ids.contains(&id)) {
            return match id - owner.ids.start {
                0 => owner.token.clone(),
                vector => format!("{}_{vector}", owner.token),
            };
        }
        if id as usize >= self.num_words {
            return String::new();
        }
        let token = self.words.decode(&[id], false).unwrap_or_default();
        token.strip_suffix(WORD_END).unwrap_or(&token).to_string()
    }

    /// Positions between begin and end.
    fn room(&self) -> usize {
        self.context_length - 2
    }

    fn split(&self, text: &str) -> Vec<u32> {
        match self.words.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // The unknown token is in the vocabulary, so every text has ids.
            Err(error) => panic!("every text can be split into tokens: {error}"),
        }
    }

    fn normalize(&self, token: &str) -> String {
        let mut text = NormalizedString::from(token);
        match self
            .words
            .get_normalizer()
            .map(|normalizer| normalizer.normalize(&mut text))
        {
            None | Some(Ok(())) => text.get().to_string(),
            Some(Err(error)) => panic!("every text can be normalised: {error}"),
        }
    }
}
