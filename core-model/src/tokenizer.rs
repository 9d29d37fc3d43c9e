//! CLIP's tokenizer, with placeholders for concepts that have no word.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::config::read_object;
use crate::error::{Error, Result};

/// How CLIP separates words before pairing their bytes.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// What marks the last byte of a word.
const WORD_END: &str = "</w>";

/// Positions of a prompt where the configuration does not say.
const DEFAULT_CONTEXT_LENGTH: usize = 77;

/// A prompt as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// One id a position, padded to the context length.
    pub ids: Vec<u32>,
    /// Positions from the start to the first end of text, both included.
    pub length: usize,
    /// The positions of the first placeholder.
    pub placeholder: Option<Range<usize>>,
    /// Whether words were cut off.
    pub truncated: bool,
}

#[derive(Debug, Clone)]
struct Placeholder {
    token: String,
    first_id: u32,
    num_vectors: usize,
}

/// Text to ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    folder: PathBuf,
    words: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
    vocab_size: usize,
    context_length: usize,
    placeholders: Vec<Placeholder>,
}

impl Tokenizer {
    /// Reads a tokenizer folder: `vocab.json` and `merges.txt`, or `tokenizer.json`; the special
    /// tokens come from `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// # Errors
    /// Absent or damaged files; a special token that the vocabulary does not have.
    pub fn from_dir(folder: &Path) -> Result<Self> {
        let settings = Settings::read(folder)?;
        let mut words = if folder.join("vocab.json").exists() {
            from_pairs(folder, &settings)?
        } else {
            let path = folder.join("tokenizer.json");
            tokenizers::Tokenizer::from_file(&path).map_err(|error| Error::format(&path, error))?
        };
        let special = [
            &settings.start,
            &settings.end,
            &settings.unknown,
            &settings.pad,
        ];
        let special = special.map(|token| AddedToken::from(token.clone(), true));
        words
            .add_special_tokens(special)
            .map_err(|error| Error::format(folder, error))?;
        let id = |token: &str| {
            words.token_to_id(token).ok_or_else(|| {
                Error::format(
                    folder,
                    format!("special token `{token}` is not in the vocabulary"),
                )
            })
        };
        Ok(Self {
            start: id(&settings.start)?,
            end: id(&settings.end)?,
            pad: id(&settings.pad)?,
            vocab_size: words.get_vocab_size(true),
            context_length: settings.context_length,
            folder: folder.to_path_buf(),
            words,
            placeholders: Vec::new(),
        })
    }

    /// Makes `token` stand for `num_vectors` positions; their ids follow the vocabulary.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the token is empty, has white space, is a word of the vocabulary or
    /// was added before, or when it would stand for no position.
    pub fn add_placeholder(&mut self, token: &str, num_vectors: usize) -> Result<()> {
        let invalid =
            |reason: String| Err(Error::Invalid(format!("placeholder `{token}` {reason}")));
        if token.is_empty() || token.chars().any(char::is_whitespace) {
            return invalid("must be one word without white space, as `<my-dog>`".into());
        }
        if num_vectors == 0 {
            return invalid("must stand for at least one vector".into());
        }
        if self.placeholders.iter().any(|other| other.token == token) {
            return invalid("was added before".into());
        }
        let lower = token.to_lowercase();
        let is_word = [
            token.to_string(),
            lower.clone(),
            format!("{lower}{WORD_END}"),
        ]
        .iter()
        .any(|word| self.words.token_to_id(word).is_some());
        if is_word {
            return invalid(format!(
                "is already a word of the vocabulary in {}; choose another, as `<{token}>`",
                self.folder.display()
            ));
        }
        let taken: usize = self
            .placeholders
            .iter()
            .map(|other| other.num_vectors)
            .sum();
        self.placeholders.push(Placeholder {
            token: token.to_string(),
            first_id: (self.vocab_size + taken) as u32,
            num_vectors,
        });
        // A longer placeholder is looked for before one that it begins with.
        self.placeholders
            .sort_by_key(|placeholder| std::cmp::Reverse(placeholder.token.len()));
        Ok(())
    }

