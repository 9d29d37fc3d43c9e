//! How many concepts, prompts and images an interval of a wanted width needs, estimated from the scores
//! of a finished experiment.

use anyhow::{Result, ensure};
use indexmap::IndexMap;

use crate::metrics::Metric;
use crate::report::{Grouped, ScoreRow, grouped};
use crate::statistics::{ENOUGH_CONCEPTS, half_width, mean, variance};

/// Upper limit of the search, in concepts, prompts or images.
const MOST: usize = 100_000;

/// The variance of scores by its source, estimated by the method of moments for images nested in prompts
/// nested in concepts. Seeds count as images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Between the true means of concepts.
    pub concepts: f64,
    /// Between the true means of a concept's prompts.
    pub prompts: f64,
    /// Between images of a prompt.
    pub images: f64,
    /// Concepts in the experiment.
    pub concept_count: usize,
    /// Prompts per concept, on average.
    pub prompt_count: usize,
    /// Images per prompt, on average.
    pub image_count: usize,
}

/// The spread of a variant's scores or, with a baseline, of their differences to the baseline's, image
/// by image.
///
/// # Errors
/// No such variant or no scores of this metric; fewer than two prompts or images, which have no spread.
pub fn spread(
    rows: &[ScoreRow],
    metric: Metric,
    variant: &str,
    baseline: Option<&str>,
) -> Result<Spread> {
    let concepts = values(rows, metric, variant, baseline)?;
    let prompts = concepts.iter().map(Vec::len).sum::<usize>();
    let images = concepts.iter().flatten().map(Vec::len).sum::<usize>();
    let (prompt_count, image_count) = (prompts / concepts.len(), images / prompts);
    ensure!(
        prompt_count > 1 && image_count > 1,
        "{prompt_count} prompts of {image_count} images have no spread; draw two or more of each"
    );
    let mean_variance = |groups: &[Vec<f64>]| {
        mean(groups.iter().filter_map(|group| variance(group))).unwrap_or_default()
    };
    let means = |groups: &[Vec<f64>]| -> Vec<f64> {
        let groups = groups.iter();
        groups.filter_map(|of| mean(of.iter().copied())).collect()
    };
    let within_prompts = mean_variance(&concepts.concat());
    let of_prompts: Vec<Vec<f64>> = concepts.iter().map(|prompts| means(prompts)).collect();
    let between_prompts = mean_variance(&of_prompts);
    let between_concepts = variance(&means(&of_prompts));
    Ok(Spread {
        images: within_prompts,
        prompts: (between_prompts - within_prompts / image_count as f64).max(0.0),
        concepts: between_concepts.map_or(0.0, |all| {
            (all - between_prompts / prompt_count as f64).max(0.0)
        }),
        concept_count: concepts.len(),
        prompt_count,
        image_count,
    })
}

/// Per concept and prompt the values of images.
fn values(
    rows: &[ScoreRow],
    metric: Metric,
    variant: &str,
    baseline: Option<&str>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let mut ours = grouped(rows, variant, metric);
    ensure!(
        !ours.is_empty(),
        "no {} of variant `{variant}`",
        metric.title()
    );
    if let Some(baseline) = baseline {
        let theirs = grouped(rows, baseline, metric);
        ensure!(
            places(&ours) == places(&theirs),
            "`{variant}` and `{baseline}` have no images of the same prompts"
        );
        let ours = ours.values_mut().flat_map(IndexMap::values_mut);
        let theirs = theirs.values().flat_map(IndexMap::values);
        for (ours, theirs) in ours.zip(theirs) {
            let ours = ours.values_mut().flatten();
            for (a, b) in ours.zip(theirs.values().flatten()) {
                *a -= b;
            }
        }
    }
    let images = |seeds: IndexMap<u64, Vec<f64>>| seeds.into_values().flatten().collect();
    let prompts = ours.into_values();
    Ok(prompts
        .map(|prompts| prompts.into_values().map(images).collect())
        .collect())
}

/// How many images each concept, prompt and seed has.
fn places<'a>(scores: &Grouped<'a>) -> Vec<(&'a str, &'a str, u64, usize)> {
    let concepts = scores.iter();
    concepts
        .flat_map(|(concept, prompts)| {
            prompts.iter().flat_map(move |(prompt, seeds)| {
                let seeds = seeds.iter();
                seeds.map(move |(seed, images)| (*concept, *prompt, *seed, images.len()))
            })
        })
        .collect()
}

impl Spread {
    /// The variance of the mean of one concept's prompts around the concept's true mean.
    fn of_concept(&self, prompts: usize, images: usize) -> f64 {
        (self.prompts + self.images / images as f64) / prompts as f64
    }

    /// The width of the 95 % interval for these concepts alone.
    pub fn width_of_these(&self, concepts: usize, prompts: usize, images: usize) -> f64 {
        let variance = self.of_concept(prompts, images) / concepts as f64;
        2.0 * half_width(variance, concepts * prompts.saturating_sub(1))
    }

    /// The width of the 95 % interval for all concepts of this kind.
    pub fn width_of_all(&self, concepts: usize, prompts: usize, images: usize) -> f64 {
        let variance = (self.concepts + self.of_concept(prompts, images)) / concepts as f64;
        2.0 * half_width(variance, concepts.saturating_sub(1))
    }

    /// The width of the 95 % interval that an experiment of these sizes has: with enough concepts they are
    /// resampled, so that it is for all concepts of this kind, else for these alone.
    pub fn width_at(&self, [concepts, prompts, images]: [usize; 3]) -> f64 {
        match concepts >= ENOUGH_CONCEPTS {
            true => self.width_of_all(concepts, prompts, images),
            false => self.width_of_these(concepts, prompts, images),
        }
    }

