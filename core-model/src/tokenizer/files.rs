//! Reading a tokenizer folder as transformers' `CLIPTokenizer.from_pretrained` does.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::{Tokenizer, WORD_END};
use crate::config::{read_config, read_object};
use crate::error::{Error, Result};
use crate::files::read_to_string;

/// How CLIP separates words before pairing their bytes.
const WORDS: &str = concat!(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|",
    r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
);

/// Positions of a prompt where `model_max_length` is absent or means "unknown": CLIP's.
const CONTEXT_LENGTH: usize = 77;

/// The names and defaults of the special tokens, in the order in which they are registered: a
/// later one decides how the same token is matched.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

const CONFIG: &str = "tokenizer_config.json";

/// Reads a folder; added tokens from `rows` on, for which a text encoder has no row, are left out
/// and listed.
pub(super) fn read(folder: &Path, rows: Option<usize>) -> Result<Tokenizer> {
    let config = optional_object(folder, CONFIG)?;
    let vocabulary = Vocabulary::read(folder)?;
    let mut added = added_tokens(folder, &config, &vocabulary)?;
    let without_row = rows.and_then(|rows| u32::try_from(rows).ok());
    let without_row = without_row.map_or_else(BTreeMap::new, |rows| added.split_off(&rows));
    let special = special_tokens(folder, &config, &added)?;
    for (token, (key, _)) in special.iter().zip(SPECIAL) {
        // What the pairing falls back to must be its own, the others may also be added.
        let known = vocabulary.ids.contains_key(&token.content)
            || key != "unk_token" && added.values().any(|other| other.content == token.content);
        if !known {
            return Err(Error::Config {
                path: folder.join(CONFIG),
                key: key.into(),
                value: format!("`{}`", token.content),
                expected: "a token of the vocabulary".into(),
            });
        }
    }
    let context_length = context_length(folder, &config)?;
    let mut words = pipeline(folder, vocabulary, &special[2].content)?;
    let continued = continued(&added);
    for (id, token) in added {
        words
            .add_tokens([token.clone()])
            .map_err(|error| Error::format(folder, error))?;
        if words.token_to_id(&token.content) != Some(id) {
            return Err(Error::format(
                folder,
                format!(
                    "added token `{}` has id {id}, but ids must go on where the vocabulary ends",
                    token.content
                ),
            ));
        }
    }
    words
        .add_special_tokens(special.clone())
        .map_err(|error| Error::format(folder, error))?;
    let id = |token: &AddedToken| words.token_to_id(&token.content).unwrap_or_default();
    Ok(Tokenizer {
        bos: id(&special[0]),
        eos: id(&special[1]),
        unk: id(&special[2]),
        pad: id(&special[3]),
        num_words: words.get_vocab_size(true),
        vocab_size: words.get_vocab_size(true),
        context_length: context_length.unwrap_or(CONTEXT_LENGTH),
        states_context_length: context_length.is_some(),
        folder: folder.to_path_buf(),
        words,
        continued,
        without_row: without_row
            .into_values()
            .map(|token| token.content)
            .collect(),
        placeholders: Vec::new(),
    })
}

/// Which added tokens stand for several: those of name `x` for which there are `x_1`, `x_2`, ...,
/// as diffusers adds concepts of several vectors.
fn continued(added: &BTreeMap<u32, AddedToken>) -> BTreeMap<u32, Vec<u32>> {
    let ids: HashMap<&str, u32> = added
        .iter()
        .map(|(id, token)| (token.content.as_str(), *id))
        .collect();
    let mut continued = BTreeMap::new();
    for (id, token) in added {
        let vector = |index: usize| ids.get(format!("{}_{index}", token.content).as_str());
        let more: Vec<u32> = (1..).map_while(|index| vector(index).copied()).collect();
        if !more.is_empty() {
            continued.insert(*id, more);
        }
    }
    continued
}

/// Tokens with their ids, and the pairs to merge in order.
struct Vocabulary {
    ids: HashMap<String, u32>,
    merges: Merges,
    /// Tokens beside the vocabulary that a `tokenizer.json` lists.
    added: Vec<(u32, AddedToken)>,
}

