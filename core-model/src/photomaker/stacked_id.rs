//! The stacked ID embedding: a person's photos, each fused with one copy of the class word.

use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;

use super::{ClassWord, FuseModule, PhotoMaker};
use crate::error::Result;
use crate::params::ParamNames;
use crate::pipeline::PromptStates;
use crate::text_encoder::TextEncoder;
use crate::tokenizer::Tokenizer;

/// The last step that may be made with the text alone, as in the authors' demonstration.
const LAST_STEP_OF_TEXT: usize = 30;

/// A person whose photos the class word of a prompt stands for.
#[derive(Module, Debug)]
pub struct StackedId {
    fuse_module: FuseModule,
    /// [photos, width].
    id_embeds: Param<Tensor<2>>,
    #[module(skip)]
    class_word: ClassWord,
    #[module(skip)]
    start_merge: f64,
    #[module(skip)]
    names: ParamNames,
}

impl StackedId {
    /// A person of these photos' vectors [photos, width], for prompts with `class_word`; `start_merge`
    /// is the share of the steps that begin with the text alone.
    pub fn new(
        photomaker: &PhotoMaker,
        id_embeds: Tensor<2>,
        class_word: ClassWord,
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
            class_word,
            start_merge,
        }
    }

    pub(crate) fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The word of prompts that the photos stand for.
    pub fn class_word(&self) -> &ClassWord {
        &self.class_word
    }

    /// What prompts are to the U-Net: the text alone in the first steps, then fused with the photos. A
    /// prompt without the class word is text alone in all steps.
    ///
    /// # Errors
    /// As [`ClassWord::expand`].
    pub(crate) fn prompt_states(
        &self,
        prompts: &[String],
        tokenizer: &Tokenizer,
        text_encoder: &TextEncoder,
    ) -> Result<PromptStates<'static>> {
        let plain: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.encode(p).ids).collect();
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for prompt in prompts {
            let expanded = self.class_word.expand(prompt, tokenizer)?;
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
