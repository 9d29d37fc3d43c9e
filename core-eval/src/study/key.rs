//! `key.csv`: which image of a pair is of which variant. It is kept back while people vote.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use core_model::files::read_to_string;
use serde::{Deserialize, Serialize};

use super::KEY;
use super::material::{Material, Noise, Place};
use super::trials::Plan;
use crate::rows::read_rows;

/// The columns.
const COLUMNS: &str = "pair,kind,first,second,concept,prompt,seed,image,first_image,second_image";

/// What a pair is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Two variants on the same noise.
    Comparison,
    /// A photo of the concept first, and an image that does not show it second.
    Catch,
}

/// A pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeyRow {
    /// Its random name.
    pub(super) pair: String,
    /// What it is for.
    pub(super) kind: Kind,
    /// The first variant.
    pub(super) first: String,
    /// The second variant.
    pub(super) second: String,
    /// The concept.
    pub(super) concept: String,
    /// The template.
    pub(super) prompt: String,
    /// The seed.
    pub(super) seed: u64,
    /// The number of the image among those of the prompt.
    pub(super) image: usize,
    /// The random name of the first image.
    pub(super) first_image: String,
    /// The random name of the second image.
    pub(super) second_image: String,
}

impl KeyRow {
    /// Concept, template and noise of its images.
    pub(super) fn place(&self) -> Place {
        let noise = Noise {
            seed: self.seed,
            image: self.image,
        };
        (self.concept.clone(), self.prompt.clone(), noise)
    }
}

/// The rows of a plan, ordered by their random names.
pub(super) fn rows(plan: &Plan, material: &Material) -> Vec<KeyRow> {
    let name = |image: usize| plan.images[image].0.clone();
    let mut rows: Vec<KeyRow> = plan
        .pairs
        .iter()
        .map(|pair| {
            let prompt = &material.prompts[pair.prompt];
            KeyRow {
                pair: pair.id.clone(),
                kind: if pair.is_catch {
                    Kind::Catch
                } else {
                    Kind::Comparison
                },
                first: pair.first.name.clone(),
                second: pair.second.name.clone(),
                concept: material.concepts[prompt.concept].name.clone(),
                prompt: prompt.template.clone(),
                seed: pair.noise.seed,
                image: pair.noise.image,
                first_image: name(pair.first.image),
                second_image: name(pair.second.image),
            }
        })
        .collect();
    rows.sort_by(|a, b| a.pair.cmp(&b.pair));
    rows
}

/// The text of the file.
pub(super) fn to_csv(rows: &[KeyRow]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A key by the names of pairs, and the text of its file.
pub(super) type Key = BTreeMap<String, KeyRow>;

/// Reads the file.
///
/// # Errors
/// An absent or damaged file.
pub(super) fn read(folder: &Path) -> Result<(Key, String)> {
    let path = folder.join(KEY);
    ensure!(
        path.is_file(),
        "{}: there is no such file; `core-eval study make` writes it beside the page, and without it nobody \
         can tell which image was of which variant",
        path.display()
    );
    let rows: Vec<KeyRow> = read_rows(&path, COLUMNS)?;
    let key = rows
        .into_iter()
        .map(|row| (row.pair.clone(), row))
        .collect();
    Ok((key, read_to_string(&path)?))
}
