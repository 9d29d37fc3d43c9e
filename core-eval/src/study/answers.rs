//! The answers to one question, and the figures that a weighting of them gives.

use std::collections::BTreeMap;

use super::agreement::krippendorff;
use super::bradley_terry::{Counts, fit};
use super::intervals::{Clusters, Spread, two_way};
use super::metric_agreement::Scored;
use super::question::Question;
use super::settings::Settings;
use super::trials::comparisons;
use super::votes::{Answer, Vote};
use crate::statistics::weighted_mean;

/// An answer about two variants.
#[derive(Debug, Clone)]
struct Given {
    clusters: Clusters,
    comparison: usize,
    /// 1 for the first variant of the comparison, 0 for the second, 1/2 for neither.
    value: f64,
    /// Whether it is A; none for neither.
    left: Option<bool>,
    /// Whether each metric predicts it; none for neither, and where a metric says nothing.
    predicted: Vec<Option<bool>>,
    pair: String,
}

impl Given {
    fn new(vote: &Vote, clusters: Clusters, comparison: usize, metrics: &[Scored]) -> Self {
        let value = vote.value();
        let predicts = |metric: &Scored| {
            let difference = metric.difference(&vote.key).filter(|d| *d != 0.0)?;
            (value != 0.5).then_some((difference > 0.0) == (value > 0.5))
        };
        Self {
            clusters,
            comparison,
            value,
            left: (vote.answer != Answer::CannotTell).then_some(vote.answer == Answer::A),
            predicted: metrics.iter().map(predicts).collect(),
            pair: vote.key.pair.clone(),
        }
    }
}

/// The two variants of a vote.
fn compared(vote: &Vote, settings: &Settings) -> (usize, usize) {
    let index = |name: &String| {
        let mut variants = settings.variants.iter();
        variants.position(|variant| variant == name).unwrap_or(0)
    };
    (index(&vote.key.first), index(&vote.key.second))
}

/// All answers to a question, catch trials and repetitions left out.
pub(super) struct Answers<'a> {
    given: Vec<Given>,
    /// For each repeated pair whether the answers are equal.
    repeats: Vec<(Clusters, f64)>,
    variants: usize,
    comparisons: Vec<(usize, usize)>,
    metrics: &'a [Scored],
    purpose: String,
}

/// The figures of one comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfComparison {
    /// The two variants.
    pub(super) variants: (usize, usize),
    /// The share for the first one, ties as halves.
    pub(super) share: Option<Spread>,
    /// The same, ties left out.
    pub(super) decided: Option<Spread>,
    /// The share of ties.
    pub(super) ties: Option<Spread>,
    /// The number of answers.
    pub(super) votes: usize,
    /// How many of them are no ties.
    pub(super) decided_votes: usize,
}

/// The figures of a question.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) comparisons: Vec<OfComparison>,
    /// Logarithms of strengths; empty for two variants.
    pub(super) strengths: Vec<Option<Spread>>,
    pub(super) tie: Option<Spread>,
    /// The share of A.
    pub(super) left: Option<Spread>,
    /// One per metric.
    pub(super) metrics: Vec<(Option<Spread>, usize)>,
    pub(super) repeat: (Option<Spread>, usize),
    pub(super) alpha: Option<Spread>,
    pub(super) votes: usize,
    pub(super) decided_votes: usize,
}

impl<'a> Answers<'a> {
    pub(super) fn new(
        votes: &[&Vote],
        question: Question,
        settings: &Settings,
        metrics: &'a [Scored],
    ) -> Self {
        let comparisons = comparisons(settings.variants.len());
        let mut prompts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut originals: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        let (mut given, mut repeats) = (Vec::new(), Vec::new());
        let asked = votes.iter();
        let asked = asked.filter(|vote| vote.question == question && !vote.is_catch());
        for vote in asked.clone().filter(|vote| vote.repeat_of.is_none()) {
            originals.insert((vote.person, vote.trial), vote.value());
        }
        for vote in asked {
            let next = prompts.len();
            let prompt = (vote.key.concept.as_str(), vote.key.prompt.as_str());
            let clusters = [vote.person, *prompts.entry(prompt).or_insert(next)];
            let Some(trial) = vote.repeat_of else {
                let of = compared(vote, settings);
                let comparison = comparisons.iter().position(|c| *c == of).unwrap_or(0);
                given.push(Given::new(vote, clusters, comparison, metrics));
                continue;
            };
            let original = originals.get(&(vote.person, trial));
            let equal = original.map(|value| f64::from(u8::from(*value == vote.value())));
            repeats.extend(equal.map(|equal| (clusters, equal)));
        }
        Self {
            given,
            repeats,
            variants: settings.variants.len(),
            comparisons,
            metrics,
            purpose: format!("study bootstrap {}", question.name()),
        }
    }

