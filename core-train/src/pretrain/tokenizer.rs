//! The tokenizer of the mini world: CLIP's byte-level pair encoding, learned from captions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{Model, Trainer};

use super::objective::Quality;
use super::questions::Questions;
use super::scenes::{Scenes, Split};
use super::vocabulary::check_words;
use crate::world::Category;

/// Captions that the pairs are learned from.
const CAPTIONS: usize = 20_000;

/// Tokens of every vocabulary: two for each byte, and the two special ones.
const BASE_TOKENS: usize = 514;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";

/// `[tokenizer]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTask {
    /// The folders to write the tokenizer to; each gets the same files.
    pub outputs: Vec<PathBuf>,
    /// Largest number of tokens that are learned: 512 for single bytes, two special tokens, the rest
    /// pairs.
    pub vocab_size: usize,
    /// Words that become one token each besides the learned ones, with ids behind all others. Sentences
    /// of learned words keep their ids. Absent: none.
    #[serde(default)]
    pub extend: Vec<String>,
    /// Number of positions of a prompt, start and end included.
    pub context_length: usize,
}

fn corpus(seed: u64) -> Vec<String> {
    let scenes = Scenes::new(seed, Split::Training, "tokenizer caption");
    let mut corpus = scenes.captions(CAPTIONS);
    corpus.extend(Questions::new(Category::THINGS).captions().iter().cloned());
    corpus
}

/// Learns the pairs and writes `vocab.json`, `merges.txt` and the two configuration files. A vocabulary too small
/// for a word of the captions is refused before anything is written.
pub(super) fn train(task: &TokenizerTask, seed: u64) -> Result<()> {
    ensure!(
        task.vocab_size > BASE_TOKENS,
        "tokenizer.vocab_size is {}; expected more than {BASE_TOKENS}, which are single bytes and the two special \
         tokens",
        task.vocab_size
    );
    let learned = learn_merges(&corpus(seed), task.vocab_size)?;
    let further = further_merges(&learned, &task.extend)?;
    let joined = |(left, right): &Merge| format!("{left}{right}");
    let mut tokens: Vec<String> = byte_alphabet().into_iter().map(String::from).collect();
    tokens.extend(
        byte_alphabet()
            .into_iter()
            .map(|byte| format!("{byte}{WORD_END}")),
    );
    tokens.extend(learned.iter().map(joined));
    tokens.extend([START.to_string(), END.to_string()]);
    tokens.extend(further.iter().map(joined));

    let vocab: serde_json::Map<_, _> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let vocab = serde_json::to_string(&vocab)?;
    let mut pairs = String::from("#version: 0.2\n");
    for (left, right) in learned.iter().chain(&further) {
        pairs.push_str(&format!("{left} {right}\n"));
    }
    let config = serde_json::to_string_pretty(&json!({
        "tokenizer_class": "CLIPTokenizer",
        "add_prefix_space": false,
        "do_lower_case": true,
        "errors": "replace",
        "model_max_length": task.context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }))?;
    let special = serde_json::to_string_pretty(&json!({
        "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END,
    }))?;
    let files = [
        ("vocab.json", &vocab),
        ("merges.txt", &pairs),
        ("tokenizer_config.json", &config),
        ("special_tokens_map.json", &special),
    ];
    let write = |folder: &Path| -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for (name, text) in files {
            core_model::files::write_atomically(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    };
    let scratch = tempfile::tempdir()?;
    write(scratch.path())?;
    let tokenizer = core_model::tokenizer::Tokenizer::from_dir(scratch.path())?;
    check_words(&tokenizer, Category::THINGS).with_context(|| {
        let size = task.vocab_size;
        format!("tokenizer.vocab_size = {size} is too small; nothing was written")
    })?;
    task.outputs.iter().try_for_each(|folder| write(folder))
}

/// The number of tokens, and the mean number of tokens per word.
pub(super) fn evaluate(task: &TokenizerTask, seed: u64) -> Result<Quality> {
    let folder = task
        .outputs
        .first()
        .context("tokenizer.outputs names no folder")?;
    let tokenizer = core_model::tokenizer::Tokenizer::from_dir(folder)?;
    let captions = corpus(seed);
    let words: usize = captions.iter().map(|caption| words(caption).len()).sum();
    // Start and end are not words.
    let tokens: usize = captions
        .iter()
        .map(|caption| tokenizer.encode(caption).length - 2)
        .sum();
    Ok(vec![
        ("vocabulary".into(), tokenizer.vocab_size() as f64),
        ("tokens_per_word".into(), tokens as f64 / words as f64),
    ])
}

/// Two tokens that become one.
type Merge = (String, String);

/// The pairs that make each of these words one token, applied after the learned ones.
///
/// They change no word that is one token already. A word is joined from its end, so that of all other
/// words only few that end alike are cut differently.
fn further_merges(learned: &[Merge], words: &[String]) -> Result<Vec<Merge>> {
    let mut further: Vec<Merge> = Vec::new();
    for word in words {
        ensure!(
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()),
            "tokenizer.extend: \"{word}\" is not a word of small letters from a to z"
        );
        let mut pieces = pieces(word, learned.iter().chain(&further));
        ensure!(
            pieces.len() > 1,
            "tokenizer.extend: \"{word}\" is one token already; remove it"
        );
        while let (Some(right), Some(left)) = (pieces.pop(), pieces.pop()) {
            pieces.push(format!("{left}{right}"));
            further.push((left, right));
            if pieces.len() == 1 {
                break;
            }
        }
    }
    Ok(further)
}

