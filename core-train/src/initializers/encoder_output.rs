//! The starts of Cross Initialization (Pang et al., CVPR 2024): what the text encoder makes of words
//! or names, not what its token table holds for them.
//!
//! `v_i = E([BOS, w_1 .. w_n, EOS])_i`, the last hidden state after the final norm at position i. The
//! encoder is causal, so padding does not matter, and every vector has seen those before it.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use core_model::files::{read_to_string, seen_from};
use core_model::params::to_vec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Initializer, Start};
use crate::data::prompts::word_ids;
use crate::error::{Error, Result};

/// `"encoder_output"`: the words are those of the concept's `initializer_token`, or its
/// super-category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderOutput;

impl Initializer for EncoderOutput {
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
        let count = start.num_vectors;
        let mut ids = word_ids(start.tokenizer, start.words);
        if let [id] = ids[..] {
            ids = vec![id; count];
        }
        if ids.len() != count {
            return Err(refuse(format!(
                "`initializer` is \"encoder_output\" of {:?}, which has {} tokens, but {count} \
                 vectors are learned; choose words of as many tokens, or of one",
                start.words,
                ids.len()
            )));
        }
        encode(start, &ids, None)
    }
}

/// `{ encoder_output_of_names = .. }`: the names, or the file that holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text file with one name per line, or a list of names"
)]
pub enum Names {
    /// The names themselves.
    List(Vec<String>),
    /// A text file with one name per line.
    File(PathBuf),
}

impl Names {
    /// The names, read from their file where there is one, relative to `base`.
    ///
    /// # Errors
    /// An unreadable file, no names, an empty one.
    pub(super) fn read(self, base: &Path) -> Result<Self> {
        let key = |path: &Path, reason: String| Error::Config {
            path: path.to_path_buf(),
            key: "initializer.encoder_output_of_names".into(),
            reason,
        };
        let (names, origin) = match self {
            Self::List(names) => (names, base.to_path_buf()),
            Self::File(file) => {
                let file = seen_from(base, &file);
                let text = read_to_string(&file)?;
                (
                    text.lines().map(|line| line.trim().to_string()).collect(),
                    file,
                )
            }
        };
        if names.is_empty() {
            return Err(key(&origin, "holds no name; write one per line".into()));
        }
        if let Some(at) = names.iter().position(|name| name.trim().is_empty()) {
            let reason = format!("has an empty line as its line {}; remove it", at + 1);
            return Err(key(&origin, reason));
        }
        Ok(Self::List(names))
    }
}

impl Initializer for Names {
    fn vectors(&self, start: &Start<'_>) -> Result<Vec<Vec<f32>>> {
        let Self::List(names) = self else {
            panic!("the file of names is read when the configuration is completed");
        };
        let count = start.num_vectors;
        let names: Vec<Vec<u32>> = names
            .iter()
            .map(|name| word_ids(start.tokenizer, name))
            .collect();
        let longest = names.iter().map(Vec::len).max().unwrap_or(0);
        if longest < count {
            return Err(refuse(format!(
                "`initializer` takes the mean of names that have at most {longest} token(s), but \
                 {count} vectors are learned; name longer ones or learn fewer"
            )));
        }
        let column = |i: usize| names.iter().filter_map(move |ids| ids.get(i)).copied();
        let means = (0..count).map(|i| start.mean_row(&column(i).collect::<Vec<_>>()));
        let first = start.tokenizer.vocab_size() as u32;
        let ids: Vec<u32> = (0..count as u32).map(|i| first + i).collect();
        encode(start, &ids, Some(means.collect()))
    }
}

/// The encoder's output for these tokens between start and end of text. `rows` are the input
/// embeddings of ids that follow those of the vocabulary.
fn encode(start: &Start<'_>, ids: &[u32], rows: Option<Vec<Vec<f32>>>) -> Result<Vec<Vec<f32>>> {
    let mut prompt = start.tokenizer.encode("").ids;
    let room = prompt.len() - 2;
    if ids.len() > room {
        return Err(refuse(format!(
            "{} vectors are learned, but a prompt has room for {room}",
            ids.len()
        )));
    }
    // Begin and end of text are there; the words go between them.
    prompt.splice(1..1, ids.iter().copied());
    prompt.truncate(room + 2);
    let encoder = start.model.text_encoder();
    let rows = rows.map(|rows| {
        let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
        let device = encoder.token_table().device();
        Tensor::from_data(TensorData::new(rows.concat(), shape), &device)
    });
    let hidden = encoder.forward(&[prompt], rows).inner();
    let [_, _, width] = hidden.dims();
    let values = to_vec(hidden.narrow(1, 1, ids.len()));
    Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
}

fn refuse(reason: String) -> Error {
    core_model::Error::Invalid(reason).into()
}