    /// Start, words, end, padding; placeholders are split off before anything else.
    pub fn encode(&self, text: &str) -> Encoding {
        let mut ids = vec![self.start];
        let mut placeholder = None;
        let mut rest = text;
        while !rest.is_empty() {
            let found = self
                .placeholders
                .iter()
                .filter_map(|placeholder| Some((rest.find(&placeholder.token)?, placeholder)))
                .min_by_key(|(at, placeholder)| (*at, std::cmp::Reverse(placeholder.token.len())));
            let Some((at, found)) = found else {
                self.push_words(rest, &mut ids);
                break;
            };
            self.push_words(&rest[..at], &mut ids);
            placeholder.get_or_insert(ids.len()..ids.len() + found.num_vectors);
            ids.extend((0..found.num_vectors).map(|i| found.first_id + i as u32));
            rest = &rest[at + found.token.len()..];
        }
        let room = self.context_length - 1;
        let truncated = ids.len() > room;
        ids.truncate(room);
        ids.push(self.end);
        let length = ids
            .iter()
            .position(|id| *id == self.end)
            .map_or(ids.len(), |at| at + 1);
        ids.resize(self.context_length, self.pad);
        Encoding {
            placeholder: placeholder.filter(|range| range.end <= room),
            ids,
            length,
            truncated,
        }
    }

    fn push_words(&self, text: &str, ids: &mut Vec<u32>) {
        // The byte alphabet covers every text, so encoding cannot fail.
        if let Ok(encoding) = self.words.encode(text, false) {
            ids.extend(encoding.get_ids());
        }
    }

    /// Positions of a prompt.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Tokens of the vocabulary, without placeholders.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What an id stands for, as a reader would write it.
    pub fn token(&self, id: u32) -> String {
        let owner = self
            .placeholders
            .iter()
            .find(|p| (p.first_id..p.first_id + p.num_vectors as u32).contains(&id));
        match owner {
            Some(placeholder) => placeholder.token.clone(),
            None => {
                let token = self.words.id_to_token(id).unwrap_or_default();
                token.strip_suffix(WORD_END).unwrap_or(&token).to_string()
            }
        }
    }
}

fn from_pairs(folder: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let fail = |error: tokenizers::Error| Error::format(folder, error);
    let path = |name: &str| folder.join(name).display().to_string();
    let model = BPE::from_file(&path("vocab.json"), &path("merges.txt"))
        .unk_token(settings.unknown.clone())
        .end_of_word_suffix(WORD_END.to_string())
        .build()
        .map_err(fail)?;
    let pattern = SplitPattern::Regex(WORDS.to_string());
    let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(fail)?;
    let spaces = Replace::new(
        tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()),
        " ",
    )
    .map_err(fail)?;
    let mut words = tokenizers::Tokenizer::new(model);
    let normalizers = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    words.with_normalizer(Some(normalizers)).map_err(fail)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    words.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), bytes.into()])));
    Ok(words)
}

/// The special tokens and the context length of a folder.
struct Settings {
    start: String,
    end: String,
    unknown: String,
    pad: String,
    context_length: usize,
}

impl Settings {
    fn read(folder: &Path) -> Result<Self> {
        let optional = |name: &str| -> Result<Map<String, Value>> {
            let path = folder.join(name);
            if path.exists() {
                read_object(&path)
            } else {
                Ok(Map::new())
            }
        };
        let config = optional("tokenizer_config.json")?;
        let special = optional("special_tokens_map.json")?;
        // A token is written as text or as an object with `content`.
        let text = |value: &Value| -> Option<String> {
            value
                .as_str()
                .or_else(|| value.get("content")?.as_str())
                .map(String::from)
        };
        let token = |key: &str, default: &str| {
            [&config, &special]
                .iter()
                .find_map(|map| map.get(key).and_then(text))
                .unwrap_or_else(|| default.to_string())
        };
        let end = token("eos_token", "<|endoftext|>");
        let length = config.get("model_max_length").and_then(Value::as_f64);
        let context_length = match length {
            // transformers writes 1e30 for "not known".
            Some(length) if length < 1e6 => length as usize,
            _ => DEFAULT_CONTEXT_LENGTH,
        };
        if context_length < 3 {
            return Err(Error::Config {
                path: folder.join("tokenizer_config.json"),
                key: "model_max_length".into(),
                value: context_length.to_string(),
                expected: "3 or more: start, a word, end".into(),
            });
        }
        Ok(Self {
            start: token("bos_token", "<|startoftext|>"),
            unknown: token("unk_token", &end),
            pad: token("pad_token", &end),
            end,
            context_length,
        })
    }
}