#[derive(Deserialize)]
struct TokenizerFile {
    model: ModelSection,
    #[serde(default)]
    added_tokens: Vec<AddedSection>,
}

#[derive(Deserialize)]
struct ModelSection {
    #[serde(default = "byte_pairs", rename = "type")]
    kind: String,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

fn byte_pairs() -> String {
    "BPE".into()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

#[derive(Deserialize)]
struct AddedSection {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

impl Vocabulary {
    fn read(folder: &Path) -> Result<Self> {
        let single = folder.join("tokenizer.json");
        let (path, vocabulary) = if single.exists() {
            let vocabulary = Self::from_single(&single)?;
            (single, vocabulary)
        } else {
            let path = folder.join("vocab.json");
            let ids = read_config(&path)?;
            let merges = read_merges(&folder.join("merges.txt"))?;
            (
                path,
                Self {
                    ids,
                    merges,
                    added: Vec::new(),
                },
            )
        };
        let count = vocabulary.ids.len();
        let mut seen = vec![false; count];
        for (token, id) in &vocabulary.ids {
            match seen.get_mut(*id as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    let reason = format!(
                        "token `{token}` has id {id}, but {count} tokens must have the ids 0 to {} \
                         once each",
                        count - 1
                    );
                    return Err(Error::format(&path, reason));
                }
            }
        }
        // The builder of the tokenizer panics at a pair that is longer than every token.
        for (left, right) in &vocabulary.merges {
            let joined = format!("{left}{right}");
            if !vocabulary.ids.contains_key(&joined) {
                let reason = format!("merge `{left} {right}` makes `{joined}`, which is no token");
                return Err(Error::format(&path, reason));
            }
        }
        Ok(vocabulary)
    }

    fn from_single(path: &Path) -> Result<Self> {
        let file: TokenizerFile = read_config(path)?;
        if file.model.kind != "BPE" {
            return Err(Error::Config {
                path: path.to_path_buf(),
                key: "model.type".into(),
                value: file.model.kind,
                expected: "BPE, as CLIP's tokenizer has".into(),
            });
        }
        let merges = file.model.merges.into_iter().map(|merge| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Text(line) => split_merge(&line)
                .ok_or_else(|| Error::format(path, format!("merge `{line}` is not a pair"))),
        });
        Ok(Self {
            ids: file.model.vocab,
            merges: merges.collect::<Result<_>>()?,
            added: file
                .added_tokens
                .into_iter()
                .map(|added| (added.id, added.token))
                .collect(),
        })
    }
}

fn split_merge(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    (!right.contains(' ')).then(|| (left.to_string(), right.to_string()))
}

fn read_merges(path: &Path) -> Result<Merges> {
    let text = read_to_string(path)?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version") && !line.is_empty())
        .map(|(at, line)| {
            split_merge(line)
                .ok_or_else(|| Error::format(path, format!("line {} is not a pair", at + 1)))
        })
        .collect()
}

fn optional_object(folder: &Path, name: &str) -> Result<Map<String, Value>> {
    let path = folder.join(name);
    if path.exists() {
        read_object(&path)
    } else {
        Ok(Map::new())
    }
}

/// A token written as text, or as an object that says how it is matched.
fn parse_token(path: &Path, key: &str, value: &Value) -> Result<AddedToken> {
    let wrong = || Error::Config {
        path: path.to_path_buf(),
        key: key.into(),
        value: value.to_string(),
        expected: "a token as text or as an object with `content`".into(),
    };
    if let Some(text) = value.as_str() {
        return Ok(AddedToken::from(text, true));
    }
    let text = value
        .get("content")
        .and_then(Value::as_str)
        .ok_or_else(wrong)?;
    let flag = |name: &str, default: bool| match value.get(name) {
        None => Ok(default),
        Some(flag) => flag.as_bool().ok_or_else(wrong),
    };
    let special = flag("special", false)?;
    Ok(AddedToken::from(text, special)
        .normalized(flag("normalized", !special)?)
        .single_word(flag("single_word", false)?)
        .lstrip(flag("lstrip", false)?)
        .rstrip(flag("rstrip", false)?))
}

/// Whether the configuration lists all added tokens itself, as transformers since 4.34 writes it.
fn lists_added_tokens(config: &Map<String, Value>) -> bool {
    config.contains_key("added_tokens_decoder")
}

/// Tokens that are matched before words are split, by id.
fn added_tokens(
    folder: &Path,
    config: &Map<String, Value>,
    vocabulary: &Vocabulary,
) -> Result<BTreeMap<u32, AddedToken>> {
    let path = folder.join(CONFIG);
    if let Some(listed) = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
    {
        return listed
            .iter()
            .map(|(id, token)| {
                let key = format!("added_tokens_decoder.{id}");
                let number = id.parse().map_err(|_| {
                    Error::format(&path, format!("`{key}`: `{id}` is not a token id"))
                })?;
                Ok((number, parse_token(&path, &key, token)?))
            })
            .collect();
    }
    let mut added = BTreeMap::new();
    for (token, id) in optional_object(folder, "added_tokens.json")? {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| {
                Error::format(
                    folder.join("added_tokens.json"),
                    format!("`{token}` has no id"),
                )
            })?;
        let special = SPECIAL.iter().any(|(_, default)| *default == token);
        added.insert(id, AddedToken::from(token, special));
    }
    added.extend(vocabulary.added.iter().cloned());
    Ok(added)
}

