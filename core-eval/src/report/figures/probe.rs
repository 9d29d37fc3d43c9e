//! One prompt in every method (the paper's Fig. 2 and 8), computed: the cosines of its context tokens, an
//! image, and where in the image each token is attended to. It needs the runs and the model.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_train::data::prompts::{ConceptWords, check_template};
use core_train::phrase::Phrase;
use core_train::run::removed::Removed;
use core_train::{BaseModel, Run};
use image::RgbImage;

use super::runs::{ImageSource, Sources};
use super::tokens::{CONCEPT, plain};
use crate::attention::{AttentionMaps, attention_maps, sibling};
use crate::base::Base;
use crate::gallery::Key;
use crate::images::{Drawn, evaluation_noise};
use crate::tokens::{ContextToken, context_cosines};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) prompt: &'a str,
    pub(super) concept: &'a str,
    /// The word beside the class word. Absent: the nearest of the vocabulary.
    pub(super) sibling: Option<&'a str>,
}

/// The trained variants of a concept with its first seed.
pub(super) struct TrainedVariants<'a> {
    choice: Choice<'a>,
    pub(super) seed: u64,
    variants: Vec<(&'a str, &'a ImageSource)>,
}

/// A prompt in every method.
pub(super) struct PromptProbe {
    /// The tokens between start and end; the concept's are one.
    pub(super) tokens: Vec<String>,
    /// Class word, sibling word, then the trained variants.
    pub(super) rows: Vec<ProbeRow>,
    /// What could not be compared, and why.
    pub(super) left_out: Vec<String>,
}

/// A prompt in one method.
pub(super) struct ProbeRow {
    pub(super) of: RowOf,
    /// The context tokens with the positions that they have when the concept takes one.
    pub(super) context: Vec<ContextToken>,
    /// The cosine of each token between start and end; none for the concept.
    pub(super) cosines: Vec<Option<f64>>,
    pub(super) image: RgbImage,
    /// Height and width of the maps.
    pub(super) size: [usize; 2],
    /// The map of each token between start and end.
    pub(super) maps: Vec<Vec<f32>>,
}

/// What stands in the place of the concept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowOf {
    ClassWord(String),
    SiblingWord(String),
    Variant(String),
}

impl<'a> TrainedVariants<'a> {
    /// The variants of the choice.
    ///
    /// # Errors
    /// A template that does not fit; a concept without images.
    pub(super) fn find(sources: &'a Sources, choice: Choice<'a>) -> Result<Self> {
        check_template(choice.prompt)?;
        let of_concept = sources.0.iter();
        let of_concept: Vec<_> = of_concept
            .filter(|((_, concept, _), _)| concept == choice.concept)
            .collect();
        let Some(((_, _, seed), _)) = of_concept.first() else {
            bail!(
                "there are no images of concept `{}`, whose source.json names the runs",
                choice.concept
            );
        };
        let variants = of_concept
            .iter()
            .filter(|((_, _, of), source)| of == seed && source.run.is_some());
        Ok(Self {
            choice,
            seed: *seed,
            variants: variants
                .map(|((variant, ..), source)| (variant.as_str(), *source))
                .collect(),
        })
    }