    /// The fewest concepts for an interval of this width for all concepts of this kind, with the prompts
    /// and images of the experiment; `None` when no number within the limit is enough.
    pub fn concepts_for(&self, wanted: f64) -> Option<usize> {
        let (prompts, images) = (self.prompt_count, self.image_count);
        fewest(|concepts| self.width_of_all(concepts, prompts, images) <= wanted)
    }

    /// The fewest prompts per concept for an interval of this width for these concepts.
    pub fn prompts_for(&self, wanted: f64) -> Option<usize> {
        let (concepts, images) = (self.concept_count, self.image_count);
        fewest(|prompts| self.width_of_these(concepts, prompts, images) <= wanted)
    }

    /// The fewest images per prompt for the same.
    pub fn images_for(&self, wanted: f64) -> Option<usize> {
        let (concepts, prompts) = (self.concept_count, self.prompt_count);
        fewest(|images| self.width_of_these(concepts, prompts, images) <= wanted)
    }
}

/// The smallest number that is enough, by bisection: more is never worse.
fn fewest(enough: impl Fn(usize) -> bool) -> Option<usize> {
    if !enough(MOST) {
        return None;
    }
    let (mut low, mut high) = (0, MOST);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;
    use rand::RngExt;
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::*;

    const MEASURED: Metric = Metric::ALL[0];

    /// Scores with known variances between concepts, prompts and images.
    fn simulated(sizes: [usize; 3], spreads: [f64; 3]) -> Vec<ScoreRow> {
        let normal = Normal::standard();
        let mut generator = rng(1, "precision", 0);
        let mut draw =
            |spread: f64| spread * normal.inverse_cdf(generator.random_range(1e-9..1.0 - 1e-9));
        let mut rows = Vec::new();
        for concept in 0..sizes[0] {
            let of_concept = draw(spreads[0]);
            for prompt in 0..sizes[1] {
                let of_prompt = draw(spreads[1]);
                for image in 0..sizes[2] {
                    let value = of_concept + of_prompt + draw(spreads[2]);
                    rows.push(ScoreRow {
                        variant: "v".into(),
                        concept: concept.to_string(),
                        prompt: prompt.to_string(),
                        image: image.to_string(),
                        scores: [(MEASURED, Some(value))].into_iter().collect(),
                        ..ScoreRow::default()
                    });
                }
            }
        }
        rows
    }

    #[test]
    fn the_spread_of_each_level_is_found_again() {
        let rows = simulated([400, 10, 4], [0.3, 0.2, 0.1]);
        let spread = spread(&rows, MEASURED, "v", None).expect("a spread");
        assert!((spread.concepts - 0.09).abs() < 0.015, "{spread:?}");
        assert!((spread.prompts - 0.04).abs() < 0.003, "{spread:?}");
        assert!((spread.images - 0.01).abs() < 0.0005, "{spread:?}");
        let counts = (
            spread.concept_count,
            spread.prompt_count,
            spread.image_count,
        );
        assert_eq!(counts, (400, 10, 4));
    }

    /// Of three concepts with ten prompts and two images each.
    const OF_THREE: Spread = Spread {
        concepts: 0.01,
        prompts: 0.04,
        images: 0.02,
        concept_count: 3,
        prompt_count: 10,
        image_count: 2,
    };

    #[test]
    fn the_numbers_found_are_the_fewest_that_do() {
        let spread = OF_THREE;
        let count = spread.concepts_for(0.1).expect("a number");
        assert!(spread.width_of_all(count, 10, 2) <= 0.1);
        assert!(spread.width_of_all(count - 1, 10, 2) > 0.1);
        // 2 t sqrt(.015 / n) <= .1 with t near 1.99 gives n near 24.
        assert!((23..=27).contains(&count), "{count}");
        let prompts = spread.prompts_for(0.1).expect("a number");
        assert!(spread.width_of_these(3, prompts, 2) <= 0.1);
        assert!(spread.width_of_these(3, prompts - 1, 2) > 0.1);
        assert_eq!(
            spread.images_for(0.1),
            None,
            "the prompts' own spread stays"
        );
    }

    #[test]
    fn an_experiment_with_enough_concepts_speaks_of_all_and_one_with_few_of_its_own() {
        let spread = OF_THREE;
        // 24 concepts of 16 prompts and 4 images: t(.975, 23) = 2.0687, variance (.01 + .045 / 16) / 24.
        let width = spread.width_at([24, 16, 4]);
        assert!(
            (width - 2.0 * 2.068_66 * (0.012_812_5_f64 / 24.0).sqrt()).abs() < 1e-5,
            "{width}"
        );
        // 3 concepts: t(.975, 45) = 2.0141, variance .045 / 48.
        let width = spread.width_at([3, 16, 4]);
        assert!(
            (width - 2.0 * 2.014_10 * (0.045_f64 / 48.0).sqrt()).abs() < 1e-5,
            "{width}"
        );
    }

    #[test]
    fn paired_differences_have_the_spread_of_differences() {
        let mut rows = simulated([3, 5, 2], [1.0, 1.0, 1.0]);
        for row in rows.clone() {
            rows.push(ScoreRow {
                variant: "w".into(),
                scores: [(MEASURED, row.scores[MEASURED].map(|value| value + 0.5))]
                    .into_iter()
                    .collect(),
                ..row
            });
        }
        let spread = spread(&rows, MEASURED, "w", Some("v")).expect("a spread");
        assert!(spread.concepts + spread.prompts + spread.images < 1e-20);
        assert!(super::spread(&rows, Metric::ALL[1], "w", None).is_err());
    }
}
