//! One prompt in every method (the paper's Fig. 2 and 8): the cosines of its context tokens, an image,
//! and where in the image each token is attended to. It needs the runs and the model.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_train::data::prompts::{ConceptWords, check_template};
use core_train::phrase::{Phrase, SLOT};
use core_train::{BaseModel, Run};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use plotters::prelude::*;

use super::canvas::{Anchor, Area, GRAY, color, drawing_error, write};
use super::placed::Placed;
use super::runs::{ImageSource, Sources};
use super::tokens::{CONCEPT, HEIGHT, PLOT, TokenLine, TokenPanel, draw_panel, plain};
use crate::attention::{AttentionMaps, attention_maps, sibling};
use crate::images::{Drawn, evaluation_noise};
use crate::report::font::wrapped;
use crate::tokens::{ContextToken, context_cosines};

/// The side of a map, the space between maps, and the width of the names, in pixels.
const CELL: u32 = 72;
const GAP: u32 = 4;
const NAMES: u32 = 170;
/// The height of the titles of columns.
const TOP: u32 = 56;

/// What is drawn for one prompt.
pub(super) struct PromptFigure {
    panel: TokenPanel,
    rows: Vec<(TokenLine, AttentionMaps, Vec<usize>)>,
    /// The tokens between start and end; the concept's are one.
    tokens: Vec<String>,
}

/// What a user chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) prompt: &'a str,
    pub(super) concept: &'a str,
    pub(super) sibling: Option<&'a str>,
    pub(super) variants: &'a [String],
}

impl PromptFigure {
    /// Computes cosines, images and maps of the class word, of a sibling word and of all variants.
    ///
    /// # Errors
    /// A prompt that does not fit; runs or a model that are gone.
    pub(super) fn compute(sources: &Sources, choice: Choice<'_>) -> Result<Self> {
        check_template(choice.prompt)?;
        let of_concept: Vec<(&String, u64, &ImageSource)> = sources
            .0
            .iter()
            .filter(|((_, concept, _), _)| concept == choice.concept)
            .map(|((variant, _, seed), source)| (variant, *seed, source))
            .collect();
        let Some((_, seed, _)) = of_concept.first().copied() else {
            bail!(
                "there are no images of concept `{}`, whose source.json names the runs",
                choice.concept
            );
        };
        let trained: Vec<_> = of_concept
            .iter()
            .filter(|(_, of, source)| *of == seed && source.run.is_some())
            .collect();
        let mut folders = BTreeMap::new();
        for (variant, _, source) in &trained {
            let address = source.run.as_deref().unwrap_or_default();
            let folder = source.run_folder();
            let gone = || {
                format!(
                    "the run of `{variant}` is gone: {}",
                    source.results.join("runs").join(address).display()
                )
            };
            folders.insert((*variant).clone(), folder.with_context(gone)?);
        }
        let first = folders.values().next();
        let run =
            Run::open(first.context("no variant is trained, so there is nothing to compare")?)?;
        let base = run.base_model(&run.config.device).with_context(|| {
            format!(
                "the model of the runs cannot be loaded: {}",
                run.config.model.path.display()
            )
        })?;
        let mut figure = Probe {
            base: &base,
            choice,
            seed,
            figure: Self::empty(choice),
        };
        let class = run.config.concept.super_category.clone();
        let color_of = |name: &str| color(choice.variants, name);
        let source = trained[0].2;
        figure.add_word("class word", (&class, &class), BLACK, source)?;
        let other = match choice.sibling {
            Some(word) => Some(word.to_string()),
            None => sibling(&base.pipeline, &class),
        };
        if let Some(word) = other {
            let name = format!("sibling word: {word}");
            figure.add_word(&name, (&word, &class), GRAY, source)?;
        }
        for (variant, _, source) in trained {
            let concept = Run::open(&folders[*variant])?.config.concept;
            let drawn = Drawn::open(&base, &concept, Some(&folders[*variant]), source.test_time)?;
            let phrase = Run::open(&folders[*variant])?.phrase();
            let prompt = phrase.fill(choice.prompt);
            let pipeline = drawn.for_prompt(&base, &prompt)?;
            ensure!(
                pipeline.model.mapper().is_none(),
                "`{variant}` trains a mapper (`neti`), whose tokens differ at every timestep and layer; \
                 leave it out with --variant"
            );
            figure.add(variant, &pipeline, &phrase, color_of(variant), source)?;
        }
        Ok(figure.figure)
    }

