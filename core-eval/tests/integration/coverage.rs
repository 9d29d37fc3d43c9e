//! Whether 95 % intervals hold the truth 95 times in 100: simulated experiments whose true mean is 0.

use core_eval::statistics::Bootstrap;
use core_model::rng::rng;
use rand::RngExt;
use statrs::distribution::{ContinuousCDF, Normal};

/// Simulated experiments; the standard error of a coverage is .006.
const EXPERIMENTS: usize = 1500;

/// Resamples of each interval.
const RESAMPLES: usize = 1000;

/// How many of what an experiment has.
struct Sizes {
    concepts: usize,
    prompts: usize,
    seeds: usize,
}

/// The share of experiments whose interval holds the truth. Values are the sum of a concept's own
/// mean and of its training's luck, which have these standard deviations, and of noise.
fn coverage(sizes: &Sizes, concept_spread: f64, seed_spread: f64) -> f64 {
    let Sizes {
        concepts,
        prompts,
        seeds,
    } = *sizes;
    let normal = Normal::standard();
    let index = concepts * 100 + prompts * 10 + seeds;
    let mut generator = rng(5, "coverage", index as u64);
    let mut draw =
        |spread: f64| spread * normal.inverse_cdf(generator.random_range(1e-9..1.0 - 1e-9));
    let mut held = 0;
    for experiment in 0..EXPERIMENTS {
        let mut values = Vec::new();
        for _ in 0..concepts {
            let level = draw(concept_spread);
            let luck: Vec<f64> = (0..seeds).map(|_| draw(seed_spread)).collect();
            let prompt = |_| luck.iter().map(|luck| level + luck + draw(1.0)).collect();
            values.push((0..prompts).map(prompt).collect());
        }
        let weights = vec![1.0; concepts];
        let mut bootstrap = Bootstrap::with_resamples(experiment.to_string(), RESAMPLES);
        let interval = bootstrap.interval(&values, &weights);
        held += usize::from(interval.low <= 0.0 && 0.0 <= interval.high);
    }
    held as f64 / EXPERIMENTS as f64
}

#[test]
fn intervals_hold_the_truth_95_times_in_100() {
    let fixed = Sizes {
        concepts: 3,
        prompts: 10,
        seeds: 1,
    };
    let over_prompts = coverage(&fixed, 0.0, 0.0);
    assert!((over_prompts - 0.95).abs() < 0.018, "{over_prompts}");
    let many = Sizes {
        concepts: 8,
        prompts: 4,
        seeds: 1,
    };
    let over_concepts = coverage(&many, 1.0, 0.0);
    assert!((over_concepts - 0.95).abs() < 0.018, "{over_concepts}");
    // With few seeds and prompts they may be wider, but no narrower.
    let few_seeds = coverage(&Sizes { seeds: 3, ..fixed }, 0.0, 0.3);
    assert!(few_seeds > 0.92, "{few_seeds}");
}
