//! `study.csv`: all figures of a study, one per row.

use serde::{Deserialize, Serialize};

use crate::statistics::Interval;

/// A figure.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StudyRow {
    /// Whether the rules of `study.toml` were `applied` or not (`none`).
    pub exclusions: String,
    /// The question, or `all`.
    pub question: String,
    /// What was measured; `docs/study.md` lists all measures.
    pub measure: String,
    /// The first variant, or the only one.
    pub first: String,
    /// The second variant.
    pub second: String,
    /// The protocol of the metric.
    pub protocol: String,
    /// The metric.
    pub metric: String,
    /// The figure.
    pub value: Option<f64>,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The number of answers behind it.
    pub votes: usize,
    /// The number of people who gave them.
    pub people: usize,
}

impl StudyRow {
    /// The same for a measure of so many votes.
    #[must_use]
    pub(super) fn of(&self, measure: &str, votes: usize) -> Self {
        Self {
            measure: measure.into(),
            votes,
            ..self.clone()
        }
    }

    /// The same with this value, and its interval if there is one.
    #[must_use]
    pub(super) fn with(mut self, value: Option<f64>, interval: Option<Interval>) -> Self {
        self.value = value;
        self.low = interval.map(|interval| interval.low);
        self.high = interval.map(|interval| interval.high);
        self
    }
}

/// The share that preferred the first variant, ties as halves; the interval is over people and prompts.
pub(super) const SHARE: &str = "share";
/// The same with Wilson's interval, as if all votes were independent.
pub(super) const SHARE_WILSON: &str = "share_wilson";
/// The same, ties left out.
pub(super) const DECIDED: &str = "share_decided";
/// The same, ties left out, with Wilson's interval.
pub(super) const DECIDED_WILSON: &str = "share_decided_wilson";
/// The share of "cannot tell".
pub(super) const CANNOT_TELL: &str = "cannot_tell";
/// The logarithm of a variant's strength in Davidson's model; the mean of all is 0.
pub(super) const STRENGTH: &str = "strength";
/// The tie parameter of Davidson's model.
pub(super) const TIE: &str = "tie_parameter";
/// The share of answers A among A and B; 1/2 without position bias.
pub(super) const SIDE_A: &str = "side_a";
/// The share of repeated pairs with the same answer.
pub(super) const REPEAT: &str = "repeat_agreement";
/// Krippendorff's alpha.
pub(super) const ALPHA: &str = "krippendorff_alpha";
/// The share of answers A or B that the sign of a metric's paired difference predicts.
pub(super) const METRIC: &str = "metric_agreement";
/// How many people there are.
pub(super) const PEOPLE: &str = "people";
/// How many people a rule leaves out; the name of the rule follows.
pub(super) const EXCLUDED: &str = "excluded_by_";