    /// All figures with their spread over people and prompts.
    pub(super) fn figures(&self) -> Figures {
        let clusters: Vec<Clusters> = self.given.iter().map(|given| given.clusters).collect();
        let spreads = two_way(&clusters, &self.purpose, |weights| self.statistics(weights));
        let mut spreads = spreads.into_iter();
        let mut next = || spreads.next().flatten();
        let of = |comparison| {
            self.given
                .iter()
                .filter(move |g| g.comparison == comparison)
        };
        let is_decided = |given: &&Given| given.left.is_some();
        let comparisons = self.comparisons.iter().enumerate();
        let comparisons = comparisons.map(|(index, variants)| OfComparison {
            variants: *variants,
            share: next(),
            decided: next(),
            ties: next(),
            votes: of(index).count(),
            decided_votes: of(index).filter(is_decided).count(),
        });
        let comparisons = comparisons.collect();
        let left = next();
        let metrics = (0..self.metrics.len()).map(|metric| {
            let votes = self.given.iter().filter(|g| g.predicted[metric].is_some());
            (next(), votes.count())
        });
        let metrics = metrics.collect();
        let (mut strengths, mut tie) = (Vec::new(), None);
        if self.variants > 2 {
            strengths = (0..self.variants).map(|_| next()).collect();
            tie = next();
        }
        Figures {
            comparisons,
            strengths,
            tie,
            left,
            metrics,
            repeat: (self.repeat(), self.repeats.len()),
            alpha: self.alpha(),
            votes: self.given.len(),
            decided_votes: self.given.iter().filter(is_decided).count(),
        }
    }

    /// The figures of weighted answers, in the order in which [`figures`](Self::figures) takes them.
    fn statistics(&self, weights: &[f64]) -> Vec<Option<f64>> {
        // Sum and weight of each figure that is a mean.
        let mut means = vec![(0.0, 0.0); 3 * self.comparisons.len() + 1 + self.metrics.len()];
        let mut counts = Counts::new(self.variants);
        for (given, weight) in self.given.iter().zip(weights).filter(|(_, w)| **w > 0.0) {
            let mut add = |at: usize, value: f64| {
                means[at].0 += value * weight;
                means[at].1 += weight;
            };
            let as_number = |is: bool| f64::from(u8::from(is));
            let at = 3 * given.comparison;
            add(at, given.value);
            add(at + 2, as_number(given.left.is_none()));
            let mut at_end = 3 * self.comparisons.len();
            if let Some(left) = given.left {
                add(at + 1, given.value);
                add(at_end, as_number(left));
            }
            for predicted in &given.predicted {
                at_end += 1;
                if let Some(predicted) = predicted {
                    add(at_end, as_number(*predicted));
                }
            }
            let (first, second) = self.comparisons[given.comparison];
            counts.add(first, second, given.value, *weight);
        }
        let mean = |(sum, weight): (f64, f64)| (weight > 0.0).then(|| sum / weight);
        let mut values: Vec<Option<f64>> = means.into_iter().map(mean).collect();
        if self.variants > 2 {
            match fit(&counts) {
                Some(fit) => {
                    values.extend(fit.strengths.into_iter().map(Some));
                    values.push(Some(fit.tie));
                }
                None => values.extend(vec![None; self.variants + 1]),
            }
        }
        values
    }

    fn repeat(&self) -> Option<Spread> {
        let clusters: Vec<Clusters> = self.repeats.iter().map(|(of, _)| *of).collect();
        let purpose = format!("{} repeats", self.purpose);
        let spreads = two_way(&clusters, &purpose, |weights| {
            let values = self.repeats.iter().map(|(_, equal)| *equal);
            vec![weighted_mean(values.zip(weights.iter().copied()))]
        });
        spreads[0]
    }

    /// Krippendorff's alpha of the answers to each pair. Its interval is over prompts: a person drawn twice
    /// would agree with themselves.
    fn alpha(&self) -> Option<Spread> {
        let mut units: BTreeMap<&str, (usize, Vec<usize>)> = BTreeMap::new();
        for given in &self.given {
            let answer = (2.0 * given.value) as usize;
            let unit = units.entry(&given.pair).or_default();
            unit.0 = given.clusters[1];
            unit.1.push(answer);
        }
        let (prompts, answers): (Vec<usize>, Vec<Vec<usize>>) = units.into_values().unzip();
        let clusters: Vec<Clusters> = prompts.into_iter().map(|of| [of, of]).collect();
        let purpose = format!("{} alpha", self.purpose);
        let spreads = two_way(&clusters, &purpose, |weights| {
            vec![krippendorff(&answers, weights)]
        });
        spreads[0]
    }
}
