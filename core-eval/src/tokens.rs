//! How far a learned concept pulls the other words of a prompt (the paper's Fig. 2): the cosine of
//! every context token's output embedding with what the super-category leaves there.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Tensor;
use core_losses::{Context, ContextPair, PromptSpan};
use core_model::device::parse_device;
use core_model::params::to_vec;
use core_model::tokenizer::Encoding;
use core_train::data::prompts::fill;

use crate::experiment::Experiment;
use crate::images::open;
use crate::plan::Cell;
use crate::report::TokenRow;

/// The rows of one cell, prompts in order, positions in order; none for the untuned model.
///
/// # Errors
/// An unreadable run, a prompt whose words differ in number.
pub fn rows(experiment: &Experiment, cell: &Cell, results: &Path) -> Result<Vec<TokenRow>> {
    let (Some(run), Some(concept)) = (&cell.run, &experiment.concepts[cell.concept].config) else {
        return Ok(Vec::new());
    };
    let device = parse_device(&experiment.device)?;
    let folder = run.folder(results);
    let (pipeline, token, vectors) = open(&experiment.model.path, concept, Some(&folder), &device)?;
    let hidden = |encoding: &Encoding, rows: Option<Tensor<2>>| -> Vec<f32> {
        to_vec(
            pipeline
                .text_encoder
                .forward(std::slice::from_ref(&encoding.ids), rows),
        )
    };
    let width = pipeline.text_encoder.config().hidden_size;
    let mut rows = Vec::new();
    for prompt in experiment.prompts_for(concept) {
        let learned = pipeline.tokenizer.encode(&fill(&prompt.prompt, &token));
        let reference = pipeline
            .tokenizer
            .encode(&fill(&prompt.prompt, &concept.super_category));
        let span = learned.placeholder.clone().unwrap_or(0..0);
        // Outside the concept both prompts have the same words, so the reference's concept is as
        // much longer as the whole prompt is.
        let words = (reference.length + span.len()).saturating_sub(learned.length);
        let span_of = |encoding: &Encoding, concept: std::ops::Range<usize>| PromptSpan {
            length: encoding.length,
            concept,
            context_length: encoding.ids.len(),
        };
        let reference_span = span.start..span.start + words;
        let pair = ContextPair::new(
            span_of(&learned, span.clone()),
            span_of(&reference, reference_span),
        )?;
        let (ours, theirs) = (hidden(&learned, vectors.clone()), hidden(&reference, None));
        let [kept, counterparts] = pair.kept(Context::Prompt);
        for (position, counterpart) in kept.into_iter().zip(counterparts) {
            let row = |values: &[f32], at: usize| values[at * width..(at + 1) * width].to_vec();
            rows.push(TokenRow {
                variant: experiment.variants[cell.variant].name.clone(),
                concept: concept.name.clone(),
                seed: cell.seed,
                prompt: prompt.prompt.clone(),
                position,
                token: pipeline.tokenizer.token(learned.ids[position]),
                cosine: cosine(&row(&ours, position), &row(&theirs, counterpart)),
            });
        }
    }
    Ok(rows)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
}