    /// Whether nothing was trained.
    pub(super) fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    /// Whether the weights of a run were removed to make room.
    ///
    /// # Errors
    /// An unreadable run.
    pub(super) fn are_removed(&self) -> Result<bool> {
        let folders = self
            .variants
            .iter()
            .filter_map(|(_, source)| source.run_folder());
        for folder in folders {
            if Removed::read(&folder)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What determines everything that is computed.
    pub(super) fn key(&self) -> String {
        let of = |(variant, source): &(&str, &ImageSource)| {
            let without_place = ImageSource {
                results: PathBuf::new(),
                ..(*source).clone()
            };
            format!("{variant}: {without_place:?}")
        };
        let mut parts: Vec<String> = self.variants.iter().map(of).collect();
        let Choice {
            prompt,
            concept,
            sibling,
        } = self.choice;
        parts.push(format!("{prompt} {concept} {sibling:?} {}", self.seed));
        Key::of(&parts.iter().map(String::as_str).collect::<Vec<_>>()).hex()
    }

    /// Computes cosines, images and maps. Without `base` the model that the runs name is loaded.
    ///
    /// # Errors
    /// Runs or a model that are gone; a request to stop.
    pub(super) fn probe(&self, base: Option<&Base>, stop: &AtomicBool) -> Result<PromptProbe> {
        let folders = self.run_folders()?;
        let first = folders.first();
        let run =
            Run::open(first.context("no variant is trained, so there is nothing to compare")?)?;
        let opened;
        let base = match base {
            Some(base) => base.get()?,
            None => {
                opened = run.base_model(&run.config.device).with_context(|| {
                    let path = run.config.model.path.display();
                    format!("the model of the runs cannot be loaded: {path}")
                })?;
                &opened
            }
        };
        let mut computing = Computing {
            base,
            choice: self.choice,
            seed: self.seed,
            probe: PromptProbe {
                tokens: Vec::new(),
                rows: Vec::new(),
                left_out: Vec::new(),
            },
        };
        let class = run.config.concept.super_category.clone();
        let other = match self.choice.sibling {
            Some(word) => Some(word.to_string()),
            None => sibling(&base.pipeline, &class),
        };
        let source = self.variants[0].1;
        computing.add_word(RowOf::ClassWord(class.clone()), &class, &class, source)?;
        if let Some(word) = other {
            computing.add_word(RowOf::SiblingWord(word.clone()), &word, &class, source)?;
        }
        for ((variant, source), folder) in self.variants.iter().zip(&folders) {
            ensure!(
                !stop.load(Ordering::Relaxed),
                "stopped; the same command continues from here"
            );
            computing.add_variant(variant, source, &Run::open(folder)?)?;
        }
        Ok(computing.probe)
    }

    fn run_folders(&self) -> Result<Vec<PathBuf>> {
        let folder = |(variant, source): &(&str, &ImageSource)| {
            let address = source.run.as_deref().unwrap_or_default();
            source.run_folder().with_context(|| {
                let place = source.results.join("runs").join(address);
                format!("the run of `{variant}` is gone: {}", place.display())
            })
        };
        self.variants.iter().map(folder).collect()
    }
}

/// A probe while it is computed.
struct Computing<'a> {
    base: &'a BaseModel,
    choice: Choice<'a>,
    seed: u64,
    probe: PromptProbe,
}

impl Computing<'_> {
    /// Adds the base model with a word of its vocabulary in the place of the concept.
    fn add_word(&mut self, of: RowOf, word: &str, class: &str, source: &ImageSource) -> Result<()> {
        let phrase = Phrase::new(None, word, class);
        let pipeline = self.base.pipeline.clone();
        self.add(of, &pipeline, &phrase, source)
    }

    /// Adds a trained variant, unless its tokens have no one state.
    fn add_variant(&mut self, variant: &str, source: &ImageSource, run: &Run) -> Result<()> {
        let concept = &run.config.concept;
        let drawn = Drawn::open(self.base, concept, Some(run.folder()), source.test_time)?;
        let phrase = run.phrase();
        let prompt = phrase.fill(self.choice.prompt);
        let pipeline = drawn.for_prompt(self.base, &prompt)?;
        let reason = if pipeline.model.mapper().is_some() {
            "trains a mapper (`neti`), whose tokens differ at every timestep and layer"
        } else if pipeline.model.stacked_id().is_some() {
            "uses PhotoMaker, whose class word has one state in the first steps and others after them"
        } else {
            let of = RowOf::Variant(variant.to_string());
            return self.add(of, &pipeline, &phrase, source);
        };
        self.probe.left_out.push(format!("`{variant}` {reason}"));
        Ok(())
    }

    fn add(
        &mut self,
        of: RowOf,
        pipeline: &StableDiffusionPipeline,
        phrase: &Phrase,
        source: &ImageSource,
    ) -> Result<()> {
        let template = self.choice.prompt;
        let words = ConceptWords {
            tokenizer: &pipeline.tokenizer,
            phrase,
        };
        let context = context_cosines(pipeline, &self.base.pipeline, &words, template)?;
        let [c, h, w] = pipeline.latent_shape()?;
        let place = (self.choice.concept, template);
        let noise = evaluation_noise(self.seed, place, 0, c * h * w);
        let options = SamplingOptions {
            kind: source.scheduler,
            num_inference_steps: source.steps,
            guidance_scale: source.guidance_scale,
        };
        let prompt = phrase.fill(template);
        let maps = attention_maps(pipeline, &prompt, noise, &options, &self.base.device)?;
        let (tokens, spans) = words_of(&context);
        if self.probe.tokens.is_empty() {
            self.probe.tokens = tokens;
        }
        self.probe.rows.push(ProbeRow {
            of,
            cosines: cosines(&context, &spans),
            maps: by_word(&maps, &spans),
            size: maps.size,
            image: maps.image,
            context: aligned(context),
        });
        Ok(())
    }
}

