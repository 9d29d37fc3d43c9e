//! Intervals of shares: Wilson's for independent votes, and one for votes that people and prompts share.

use core_model::rng::rng;
use rand::RngExt;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::statistics::{Interval, half_width, variance};

/// The number of resamples of each kind.
const RESAMPLES: u64 = 1000;

/// The share of resamples in which a statistic must exist.
const EXISTS: f64 = 0.95;

/// Wilson's 95 % interval of a share of so many independent votes.
pub fn wilson(share: f64, votes: f64) -> Interval {
    wilson_at(share, votes, Normal::standard().inverse_cdf(0.975))
}

/// The same with another quantile than that of the normal distribution.
fn wilson_at(share: f64, votes: f64, quantile: f64) -> Interval {
    let square = quantile * quantile / votes;
    let centre = (share + square / 2.0) / (1.0 + square);
    let spread = (share * (1.0 - share) / votes + square / (4.0 * votes)).sqrt();
    let half = quantile * spread / (1.0 + square);
    Interval {
        mean: share,
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
    }
}

/// A statistic of votes, and how much it varies over people and prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Its value.
    pub value: f64,
    /// Its variance; none where too few resamples have a value.
    pub variance: Option<f64>,
    /// The degrees of freedom: one less than there are people, or prompts if these are fewer.
    pub freedom: usize,
}

impl Spread {
    /// Student's 95 % interval.
    pub fn interval(&self) -> Option<Interval> {
        let half = half_width(self.variance?, self.freedom);
        half.is_finite().then_some(Interval {
            mean: self.value,
            low: self.value - half,
            high: self.value + half,
        })
    }

    /// The 95 % interval of a share of so many votes: Wilson's, with as many independent votes as have the
    /// same variance (Franco et al. 2019, "Comparative Study of Confidence Intervals for Proportions in
    /// Complex Sample Surveys"). A share of 0 or 1 shows no variance; `planned` is by how much votes then
    /// count less.
    pub fn interval_of_share(&self, votes: usize, planned: f64) -> Option<Interval> {
        let independent = self.value * (1.0 - self.value);
        let votes = match self.variance? {
            variance if variance > 0.0 && independent > 1e-9 => independent / variance,
            _ => votes as f64 / planned,
        };
        let quantile = half_width(1.0, self.freedom);
        quantile
            .is_finite()
            .then(|| wilson_at(self.value, votes, quantile))
    }
}

/// Who gave a vote, and about which prompt.
pub type Clusters = [usize; 2];

/// Statistics of votes with their variance over people and prompts. `statistics` takes a weight for each
/// vote and returns as many values every time, none where one does not exist.
///
/// Three bootstraps resample people, prompts and single votes. The variance is the sum of the first two
/// less the third, which both of them contain (Cameron, Gelbach and Miller 2011, "Robust Inference With
/// Multiway Clustering"), and at least the largest of the three. Resampling people and prompts at once
/// instead would count the chance in single votes three times (Owen 2007, "The pigeonhole bootstrap").
pub fn two_way(
    votes: &[Clusters],
    purpose: &str,
    statistics: impl Fn(&[f64]) -> Vec<Option<f64>>,
) -> Vec<Option<Spread>> {
    let values = statistics(&vec![1.0; votes.len()]);
    let levels = [
        votes.iter().map(|[person, _]| *person).collect::<Vec<_>>(),
        votes.iter().map(|[_, prompt]| *prompt).collect(),
        (0..votes.len()).collect(),
    ];
    let freedom = levels
        .iter()
        .map(|of| distinct(of).len())
        .min()
        .unwrap_or(0);
    let variances = levels.map(|of| variances(&of, values.len(), purpose, &statistics));
    let spread = |(index, value): (usize, Option<f64>)| {
        let [people, prompts, single] = [0, 1, 2].map(|level| variances[level][index]);
        let variance = match (people, prompts, single) {
            (Some(people), Some(prompts), Some(single)) => Some(
                (people + prompts - single)
                    .max(people)
                    .max(prompts)
                    .max(single),
            ),
            _ => None,
        };
        Some(Spread {
            value: value?,
            variance,
            freedom: freedom.saturating_sub(1),
        })
    };
    values.into_iter().enumerate().map(spread).collect()
}

