//! SigLIP's tokenizers: the SentencePiece vocabulary of SigLIP and the Gemma vocabulary of SigLIP 2,
//! both as a `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{Tokenizer, TruncationParams};

use crate::config::read_object;
use crate::error::{Error, Result};

/// The token with which `SiglipTokenizer` pads where `tokenizer_config.json` names none.
const PAD: &str = "</s>";

/// Text to the ids of a prompt of fixed length.
#[derive(Debug, Clone)]
pub struct SiglipTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    pad: u32,
    pads_left: bool,
    /// Whether text is made plain first, as `SiglipTokenizer` does it.
    canonical: bool,
    lower_case: bool,
}

/// A prompt as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiglipEncoding {
    /// One id per position of the text tower.
    pub ids: Vec<u32>,
    /// Whether words were cut off.
    pub truncated: bool,
}

impl SiglipTokenizer {
    /// Reads `tokenizer.json` and `tokenizer_config.json` for a text tower with this many positions
    /// and rows.
    ///
    /// # Errors
    /// An absent or damaged file; a vocabulary with more tokens than the text tower has rows; a pad
    /// token that is not in the vocabulary.
    pub fn from_dir(folder: &Path, length: usize, rows: usize) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if !path.exists() && folder.join("spiece.model").exists() {
            let reason = "is missing; a `spiece.model` alone is not read, so put the `tokenizer.json` \
                          of the model's repository beside it";
            return Err(Error::format(path, reason));
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Error::format(&path, e))?;
        let vocabulary = tokenizer.get_vocab(true);
        if let Some((token, id)) = vocabulary.iter().max_by_key(|(_, id)| **id)
            && *id as usize >= rows
        {
            return Err(Error::Invalid(format!(
                "{}: the token `{token}` has id {id}, but the text tower's `vocab_size` is {rows}; \
                 the files belong to different models",
                path.display()
            )));
        }
        let cut = TruncationParams {
            max_length: length,
            ..TruncationParams::default()
        };
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(cut))
            .map_err(|error| Error::format(&path, error))?;
        let config_path = folder.join("tokenizer_config.json");
        let config = match config_path.exists() {
            true => read_object(&config_path)?,
            false => Map::new(),
        };
        let token = pad_token(&config);
        let pad = tokenizer.token_to_id(token).ok_or_else(|| Error::Config {
            path: config_path,
            key: "pad_token".into(),
            value: format!("`{token}`"),
            expected: "a token of the vocabulary".into(),
        })?;
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let flag = |key: &str| config.get(key).and_then(Value::as_bool);
        Ok(Self {
            tokenizer,
            length,
            pad,
            pads_left: text("padding_side") == Some("left"),
            canonical: text("tokenizer_class").is_some_and(|c| c.starts_with("SiglipTokenizer")),
            lower_case: flag("do_lower_case").unwrap_or(true),
        })
    }

    /// The ids of a text, padded to the length of the text tower.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming a text that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<SiglipEncoding> {
        let plain = match self.canonical {
            true => canonical(text, self.lower_case),
            false => text.to_string(),
        };
        let encoding = self.tokenizer.encode(plain, true).map_err(|error| {
            Error::Invalid(format!("SigLIP's tokenizer cannot read {text:?}: {error}"))
        })?;
        let mut ids = encoding.get_ids().to_vec();
        let missing = self.length.saturating_sub(ids.len());
        let at = if self.pads_left { 0 } else { ids.len() };
        ids.splice(at..at, std::iter::repeat_n(self.pad, missing));
        Ok(SiglipEncoding {
            ids,
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}

/// The pad token, which files write as text or as an object with its text.
fn pad_token(config: &Map<String, Value>) -> &str {
    match config.get("pad_token") {
        Some(Value::String(text)) => text,
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).unwrap_or(PAD),
        _ => PAD,
    }
}

/// What `SiglipTokenizer.canonicalize_text` makes of a text: without punctuation, white space
/// collapsed, and usually in lower case.
fn canonical(text: &str, lower_case: bool) -> String {
    let text = match lower_case {
        true => text.to_lowercase(),
        false => text.to_string(),
    };
    let text: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_made_plain_as_siglip_was_trained() {
        assert_eq!(canonical("  A dog's hat,\tred! ", true), "a dogs hat red");
        assert_eq!(canonical("A dog.", false), "A dog");
    }
}
