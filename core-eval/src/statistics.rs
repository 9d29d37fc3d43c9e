//! Intervals: the bootstrap over concepts or prompts, and Student's t.

use std::collections::HashMap;

use core_model::rng::rng;
use rand::RngExt;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// The number of resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// With at least this many concepts, concepts are resampled.
pub const ENOUGH_CONCEPTS: usize = 8;

/// The two-sided level of all intervals.
const LEVEL: f64 = 0.95;

/// The values of one concept: one row per prompt and one column per seed; all rows have the same seeds.
pub type ConceptValues = Vec<Vec<f64>>;

/// A mean with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The mean; `None` without values.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    weighted_mean(values.into_iter().map(|value| (value, 1.0)))
}

/// The weighted mean; `None` without values.
pub fn weighted_mean(values: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let (sum, weights) = values
        .into_iter()
        .fold((0.0, 0.0), |(sum, all), (value, weight)| {
            (sum + value * weight, all + weight)
        });
    (weights > 0.0).then(|| sum / weights)
}

/// The unbiased variance; `None` for fewer than two values.
pub fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values.iter().copied())?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| squares / (values.len() as f64 - 1.0))
}

/// Half of the width of Student's 95 % interval of a mean with this variance, which was estimated with
/// `freedom` degrees of freedom; infinite without any.
pub fn half_width(variance: f64, freedom: usize) -> f64 {
    student(freedom).map_or(f64::INFINITY, |student| student * variance.sqrt())
}

/// Student's quantile at the upper end of the interval.
fn student(freedom: usize) -> Option<f64> {
    let student = StudentsT::new(0.0, 1.0, freedom as f64).ok()?;
    Some(student.inverse_cdf((1.0 + LEVEL) / 2.0))
}

fn of_concept(concept: &ConceptValues) -> f64 {
    let prompts = concept.iter();
    mean(prompts.filter_map(|seeds| mean(seeds.iter().copied()))).unwrap_or_default()
}

/// The bootstrap of weighted means over concepts. Equal weights give the macro mean.
///
/// The ends of its intervals are expanded percentiles (Hesterberg 2015, "What Teachers Should Know About the
/// Bootstrap", section 5.3): plain percentiles of few values are too narrow, so the tails are chosen such
/// that the interval of a mean is as wide as Student's.
///
/// With [`ENOUGH_CONCEPTS`] or more concepts, concepts are resampled after seeds were averaged. With fewer,
/// the concepts are fixed, and seeds and prompts are resampled within each; a seed is drawn for all prompts
/// at once, since they share one training run. The same purpose and shape give the same resamples, so
/// that variants are compared on equal ones; they are drawn once.
#[derive(Debug)]
pub struct Bootstrap {
    purpose: String,
    resamples: usize,
    known: HashMap<Shape, Resamples>,
}

impl Bootstrap {
    /// One that has drawn nothing yet.
    pub fn new(purpose: impl Into<String>) -> Self {
        Self::with_resamples(purpose, RESAMPLES)
    }

    /// The same with another number of resamples, for simulations that need many intervals.
    pub fn with_resamples(purpose: impl Into<String>, resamples: usize) -> Self {
        Self {
            purpose: purpose.into(),
            resamples,
            known: HashMap::new(),
        }
    }

    /// The weighted mean over concepts with its interval.
    pub fn interval(&mut self, concepts: &[ConceptValues], weights: &[f64]) -> Interval {
        let draw = |shape: &Shape| Resamples::new(shape.clone(), &self.purpose, self.resamples);
        let known = self.known.entry(Shape::of(concepts));
        known.or_insert_with_key(draw).interval(concepts, weights)
    }
}

/// The number of prompts and of seeds of each concept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape(Vec<[usize; 2]>);

impl Shape {
    fn of(concepts: &[ConceptValues]) -> Self {
        let of_concept = |concept: &ConceptValues| {
            let seeds = concept.first().map_or(0, Vec::len);
            [concept.len(), seeds]
        };
        Self(concepts.iter().map(of_concept).collect())
    }

    fn has_enough_concepts(&self) -> bool {
        self.0.len() >= ENOUGH_CONCEPTS
    }

