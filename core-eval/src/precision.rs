//! How many concepts, prompts and images an interval of a wanted width takes, estimated from the
//! scores of an experiment that was made.

use anyhow::{Result, bail};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::report::ScoreRow;

/// The two-sided level of the intervals.
const LEVEL: f64 = 0.95;

/// More than this many concepts or prompts are not thought about.
const MOST: usize = 100_000;

/// Where the spread of scores comes from: variances, estimated by the moments of the nested design
/// of images in prompts in concepts. Seeds count as images.
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
    /// Prompts of a concept, on average.
    pub prompt_count: usize,
    /// Images of a prompt, on average.
    pub image_count: usize,
}

/// One concept: a row a prompt, a column an image.
type Values = Vec<Vec<f64>>;

/// The scores of a variant, or with a baseline their differences to its, image by image.
///
/// # Errors
/// No such variant or no scores of this metric; fewer than two prompts or images, of which no spread
/// can be told.
pub fn spread(
    rows: &[ScoreRow],
    metric: &str,
    variant: &str,
    baseline: Option<&str>,
) -> Result<Spread> {
    let mut concepts = values(rows, metric, variant);
    if concepts.is_empty() {
        bail!("no {metric} of variant `{variant}`");
    }
    if let Some(baseline) = baseline {
        let baselines = values(rows, metric, baseline);
        let count = concepts.len();
        for ((key, ours), (other, theirs)) in concepts.iter_mut().zip(&baselines) {
            let same = key == other
                && count == baselines.len()
                && ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(a, b)| a.len() == b.len());
            if !same {
                bail!("`{variant}` and `{baseline}` have no images of the same prompts");
            }
            for (a, b) in ours.iter_mut().flatten().zip(theirs.iter().flatten()) {
                *a -= b;
            }
        }
    }
    let concepts: Vec<Values> = concepts.into_iter().map(|(_, values)| values).collect();
    let prompts = concepts.iter().map(Vec::len).sum::<usize>();
    let images = concepts.iter().flatten().map(Vec::len).sum::<usize>();
    let (prompt_count, image_count) = (prompts / concepts.len(), images / prompts);
    if prompt_count < 2 || image_count < 2 {
        bail!(
            "{prompt_count} prompt(s) of {image_count} image(s) tell nothing of their spread; draw \
             two or more of each"
        );
    }
    let within_prompts = mean(
        concepts
            .iter()
            .flatten()
            .filter_map(|images| variance(images)),
    );
    let means: Vec<Vec<f64>> = concepts
        .iter()
        .map(|prompts| {
            prompts
                .iter()
                .map(|images| mean(images.iter().copied()))
                .collect()
        })
        .collect();
    let of_prompts = mean(means.iter().filter_map(|means| variance(means)));
    let of_concepts: Vec<f64> = means
        .iter()
        .map(|means| mean(means.iter().copied()))
        .collect();
    Ok(Spread {
        images: within_prompts,
        prompts: (of_prompts - within_prompts / image_count as f64).max(0.0),
        concepts: variance(&of_concepts)
            .map_or(0.0, |all| (all - of_prompts / prompt_count as f64).max(0.0)),
        concept_count: concepts.len(),
        prompt_count,
        image_count,
    })
}

/// Things by name, in the order of their first appearance.
type Named<T> = Vec<(String, T)>;

fn values(rows: &[ScoreRow], metric: &str, variant: &str) -> Named<Values> {
    let mut concepts: Named<Named<Vec<f64>>> = Vec::new();
    for row in rows.iter().filter(|row| row.variant == variant) {
        let Some(value) = row.metric(metric) else {
            continue;
        };
        let prompts = entry(&mut concepts, &row.concept);
        entry(prompts, &row.prompt).push(value);
    }
    concepts
        .into_iter()
        .map(|(concept, prompts)| (concept, prompts.into_iter().map(|(_, v)| v).collect()))
        .collect()
}