    fn empty(choice: Choice<'_>) -> Self {
        let title = format!(
            "\"{}\": {}",
            choice.prompt.replace(SLOT, CONCEPT),
            choice.concept
        );
        Self {
            panel: TokenPanel {
                title,
                lines: Vec::new(),
            },
            rows: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// The pixels that it needs.
    pub(super) fn size(&self) -> (u32, u32) {
        let columns = 1 + self.tokens.len() as u32;
        let rows = self.rows.len() as u32;
        let height = TOP + rows * (CELL + GAP) + 28;
        (
            PLOT + NAMES + columns * (CELL + GAP) + 10,
            height.max(HEIGHT),
        )
    }

    /// Images and maps; the maps of a token have one scale, from its lowest to its highest value in any
    /// row.
    pub(super) fn images(&self) -> Vec<Placed> {
        let mut images = Vec::new();
        let place = |row: usize, column: usize| {
            let x = PLOT + NAMES + column as u32 * (CELL + GAP);
            (x, TOP + row as u32 * (CELL + GAP))
        };
        let columns: Vec<Vec<Vec<f32>>> = self
            .rows
            .iter()
            .map(|(_, maps, spans)| maps.by_word(spans))
            .collect();
        for (row, (_, maps, _)) in self.rows.iter().enumerate() {
            images.push(Placed::new(maps.image.clone(), place(row, 0), CELL));
            for (column, values) in columns[row].iter().enumerate() {
                let all = || {
                    columns
                        .iter()
                        .filter_map(|of| of.get(column))
                        .flatten()
                        .copied()
                };
                let ends = [
                    all().fold(f32::INFINITY, f32::min),
                    all().fold(0.0, f32::max),
                ];
                let heat = heat_map(values, maps.size, ends);
                images.push(Placed::new(heat, place(row, column + 1), CELL));
            }
        }
        images
    }

    /// Draws what is no image.
    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let (plot, side) = area.split_horizontally(PLOT);
        let (top, _) = plot.split_vertically(HEIGHT.max(self.size().1.min(520)));
        draw_panel(&top, &self.panel)?;
        let titles = std::iter::once("image").chain(self.tokens.iter().map(String::as_str));
        for (column, title) in titles.enumerate() {
            let x = NAMES + column as u32 * (CELL + GAP) + CELL / 2;
            write(
                &side,
                title,
                (x as i32, TOP as i32 - 12),
                14,
                Anchor::Center,
            )?;
        }
        let about =
            "cross-attention of each token, dark is low, bright is high; one scale per column";
        write(&side, about, (NAMES as i32, 18), 14, Anchor::Left)?;
        for (row, (line, ..)) in self.rows.iter().enumerate() {
            let middle = (TOP + row as u32 * (CELL + GAP) + CELL / 2) as i32;
            let square = Rectangle::new([(4, middle - 6), (16, middle + 6)], line.color.filled());
            side.draw(&square).map_err(drawing_error)?;
            let words = wrapped(&line.name, 20);
            let first = middle - 8 * (words.len() as i32 - 1);
            for (number, words) in words.iter().enumerate() {
                write(
                    &side,
                    words,
                    (22, first + 16 * number as i32),
                    14,
                    Anchor::Left,
                )?;
            }
        }
        Ok(())
    }
}

/// A figure while it is computed.
struct Probe<'a> {
    base: &'a BaseModel,
    choice: Choice<'a>,
    seed: u64,
    figure: PromptFigure,
}