    /// Of how many things each number of a resample chooses one: for every concept one of all concepts;
    /// or for each of its seeds one of them, then for each of its prompts.
    fn choices(&self) -> Vec<usize> {
        let concepts = self.0.len();
        if self.has_enough_concepts() {
            return vec![concepts; concepts];
        }
        let sizes = self.0.iter().flat_map(|[prompts, seeds]| [seeds, prompts]);
        sizes.flat_map(|size| vec![*size; *size]).collect()
    }
}

/// What a bootstrap has drawn for values of one shape.
#[derive(Debug)]
struct Resamples {
    shape: Shape,
    count: usize,
    /// The numbers of all resamples, one after the other.
    numbers: Vec<u32>,
}

impl Resamples {
    fn new(shape: Shape, purpose: &str, count: usize) -> Self {
        let mut generator = rng(0, purpose, 0);
        let choices = shape.choices();
        let of_resample = |_| choices.iter().copied();
        let numbers = (0..count).flat_map(of_resample);
        let numbers = numbers.map(|choices| generator.random_range(0..choices) as u32);
        Self {
            numbers: numbers.collect(),
            shape,
            count,
        }
    }

    /// The weighted mean over concepts, whose shape is this one, with its interval.
    fn interval(&self, concepts: &[ConceptValues], weights: &[f64]) -> Interval {
        let whole: Vec<(f64, f64)> = concepts
            .iter()
            .zip(weights)
            .map(|(concept, weight)| (of_concept(concept), *weight))
            .collect();
        let resample = |mut numbers: &[u32]| {
            if self.shape.has_enough_concepts() {
                return weighted_mean(numbers.iter().map(|concept| whole[*concept as usize]));
            }
            weighted_mean(concepts.iter().zip(weights).map(|(prompts, weight)| {
                let seeds = prompts.first().map_or(0, Vec::len);
                let (of_concept, rest) = numbers.split_at(seeds + prompts.len());
                numbers = rest;
                let (seeds, chosen) = of_concept.split_at(seeds);
                (of_concept_resampled(prompts, seeds, chosen), *weight)
            }))
        };
        let size = self.numbers.len() / self.count.max(1);
        let mut means: Vec<f64> = (0..self.count)
            .map(|index| resample(&self.numbers[index * size..][..size]).unwrap_or_default())
            .collect();
        let tail = if self.shape.has_enough_concepts() {
            expanded_tail(concepts.len(), concepts.len() - 1)
        } else {
            let prompts = concepts.iter().map(Vec::len);
            let freedom = prompts.clone().map(|count| count.saturating_sub(1)).sum();
            expanded_tail(prompts.min().unwrap_or(0), freedom)
        };
        Interval {
            mean: weighted_mean(whole).unwrap_or_default(),
            low: quantile(&mut means, tail),
            high: quantile(&mut means, 1.0 - tail),
        }
    }
}

/// The share of resamples beyond each end of the interval, when `size` values are resampled with `freedom`
/// degrees of freedom in total.
fn expanded_tail(size: usize, freedom: usize) -> f64 {
    match student(freedom) {
        Some(student) if size > 1 => {
            let shrunk = (size as f64 / (size - 1) as f64).sqrt();
            Normal::standard().cdf(-shrunk * student)
        }
        _ => (1.0 - LEVEL) / 2.0,
    }
}

/// The mean over the chosen prompts of their means over the chosen seeds.
fn of_concept_resampled(prompts: &ConceptValues, seeds: &[u32], chosen: &[u32]) -> f64 {
    let resampled = chosen.iter().filter_map(|prompt| {
        let prompt = &prompts[*prompt as usize];
        match seeds {
            [seed] => Some(prompt[*seed as usize]),
            seeds => mean(seeds.iter().map(|seed| prompt[*seed as usize])),
        }
    });
    mean(resampled).unwrap_or_default()
}

/// The quantile of values, interpolated linearly between neighbours; the values change places.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    let at = share * (values.len() - 1) as f64;
    let below = at.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let low = *low;
    let next = above.iter().copied().min_by(f64::total_cmp);
    let high = next.filter(|_| at > below as f64).unwrap_or(low);
    low + (high - low) * (at - below as f64)
}