/// The tokens of a word.
fn pieces<'a>(word: &str, merges: impl Iterator<Item = &'a Merge>) -> Vec<String> {
    let mut pieces: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = pieces.last_mut() {
        last.push_str(WORD_END);
    }
    for (left, right) in merges {
        let mut at = 0;
        while at + 1 < pieces.len() {
            if pieces[at] == *left && pieces[at + 1] == *right {
                let right = pieces.remove(at + 1);
                pieces[at].push_str(&right);
            }
            at += 1;
        }
    }
    pieces
}

fn learn_merges(corpus: &[String], vocab_size: usize) -> Result<Vec<Merge>> {
    // The trainer knows only bytes that occur; the full alphabet of 512 and the two special tokens
    // are added afterwards, so it may use the remaining numbers.
    let alphabet = byte_alphabet().into_iter().collect();
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(2)
        .initial_alphabet(alphabet)
        .end_of_word_suffix(WORD_END.to_string())
        .build();
    trainer
        .feed(corpus.iter(), |caption| Ok(words(caption)))
        .map_err(|error| anyhow!("reading captions: {error}"))?;
    let mut model = BPE::default();
    trainer
        .train(&mut model)
        .map_err(|error| anyhow!("learning pairs: {error}"))?;
    let scratch = tempfile::tempdir()?;
    model
        .save(scratch.path(), None)
        .map_err(|error| anyhow!("storing pairs: {error}"))?;
    let text = std::fs::read_to_string(scratch.path().join("merges.txt"))?;
    let pairs = text
        .lines()
        .filter(|line| !line.starts_with("#version"))
        .filter_map(|line| line.split_once(' '))
        .map(|(left, right)| (left.to_string(), right.to_string()));
    Ok(pairs.take(vocab_size - BASE_TOKENS).collect())
}

/// Lower-case words, digits and runs of signs, as CLIP separates them; captions are ASCII.
fn words(caption: &str) -> Vec<String> {
    let kind = |c: char| match c {
        'a'..='z' => 0,
        '0'..='9' => 1,
        _ => 2,
    };
    let mut words: Vec<String> = Vec::new();
    for piece in caption.to_lowercase().split_whitespace() {
        let mut last = None;
        for c in piece.chars() {
            match words.last_mut() {
                Some(word) if last == Some(kind(c)) && kind(c) != 1 => word.push(c),
                _ => words.push(c.to_string()),
            }
            last = Some(kind(c));
        }
    }
    words
}

