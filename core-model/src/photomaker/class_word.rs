//! The class word of a prompt, once for every photo of a person.

use crate::error::{Error, Result};
use crate::tokenizer::{Encoding, Tokenizer};

/// The class word for which photos stand.
#[derive(Debug, Clone)]
pub struct ClassWord {
    word: String,
    ids: Vec<u32>,
    photos: usize,
}

/// A prompt with copies of its class word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The ids, as many as before.
    pub ids: Vec<u32>,
    /// The positions of the copies; none in a prompt without the class word.
    pub places: Vec<usize>,
}

impl ClassWord {
    /// A word, possibly of several tokens, for which so many photos stand.
    pub fn new(word: &str, photos: usize, tokenizer: &Tokenizer) -> Self {
        let encoding = tokenizer.encode(word);
        Self {
            word: word.to_string(),
            ids: encoding.ids[1..encoding.length - 1].to_vec(),
            photos,
        }
    }

    /// A prompt with one copy of the last token of the word for every photo; as it is without the word.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the word is there twice, or the copies do not fit.
    pub fn expand(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<Expanded> {
        let encoding = tokenizer.encode(prompt);
        match self.places(&encoding).as_slice() {
            [] => Ok(Expanded {
                ids: encoding.ids,
                places: Vec::new(),
            }),
            [place] => {
                let at = place + self.ids.len() - 1;
                self.copies(prompt, encoding, at)
            }
            places => Err(Error::Invalid(format!(
                "the prompt {prompt:?} has the class word `{}` {} times, but the photos show one person, \
                 for whom it stands once; write another word for the others",
                self.word,
                places.len()
            ))),
        }
    }

    /// Fails for a prompt with which the photos cannot be fused.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prompt without the word; as [`expand`](Self::expand).
    pub fn check(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<()> {
        if self.expand(prompt, tokenizer)?.places.is_empty() {
            let word = &self.word;
            return Err(Error::Invalid(format!(
                "the prompt {prompt:?} has no class word `{word}`, which the photos stand for; write \
                 it where the person is meant, as in \"a photo of a {word}\""
            )));
        }
        Ok(())
    }

    /// The positions at which the word begins in a prompt.
    fn places(&self, encoding: &Encoding) -> Vec<usize> {
        let prompt = &encoding.ids[..encoding.length];
        let windows = prompt.windows(self.ids.len().max(1)).enumerate();
        let found = windows.filter(|(_, window)| *window == self.ids);
        found.map(|(place, _)| place).collect()
    }

    fn copies(&self, prompt: &str, encoding: Encoding, at: usize) -> Result<Expanded> {
        let (photos, context) = (self.photos, encoding.ids.len());
        let room = match encoding.truncated {
            true => 0,
            false => context + 1 - encoding.length,
        };
        if photos > room {
            return Err(Error::Invalid(format!(
                "the prompt {prompt:?} with the class word `{}` once for each of {photos} photos is longer \
                 than the {context} tokens that the model reads; {room} photos fit: shorten the prompt, or \
                 set `adapter.photos`",
                self.word
            )));
        }
        let mut ids = encoding.ids;
        let copies = vec![ids[at]; photos - 1];
        ids.splice(at..at, copies);
        ids.truncate(context);
        Ok(Expanded {
            ids,
            places: (at..at + photos).collect(),
        })
    }
}
