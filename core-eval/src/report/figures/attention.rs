//! `attention.json`: what `figures` and the report show of a prompt's attention in every method.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use super::probe::{Choice, PromptProbe, RowOf, TrainedVariants};
use super::runs::Sources;
use crate::attention_file::{
    AttentionFile, AttentionRow, PromptAttention, data_address, map_text, small_size,
};
use crate::base::Base;
use crate::report::ScoreTable;

/// Adds a prompt to `attention.json`, in the place of what the file had of it, and returns how many images were
/// generated for it: none where the file is up to date, where nothing was trained, and where the weights were removed.
///
/// # Errors
/// Runs or a model that are gone; unreadable or damaged files; a request to stop.
pub fn update_attention(
    results: &Path,
    (prompt, concept): (&str, &str),
    base: &Base,
    stop: &AtomicBool,
) -> Result<usize> {
    let scores = ScoreTable::read(&results.join("scores.csv"))?;
    let sources = Sources::read(results, &scores.rows)?;
    let choice = Choice {
        prompt,
        concept,
        sibling: None,
    };
    let trained = TrainedVariants::find(&sources, choice)?;
    let is_known = AttentionFile::read(results)?.holds(&trained.key());
    if is_known || trained.is_empty() || trained.are_removed()? {
        return Ok(0);
    }
    let probe = trained.probe(Some(base), stop)?;
    add_attention(results, &trained, &probe, choice)?;
    Ok(probe.rows.len())
}

/// Adds a prompt that was probed to `attention.json`, in the place of what the file had of it.
///
/// # Errors
/// An unreadable or damaged file, an unwritable folder.
pub(super) fn add_attention(
    results: &Path,
    trained: &TrainedVariants<'_>,
    probe: &PromptProbe,
    choice: Choice<'_>,
) -> Result<()> {
    let scales = probe.scales();
    let mut rows = Vec::new();
    for row in &probe.rows {
        let (variant, name) = match &row.of {
            RowOf::ClassWord(word) => (None, format!("class word: {word}")),
            RowOf::SiblingWord(word) => (None, format!("sibling word: {word}")),
            RowOf::Variant(name) => (Some(name.clone()), name.clone()),
        };
        let maps = row.maps.iter().zip(&scales);
        rows.push(AttentionRow {
            variant,
            name,
            image: data_address(&row.image)?,
            cosines: row.cosines.clone(),
            maps: maps
                .map(|(map, ends)| map_text(map, row.size, *ends))
                .collect(),
        });
    }
    let prompt = PromptAttention {
        prompt: choice.prompt.to_string(),
        concept: choice.concept.to_string(),
        seed: trained.seed,
        key: trained.key(),
        tokens: probe.tokens.clone(),
        size: small_size(probe.rows.first().map_or([0, 0], |row| row.size)),
        rows,
    };
    AttentionFile::read(results)?.add(prompt, results)
}