/// The printable stand-ins of all 256 bytes, in the order of CLIP's vocabulary: printable bytes
/// first, then the others shifted past 255.
fn byte_alphabet() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let first = (0..256).filter(printable);
    let shifted = (0..256).filter(|byte| !printable(byte)).count() as u32;
    first
        .chain(256..256 + shifted)
        .filter_map(char::from_u32)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::tokenizer::Tokenizer;

    use super::super::scenes::PeopleShare;
    use super::*;

    const NEW_WORDS: [&str; 3] = ["person", "smiling", "frowning"];

    #[test]
    fn words_are_cut_as_clip_cuts_them() {
        assert_eq!(
            words("A dog, 12 hats!"),
            ["a", "dog", ",", "1", "2", "hats", "!"]
        );
    }

    #[test]
    fn the_alphabet_has_one_sign_for_every_byte() {
        let mut alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet[0], '!');
        alphabet.dedup();
        assert_eq!(alphabet.len(), 256);
    }

    #[test]
    fn a_vocabulary_too_small_for_a_word_is_refused_and_writes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let train = |vocab_size| {
            let task = TokenizerTask {
                outputs: vec![home.path().join("tokenizer")],
                vocab_size,
                context_length: 24,
                extend: Vec::new(),
            };
            format!("{:#}", train(&task, 0).unwrap_err())
        };
        let message = train(514);
        assert!(message.contains("vocab_size is 514"), "{message}");
        let message = train(560);
        for part in ["vocab_size = 560", "has no entry for `"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!home.path().join("tokenizer").exists());
    }

    fn merge(left: &str, right: &str) -> Merge {
        (left.into(), right.into())
    }

    #[test]
    fn a_further_word_is_joined_from_its_end() {
        let learned = [merge("o", "n</w>"), merge("e", "r")];
        assert_eq!(pieces("person", learned.iter()), ["p", "er", "s", "on</w>"]);
        assert_eq!(
            further_merges(&learned, &["person".into()]).unwrap(),
            [
                merge("s", "on</w>"),
                merge("er", "son</w>"),
                merge("p", "erson</w>")
            ]
        );
    }

    #[test]
    fn a_word_that_cannot_be_added_is_named() {
        let message = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            let error = further_merges(&[merge("o", "n</w>")], &words).unwrap_err();
            error.to_string()
        };
        for wrong in ["", "Person", "two words", "caf\u{e9}"] {
            assert!(message(&[wrong]).contains(&format!("\"{wrong}\"")));
        }
        assert!(message(&["on"]).contains("one token already"));
        assert!(message(&["person", "person"]).contains("one token already"));
    }

    fn shipped(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    /// The prompts that the project ships for the mini world.
    fn shipped_prompts() -> Vec<String> {
        let mut prompts = Vec::new();
        for entry in std::fs::read_dir(shipped("experiments/prompts/mini")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            // Group and kind of an evaluation prompt stand before the last comma.
            let prompt = |line: &str| line.rsplit(',').next().unwrap_or(line).replace("{}", "dog");
            prompts.extend(lines.map(prompt).filter(|text| text != "prompt"));
        }
        prompts
    }

    #[test]
    fn the_extended_tokenizer_has_three_more_words_and_every_old_sentence_keeps_its_ids() {
        let home = tempfile::tempdir().unwrap();
        let trained = |name: &str, extend: Vec<String>| {
            let folder = home.path().join(name);
            let task = TokenizerTask {
                outputs: vec![folder.clone()],
                vocab_size: 662,
                context_length: 24,
                extend,
            };
            train(&task, 0).unwrap();
            (Tokenizer::from_dir(&folder).unwrap(), folder)
        };
        let (old, _) = trained("old", Vec::new());
        let (new, folder) = trained("new", NEW_WORDS.map(String::from).to_vec());
        assert_eq!((old.vocab_size(), new.vocab_size()), (662, 673));
        for model in ["mini/tokenizer", "mini-clip", "mini-clipseg"] {
            for file in ["vocab.json", "merges.txt"] {
                let shipped = std::fs::read(shipped("models").join(model).join(file)).unwrap();
                let ours = std::fs::read(folder.join(file)).unwrap();
                assert!(shipped == ours, "{model}: {file}");
            }
        }

        // Start 660, end 661; the pieces of a word come before the word.
        for (word, id) in NEW_WORDS.iter().zip([665, 669, 672]) {
            let encoding = new.encode(word);
            assert_eq!(encoding.ids[..encoding.length], [660, id, 661], "{word}");
        }
        let says_a_new_word = |text: &String| NEW_WORDS.iter().any(|word| text.contains(word));
        let mut sentences = corpus(0);
        sentences.extend(shipped_prompts());
        assert!(sentences.len() > CAPTIONS + 200);
        for sentence in sentences.iter().filter(|text| !says_a_new_word(text)) {
            assert_eq!(old.encode(sentence), new.encode(sentence), "{sentence}");
        }
        // Captions of people say nothing that is not one token for each word.
        let scenes = Scenes::new(0, Split::Training, "people's caption")
            .with_people(PeopleShare::try_from(1.0).unwrap());
        for caption in scenes.captions(2000) {
            assert_eq!(new.encode(&caption).length - 2, words(&caption).len());
        }
    }
}
