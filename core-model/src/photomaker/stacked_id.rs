//! The stacked ID embedding: the class word of a prompt, once for every photo of a person.

use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;

use super::fuse::FuseModule;
use crate::error::{Error, Result};
use crate::params::ParamNames;
use crate::pipeline::PromptStates;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::{Encoding, Tokenizer};

/// No more steps than these begin with the text alone, as in the authors' demonstration.
const LAST_STEP_OF_TEXT: usize = 30;

/// A person whose photos the class word of a prompt stands for.
#[derive(Module, Debug)]
pub struct StackedId {
    fuse_module: FuseModule,
    /// [photos, width].
    id_embeds: Param<Tensor<2>>,
    #[module(skip)]
    class: Vec<u32>,
    #[module(skip)]
    class_word: String,
    #[module(skip)]
    start_merge: f64,
    #[module(skip)]
    names: ParamNames,
}

/// A prompt with copies of its class word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The ids, as many as before.
    pub ids: Vec<u32>,
    /// The positions of the copies; none in a prompt without the class word.
    pub places: Vec<usize>,
}

impl StackedId {
    /// A person of these photos' vectors [photos, width], for prompts with `class_word`; `start_merge`
    /// is the share of the steps that begin with the text alone.
    pub fn new(
        photomaker: &super::PhotoMaker,
        id_embeds: Tensor<2>,
        tokenizer: &Tokenizer,
        class_word: &str,
        start_merge: f64,
    ) -> Self {
        let shape = id_embeds.dims().to_vec();
        let id_embeds = Param::initialized(ParamId::new(), id_embeds);
        let name = |key: &str| format!("photomaker.{key}");
        let names = ParamNames::one(id_embeds.id, &name("id_embeds"), shape);
        Self {
            fuse_module: photomaker.fuse_module.clone(),
            names: names.with(&photomaker.names.renamed(name)),
            id_embeds,
            class: word_ids(tokenizer, class_word),
            class_word: class_word.to_string(),
            start_merge,
        }
    }

    pub(crate) fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The number of photos.
    pub fn photos(&self) -> usize {
        self.id_embeds.dims()[0]
    }

    /// The last step, from 0, that is made with the text alone.
    pub fn start_merge_step(&self, steps: usize) -> usize {
        start_merge_step(self.start_merge, steps)
    }

    /// A prompt with one copy of the last token of its class word for every photo; as it is without that
    /// word.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the class word is there twice, or the copies do not fit.
    pub fn expand(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<Expanded> {
        let encoding = tokenizer.encode(prompt);
        let word = &self.class_word;
        match places_of(&encoding, &self.class).as_slice() {
            [] => Ok(Expanded {
                ids: encoding.ids,
                places: Vec::new(),
            }),
            [place] => {
                let at = place + self.class.len() - 1;
                self.copies(prompt, encoding, at)
            }
            places => Err(Error::Invalid(format!(
                "the prompt {prompt:?} has the class word `{word}` {} times, but the photos show one \
                 person, for whom it stands once; write another word for the others",
                places.len()
            ))),
        }
    }

    /// Fails for a prompt without the class word.
    ///
    /// # Errors
    /// [`Error::Invalid`] for such a prompt; as [`expand`](Self::expand).
    pub fn check(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<()> {
        if self.expand(prompt, tokenizer)?.places.is_empty() {
            let word = &self.class_word;
            return Err(Error::Invalid(format!(
                "the prompt {prompt:?} has no class word `{word}`, which the photos stand for; write \
                 it where the person is meant, as in \"a photo of a {word}\""
            )));
        }
        Ok(())
    }

    fn copies(&self, prompt: &str, encoding: Encoding, at: usize) -> Result<Expanded> {
        let context = encoding.ids.len();
        let room = context + 1 - encoding.length;
        let photos = self.photos();
        if encoding.truncated || photos > room {
            let fit = match encoding.truncated {
                true => 0,
                false => room,
            };
            return Err(Error::Invalid(format!(
                "the prompt {prompt:?} with the class word `{}` once for each of {photos} photos is \
                 longer than the {context} tokens that the model reads; {fit} photos fit: shorten the \
                 prompt, or set `adapter.photos`",
                self.class_word
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

    /// What prompts are to the U-Net: the text alone in the first steps, then fused with the photos. A
    /// prompt without the class word is text alone in all steps.
    ///
    /// # Errors
    /// As [`expand`](Self::expand).
    pub(crate) fn prompt_states(
        &self,
        prompts: &[String],
        tokenizer: &Tokenizer,
        text_encoder: &TextEncoder,
    ) -> Result<PromptStates<'static>> {
        let plain: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.encode(p).ids).collect();
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let expanded = self.expand(prompt, tokenizer)?;
            ids.push(expanded.ids);
            places.push(expanded.places);
        }
        let text = text_encoder.forward(&plain, None).inner();
        let persons = places.iter().filter(|places| !places.is_empty()).count();
        if persons == 0 {
            return Ok(text.into());
        }
        let id_embeds = self.id_embeds.val().inner().repeat_dim(0, persons);
        let states = text_encoder.forward(&ids, None).inner();
        let fused = self.fuse_module.stack(states, id_embeds, &places).inner();
        Ok(PromptStates::Delayed {
            first: Box::new(text.into()),
            then: Box::new(fused.into()),
            share: self.start_merge,
        })
    }
}

/// The last step, from 0, of `steps` that is made with the text alone.
pub(crate) fn start_merge_step(share: f64, steps: usize) -> usize {
    LAST_STEP_OF_TEXT.min((share * steps as f64) as usize)
}

/// The ids of a word, without start and end.
fn word_ids(tokenizer: &Tokenizer, word: &str) -> Vec<u32> {
    let encoding = tokenizer.encode(word);
    encoding.ids[1..encoding.length - 1].to_vec()
}

/// The positions at which a word begins in a prompt.
fn places_of(encoding: &Encoding, word: &[u32]) -> Vec<usize> {
    let words = &encoding.ids[..encoding.length];
    let windows = words.windows(word.len().max(1)).enumerate();
    let found = windows.filter(|(_, window)| *window == word);
    found.map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::start_merge_step;

    #[test]
    fn the_text_alone_is_used_for_a_share_of_the_steps_and_no_more_than_thirty_one() {
        assert_eq!(start_merge_step(0.2, 50), 10);
        assert_eq!(start_merge_step(0.2, 20), 4);
        assert_eq!(start_merge_step(0.5, 100), 30);
        assert_eq!(start_merge_step(0.0, 50), 0);
    }
}