impl Probe<'_> {
    /// Adds the base model with a word of its vocabulary in the place of the concept.
    fn add_word(
        &mut self,
        name: &str,
        (word, class): (&str, &str),
        color: RGBColor,
        source: &ImageSource,
    ) -> Result<()> {
        let phrase = Phrase::new(None, word, class);
        let pipeline = self.base.pipeline.clone();
        self.add(name, &pipeline, &phrase, color, source)
    }

    fn add(
        &mut self,
        name: &str,
        pipeline: &StableDiffusionPipeline,
        phrase: &Phrase,
        color: RGBColor,
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
        if self.figure.tokens.is_empty() {
            self.figure.tokens = tokens;
        }
        let line = TokenLine {
            name: name.to_string(),
            color,
            points: aligned(context),
        };
        self.figure.panel.lines.push(line.clone());
        self.figure.rows.push((line, maps, spans));
        Ok(())
    }
}

/// The context tokens with the positions that they have when the concept takes one.
fn aligned(context: Vec<ContextToken>) -> Vec<(usize, String, f64)> {
    let gap = gap(&context);
    let shift = |position: usize| match gap {
        Some((start, end)) if position >= end => position - (end - start) + 1,
        _ => position,
    };
    let tokens = context.into_iter();
    tokens
        .map(|token| (shift(token.position), token.token, token.cosine))
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

impl AttentionMaps {
    /// The map of every word: the sum over its positions, which begin at these numbers.
    fn by_word(&self, spans: &[usize]) -> Vec<Vec<f32>> {
        let pixels = self.size[0] * self.size[1];
        let word = |span: &[usize]| {
            let mut sum = vec![0.0; pixels];
            for map in self.maps.iter().take(span[1]).skip(span[0]) {
                for (sum, value) in sum.iter_mut().zip(map) {
                    *sum += value;
                }
            }
            sum
        };
        spans.windows(2).map(word).collect()
    }
}

/// Black over purple and orange to pale yellow.
const HEAT: [[f32; 3]; 5] = [
    [0.0, 0.0, 4.0],
    [87.0, 16.0, 110.0],
    [188.0, 55.0, 84.0],
    [249.0, 142.0, 9.0],
    [252.0, 255.0, 164.0],
];

/// A map in colours, enlarged smoothly.
fn heat_map(values: &[f32], [height, width]: [usize; 2], [lowest, highest]: [f32; 2]) -> RgbImage {
    let range = (highest - lowest).max(f32::MIN_POSITIVE);
    let image = RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let value = (values[y as usize * width + x as usize] - lowest) / range;
        let place = value.clamp(0.0, 1.0) * (HEAT.len() - 1) as f32;
        let below = (place as usize).min(HEAT.len() - 2);
        let share = place - below as f32;
        let mixed = |channel: usize| {
            let [low, high] = [HEAT[below][channel], HEAT[below + 1][channel]];
            (low + share * (high - low)).round() as u8
        };
        Rgb([mixed(0), mixed(1), mixed(2)])
    });
    resize(&image, CELL, CELL, FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(positions: &[usize]) -> Vec<ContextToken> {
        let token = |position: &usize| ContextToken {
            position: *position,
            token: format!("t{position}</w>"),
            cosine: 1.0,
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
        let places: Vec<usize> = aligned(context).into_iter().map(|token| token.0).collect();
        assert_eq!(places, [0, 1, 3, 4]);
    }

    #[test]
    fn heat_maps_go_from_black_to_pale_yellow() {
        let image = heat_map(&[0.1, 0.1, 0.5, 0.5], [2, 2], [0.1, 0.5]);
        assert_eq!(image.get_pixel(0, 0).0, [0, 0, 4]);
        assert_eq!(image.get_pixel(0, CELL - 1).0, [252, 255, 164]);
    }
}