/// The context tokens with the positions that they have when the concept takes one.
fn aligned(context: Vec<ContextToken>) -> Vec<ContextToken> {
    let gap = gap(&context);
    let shift = |position: usize| match gap {
        Some((start, end)) if position >= end => position - (end - start) + 1,
        _ => position,
    };
    let tokens = context.into_iter();
    tokens
        .map(|token| ContextToken {
            position: shift(token.position),
            ..token
        })
        .collect()
}

/// The positions of the concept, which lie between those of the context.
fn gap(context: &[ContextToken]) -> Option<(usize, usize)> {
    let pairs = context.windows(2);
    let gap = pairs.map(|pair| (pair[0].position + 1, pair[1].position));
    gap.into_iter().find(|(start, end)| start < end)
}

/// The words between start and end with the first position of each and that after the last: the concept's
/// positions count as one word.
fn words_of(context: &[ContextToken]) -> (Vec<String>, Vec<usize>) {
    let inner = &context[1..context.len().saturating_sub(1).max(1)];
    let mut words: Vec<(usize, String)> = inner
        .iter()
        .map(|token| (token.position, plain(&token.token)))
        .collect();
    if let Some((start, _)) = gap(context) {
        words.push((start, CONCEPT.to_string()));
    }
    words.sort();
    let end = context.last().map_or(0, |token| token.position);
    let (mut spans, names): (Vec<usize>, Vec<String>) = words.into_iter().unzip();
    spans.push(end);
    (names, spans)
}

/// The cosine of every word that begins at one of these positions; none for the concept.
fn cosines(context: &[ContextToken], spans: &[usize]) -> Vec<Option<f64>> {
    let of = |position: &usize| {
        let mut tokens = context.iter();
        Some(tokens.find(|token| token.position == *position)?.cosine)
    };
    spans[..spans.len() - 1].iter().map(of).collect()
}

/// The map of every word: the sum over its positions, which begin at these numbers.
fn by_word(of: &AttentionMaps, spans: &[usize]) -> Vec<Vec<f32>> {
    let pixels = of.size[0] * of.size[1];
    let word = |span: &[usize]| {
        let mut sum = vec![0.0; pixels];
        for map in of.maps.iter().take(span[1]).skip(span[0]) {
            for (sum, value) in sum.iter_mut().zip(map) {
                *sum += value;
            }
        }
        sum
    };
    spans.windows(2).map(word).collect()
}

impl PromptProbe {
    /// The lowest and the highest value of each token in any row.
    pub(super) fn scales(&self) -> Vec<[f32; 2]> {
        let ends = |column: usize| {
            let maps = self.rows.iter().filter_map(|row| row.maps.get(column));
            let values = || maps.clone().flatten().copied();
            let lowest = values().fold(f32::INFINITY, f32::min);
            [lowest, values().fold(0.0, f32::max)]
        };
        (0..self.tokens.len()).map(ends).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(positions: &[usize]) -> Vec<ContextToken> {
        let token = |position: &usize| ContextToken {
            position: *position,
            token: format!("t{position}</w>"),
            cosine: *position as f64 / 10.0,
        };
        positions.iter().map(token).collect()
    }

    #[test]
    fn a_concept_of_several_tokens_is_one_word_and_shifts_what_follows() {
        // start t1 [2, 3] t4 end
        let context = context(&[0, 1, 4, 5]);
        let (words, spans) = words_of(&context);
        assert_eq!(words, ["t1", CONCEPT, "t4"]);
        assert_eq!(spans, [1, 2, 4, 5]);
        assert_eq!(cosines(&context, &spans), [Some(0.1), None, Some(0.4)]);
        let places = aligned(context).into_iter().map(|token| token.position);
        assert_eq!(places.collect::<Vec<_>>(), [0, 1, 3, 4]);
    }
}