/// Begin, end, unknown and padding token.
///
/// `special_tokens_map.json` wins over the configuration unless that one lists all added tokens:
/// so the padding of Stable Diffusion 2, `!`, is found.
fn special_tokens(
    folder: &Path,
    config: &Map<String, Value>,
    added: &BTreeMap<u32, AddedToken>,
) -> Result<Vec<AddedToken>> {
    let map_name = "special_tokens_map.json";
    let map = if lists_added_tokens(config) {
        Map::new()
    } else {
        optional_object(folder, map_name)?
    };
    SPECIAL
        .iter()
        .map(|(key, default)| {
            let token = match (map.get(*key), config.get(*key)) {
                (Some(value), _) => parse_token(&folder.join(map_name), key, value)?,
                (None, Some(value)) if !value.is_null() => {
                    parse_token(&folder.join(CONFIG), key, value)?
                }
                _ => AddedToken::from(*default, true),
            };
            let known = added.values().find(|other| other.content == token.content);
            Ok(known.cloned().unwrap_or(token).special(true))
        })
        .collect()
}

/// `model_max_length`, where it is stated.
fn context_length(folder: &Path, config: &Map<String, Value>) -> Result<Option<usize>> {
    let length = match config.get("model_max_length") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_f64().ok_or(value),
    };
    match length {
        // transformers writes 1e30 for "unknown".
        Ok(length) if length > 1e6 => Ok(None),
        Ok(length) if length >= 3.0 => Ok(Some(length as usize)),
        other => Err(Error::Config {
            path: folder.join(CONFIG),
            key: "model_max_length".into(),
            value: other.map_or_else(ToString::to_string, |length| length.to_string()),
            expected: "a number from 3: begin, a word, end".into(),
        }),
    }
}

/// The steps of CLIP's tokenizer around the vocabulary.
fn pipeline(folder: &Path, vocabulary: Vocabulary, unknown: &str) -> Result<tokenizers::Tokenizer> {
    let fail = |error: tokenizers::Error| Error::format(folder, error);
    let model = BPE::builder()
        .vocab_and_merges(
            vocabulary.ids.into_iter().collect::<Vocab>(),
            vocabulary.merges,
        )
        .unk_token(unknown.to_string())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.to_string())
        .build()
        .map_err(fail)?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(fail)?;
    let pattern = SplitPattern::Regex(WORDS.into());
    let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(fail)?;
    let mut words = tokenizers::Tokenizer::new(model);
    let normalizers = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    words.with_normalizer(Some(normalizers)).map_err(fail)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    words.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), bytes.into()])));
    words.with_decoder(Some(ByteLevel::default()));
    Ok(words)
}