fn distinct(clusters: &[usize]) -> Vec<usize> {
    let mut distinct = clusters.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// The variance of each statistic when clusters are resampled; none when it does not exist in too many
/// resamples.
fn variances(
    clusters: &[usize],
    count: usize,
    purpose: &str,
    statistics: impl Fn(&[f64]) -> Vec<Option<f64>>,
) -> Vec<Option<f64>> {
    let distinct = distinct(clusters);
    let place = |cluster| distinct.binary_search(cluster).unwrap_or(0);
    let places: Vec<usize> = clusters.iter().map(place).collect();
    let mut values = vec![Vec::new(); count];
    for resample in 0..RESAMPLES {
        let mut generator = rng(0, purpose, resample);
        let mut drawn = vec![0.0; distinct.len()];
        for _ in 0..distinct.len() {
            drawn[generator.random_range(0..distinct.len())] += 1.0;
        }
        let weights: Vec<f64> = places.iter().map(|place| drawn[*place]).collect();
        for (values, value) in values.iter_mut().zip(statistics(&weights)) {
            values.extend(value);
        }
    }
    let of = |values: Vec<f64>| {
        let enough = values.len() as f64 >= EXISTS * RESAMPLES as f64;
        variance(&values).filter(|_| enough)
    };
    values.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::weighted_mean;

    #[test]
    fn wilson_intervals_are_those_of_the_textbook() {
        // 200 votes; the shares that the CoRe paper reports.
        for (share, low, high) in [(0.647, 0.579, 0.710), (0.857, 0.802, 0.899)] {
            let interval = wilson(share, 200.0);
            assert!((interval.low - low).abs() < 5e-4, "{interval:?}");
            assert!((interval.high - high).abs() < 5e-4, "{interval:?}");
        }
        assert_eq!(wilson(0.0, 10.0).low, 0.0);
        // 10 of 10: 1 / (1 + z^2 / 10) = 0.7225.
        assert!((wilson(1.0, 10.0).low - 0.7225).abs() < 1e-4);
    }

    fn mean_of(values: &[f64]) -> impl Fn(&[f64]) -> Vec<Option<f64>> {
        |weights| {
            let pairs = values.iter().copied().zip(weights.iter().copied());
            vec![weighted_mean(pairs)]
        }
    }

    #[test]
    fn independent_votes_have_the_variance_of_a_share() {
        // 40 people and 25 prompts, one vote on each, half of them 1: 0.25 / 1000.
        let votes: Vec<Clusters> = (0..1000).map(|vote| [vote / 25, vote % 25]).collect();
        let values: Vec<f64> = (0..1000)
            .map(|vote| f64::from(u8::from(rng(0, "a coin", vote).random::<bool>())))
            .collect();
        let spread = two_way(&votes, "test", mean_of(&values))[0].expect("a mean");
        let variance = spread.variance.expect("a variance");
        assert!((0.6..1.9).contains(&(variance / 2.5e-4)), "{variance}");
        assert_eq!(spread.freedom, 24);
    }

    #[test]
    fn votes_that_only_people_or_only_prompts_decide_vary_as_these_do() {
        // 40 people of whom half always say 1: variance 0.25 / 40; the same for prompts.
        let votes: Vec<Clusters> = (0..1600).map(|vote| [vote / 40, vote % 40]).collect();
        for level in [0, 1] {
            let values: Vec<f64> = votes.iter().map(|of| (of[level] % 2) as f64).collect();
            let spread = two_way(&votes, "test", mean_of(&values))[0].expect("a mean");
            let variance = spread.variance.expect("a variance");
            assert!((0.85..1.15).contains(&(variance / 0.00625)), "{variance}");
            let interval = spread.interval_of_share(1600, 1.0).expect("an interval");
            assert!((0.32..0.36).contains(&interval.low), "{interval:?}");
        }
    }

    #[test]
    fn a_share_of_one_has_an_interval_all_the_same() {
        let votes: Vec<Clusters> = (0..100).map(|vote| [vote / 10, vote % 10]).collect();
        let spread = two_way(&votes, "test", mean_of(&[1.0; 100]))[0].expect("a mean");
        let interval = spread.interval_of_share(100, 1.9).expect("an interval");
        assert_eq!(interval.high, 1.0);
        assert!(interval.low < wilson(1.0, 100.0).low, "{interval:?}");
    }

    #[test]
    fn one_person_says_nothing_about_people() {
        let spread = two_way(&[[0, 0], [0, 1]], "test", mean_of(&[0.0, 1.0]))[0];
        assert_eq!(spread.expect("a mean").interval_of_share(2, 1.0), None);
    }
}