/// Mean and Student's 95 % interval of independent values; infinite for fewer than two.
pub fn t_interval(values: &[f64]) -> Interval {
    let mean = mean(values.iter().copied()).unwrap_or_default();
    let half = variance(values).map_or(f64::INFINITY, |variance| {
        half_width(variance / values.len() as f64, values.len() - 1)
    });
    Interval {
        mean,
        low: mean - half,
        high: mean + half,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With equal weights.
    fn bootstrap(concepts: &[ConceptValues], purpose: &str) -> Interval {
        Bootstrap::new(purpose).interval(concepts, &vec![1.0; concepts.len()])
    }

    #[test]
    fn the_t_interval_is_the_textbook_one() {
        // 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653.
        let interval = t_interval(&[1.0, 2.0, 3.0]);
        assert!((interval.mean - 2.0).abs() < 1e-12);
        assert!((interval.high - 2.0 - 4.302_653 / 3.0_f64.sqrt()).abs() < 1e-5);
        assert!((interval.low + interval.high - 4.0).abs() < 1e-12);
    }

    #[test]
    fn one_value_says_nothing_about_its_spread() {
        assert_eq!(t_interval(&[1.0]).high, f64::INFINITY);
    }

    #[test]
    fn the_mean_is_macro_over_concepts_whatever_their_prompts() {
        let concepts = vec![vec![vec![1.0]], vec![vec![3.0]; 10]];
        assert!((bootstrap(&concepts, "test").mean - 2.0).abs() < 1e-12);
    }

    #[test]
    fn equal_values_have_an_interval_of_no_width() {
        let interval = bootstrap(&vec![vec![vec![0.5, 0.5]; 4]; 3], "test");
        assert_eq!((interval.low, interval.high), (0.5, 0.5));
    }

    #[test]
    fn few_concepts_are_fixed_and_their_prompts_resampled() {
        // Concepts differ, prompts within them do not: nothing is left to vary.
        let concepts = vec![vec![vec![0.0]; 4], vec![vec![1.0]; 4]];
        let interval = bootstrap(&concepts, "test");
        assert_eq!((interval.low, interval.high), (0.5, 0.5));
    }

    #[test]
    fn a_seed_is_resampled_for_all_prompts_at_once() {
        // Only seeds differ: one of 0, 0.5 and 1 with chances 1/4, 1/2, 1/4 whatever the prompts.
        let concepts = vec![vec![vec![0.0, 1.0]; 50]];
        let interval = bootstrap(&concepts, "test");
        assert_eq!(
            (interval.low, interval.mean, interval.high),
            (0.0, 0.5, 1.0)
        );
    }

    #[test]
    fn the_bootstrap_of_a_mean_is_as_wide_as_theory_says() {
        // 100 prompts, half 0 and half 1: standard error 0.05, so 0.5 -+ 1.96 * 0.05.
        let prompts: Vec<_> = (0..100).map(|i| vec![f64::from(i % 2)]).collect();
        let interval = bootstrap(&[prompts], "test");
        assert!((interval.low - 0.402).abs() < 0.011, "{interval:?}");
        assert!((interval.high - 0.598).abs() < 0.011, "{interval:?}");
    }

    #[test]
    fn many_concepts_are_resampled_themselves() {
        let concepts: Vec<_> = (0..8).map(|i| vec![vec![f64::from(i % 2)]; 4]).collect();
        let interval = bootstrap(&concepts, "test");
        assert!(interval.low < 0.3 && interval.high > 0.7, "{interval:?}");
    }

    #[test]
    fn a_heavier_concept_counts_more() {
        let concepts = [vec![vec![0.0]], vec![vec![1.0]]];
        let interval = Bootstrap::new("test").interval(&concepts, &[1.0, 3.0]);
        assert!((interval.mean - 0.75).abs() < 1e-12);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let quantile = |share| super::quantile(&mut [2.0, 0.0, 1.0], share);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(quantile), [0.0, 0.5, 1.0, 2.0]);
    }
}
