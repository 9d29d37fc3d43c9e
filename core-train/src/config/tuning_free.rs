//! `[adapter]`: a tuning-free encoder in the place of stages.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunConfig;
use super::checker::Checker;
use crate::error::Result;
use crate::phrase::{CLASS, TOKEN};

/// An encoder that was trained once on many people and makes what stands for the concept from its photos.
/// A recipe with it has no stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TuningFree {
    /// The folder of the encoder, with `adapter.json`.
    pub path: PathBuf,
    /// The number of photos that are used: the concept's first so many. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub photos: Option<usize>,
    /// The share of the sampling steps that begin with the text alone, 0 to 1; the last of them is step
    /// 30 at the most. For PhotoMaker only. Absent: 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_merge: Option<f64>,
}

/// The default of [`TuningFree::start_merge`], that of the authors' demonstration.
const START_MERGE: f64 = 0.2;

impl TuningFree {
    /// The share of the sampling steps that begin with the text alone.
    pub fn start_merge(&self) -> f64 {
        self.start_merge.unwrap_or(START_MERGE)
    }
}

/// Checks the phrase of a recipe with an encoder: its words hold the token or the class.
pub(super) fn check_phrase(check: &Checker<'_>, phrase: &str) -> Result<()> {
    let places = |of: &str| phrase.matches(of).count();
    let rest = phrase.replace(CLASS, "").replace(TOKEN, "");
    let one_place = matches!((places(TOKEN), places(CLASS)), (1, _) | (0, 1));
    check.require(
        one_place && !rest.contains(['{', '}']),
        "phrase",
        format!(
            "is {phrase:?}, expected \"{CLASS}\", for whose word PhotoMaker's photos stand, or words with \
             {TOKEN}, for which Face2Diffusion's vectors stand"
        ),
    )
}

/// Checks what a run with an encoder says, without reading it.
pub(super) fn check(check: &Checker<'_>, config: &RunConfig, adapter: &TuningFree) -> Result<()> {
    let without = |is_there: bool, key: &str, why: &str| {
        let reason =
            format!("has no effect: {why}, as with [adapter] nothing is trained; leave it out");
        check.require(!is_there, key, reason)
    };
    check.require(
        config.stages.is_empty(),
        "stages",
        "are there beside [adapter]; a tuning-free encoder trains nothing, so leave one of them out",
    )?;
    without(
        config.validation.is_some(),
        "validation",
        "there are no steps between which images could be generated",
    )?;
    without(
        config.checkpoint_every.is_some(),
        "checkpoint_every",
        "there are no steps",
    )?;
    without(
        !config.report_to.is_empty(),
        "report_to",
        "there are no steps",
    )?;
    without(
        config.initializer.is_some(),
        "initializer",
        "no learning starts anywhere",
    )?;
    check.require(
        config.rare_token.is_none(),
        "rare_token",
        "is there beside [adapter], which decides what stands for the concept; leave it out",
    )?;
    if let Some(photos) = adapter.photos {
        check.at_least_one(photos, "adapter.photos".into())?;
    }
    let share = adapter.start_merge();
    check.require(
        (0.0..=1.0).contains(&share),
        "adapter.start_merge",
        format!("is {share}, expected a share of the steps from 0 to 1"),
    )
}

impl RunConfig {
    /// Takes the encoder's folder relative to `base`.
    pub(super) fn resolve_adapter(&mut self, base: &Path) {
        if let Some(adapter) = &mut self.adapter {
            adapter.path = super::paths::resolve(base, &adapter.path);
        }
    }
}