fn entry<'a, T: Default>(list: &'a mut Named<T>, key: &str) -> &'a mut T {
    let at = list.iter().position(|(other, _)| other == key);
    let at = at.unwrap_or_else(|| {
        list.push((key.to_string(), T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), v| (sum + v, count + 1));
    sum / f64::from(count.max(1))
}

fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values.iter().copied());
    let squares = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>();
    (values.len() > 1).then(|| squares / (values.len() - 1) as f64)
}

impl Spread {
    /// The variance of the mean of one concept's prompts around the concept's true mean.
    fn of_concept(&self, prompts: usize, images: usize) -> f64 {
        (self.prompts + self.images / images as f64) / prompts as f64
    }

    /// The width of the 95 % interval that speaks of these concepts alone.
    pub fn width_of_these(&self, concepts: usize, prompts: usize, images: usize) -> f64 {
        let variance = self.of_concept(prompts, images) / concepts as f64;
        width(variance, concepts * prompts.saturating_sub(1))
    }

    /// The width of the 95 % interval that speaks of concepts like these.
    pub fn width_of_all(&self, concepts: usize, prompts: usize, images: usize) -> f64 {
        let variance = (self.concepts + self.of_concept(prompts, images)) / concepts as f64;
        width(variance, concepts.saturating_sub(1))
    }

    /// The fewest concepts for an interval of this width about concepts like these, with prompts and
    /// images as in the experiment; `None` when no number within reason does.
    pub fn concepts_for(&self, wanted: f64) -> Option<usize> {
        let (prompts, images) = (self.prompt_count, self.image_count);
        fewest(|concepts| self.width_of_all(concepts, prompts, images) <= wanted)
    }

    /// The fewest prompts for each of these concepts for an interval of this width about them.
    pub fn prompts_for(&self, wanted: f64) -> Option<usize> {
        let (concepts, images) = (self.concept_count, self.image_count);
        fewest(|prompts| self.width_of_these(concepts, prompts, images) <= wanted)
    }

    /// The fewest images for each prompt for the same.
    pub fn images_for(&self, wanted: f64) -> Option<usize> {
        let (concepts, prompts) = (self.concept_count, self.prompt_count);
        fewest(|images| self.width_of_these(concepts, prompts, images) <= wanted)
    }
}

fn width(variance: f64, freedom: usize) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom as f64) {
        Ok(student) => 2.0 * student.inverse_cdf((1.0 + LEVEL) / 2.0) * variance.sqrt(),
        Err(_) => f64::INFINITY,
    }
}

/// The smallest number that is enough, by halving: more is never worse.
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
    use statrs::distribution::Normal;

    use super::*;

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
                        seed: 0,
                        group: String::new(),
                        kind: String::new(),
                        prompt: prompt.to_string(),
                        image: image.to_string(),
                        clip_t: Some(value),
                        clip_i: None,
                        dino: None,
                    });
                }
            }
        }
        rows
    }

    #[test]
    fn the_spread_of_each_level_is_found_again() {
        let rows = simulated([400, 10, 4], [0.3, 0.2, 0.1]);
        let spread = spread(&rows, "clip_t", "v", None).expect("a spread");
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

    #[test]
    fn the_numbers_found_are_the_fewest_that_do() {
        let spread = Spread {
            concepts: 0.01,
            prompts: 0.04,
            images: 0.02,
            concept_count: 3,
            prompt_count: 10,
            image_count: 2,
        };
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
    fn paired_differences_have_the_spread_of_differences() {
        let mut rows = simulated([3, 5, 2], [1.0, 1.0, 1.0]);
        for row in rows.clone() {
            rows.push(ScoreRow {
                variant: "w".into(),
                clip_t: row.clip_t.map(|value| value + 0.5),
                ..row
            });
        }
        let spread = spread(&rows, "clip_t", "w", Some("v")).expect("a spread");
        assert!(spread.concepts + spread.prompts + spread.images < 1e-20);
        assert!(super::spread(&rows, "dino", "w", None).is_err());
    }
}
