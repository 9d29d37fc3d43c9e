//! The images, pairs and trials of a study.

use std::path::PathBuf;

use super::material::{Material, Noise};

/// How many pairs a person sees a second time, with the sides swapped.
pub(super) const REPEATS: usize = 2;

/// The sizes of a study and its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How many people vote.
    pub(super) people: usize,
    /// How many pairs of the design each of them compares.
    pub(super) per_person: usize,
    /// For how many of these there is one catch trial.
    pub(super) pairs_per_catch: usize,
    /// The seed of all random choices.
    pub(super) seed: u64,
}

/// Where the pixels of a shown image come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A generated image.
    Generated(PathBuf),
    /// A photo beside the pairs.
    Reference(PathBuf),
    /// A photo in a pair, in the size of a generated image.
    Photo {
        /// The photo.
        file: PathBuf,
        /// The generated image.
        like: PathBuf,
    },
}

/// One side of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    /// The variant, or what else it is.
    pub(super) name: String,
    /// The index of its image.
    pub(super) image: usize,
}

/// Two images about which people are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// A random name.
    pub(super) id: String,
    /// Whether the right answer is known: the first image shows the concept.
    pub(super) is_catch: bool,
    /// The first image.
    pub(super) first: Side,
    /// The second image.
    pub(super) second: Side,
    /// The index of the prompt.
    pub(super) prompt: usize,
    /// The noise of the generated images.
    pub(super) noise: Noise,
}

/// A pair as one person sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    /// The index of the pair.
    pub(super) pair: usize,
    /// Whether the first image is on the left.
    pub(super) first_is_left: bool,
    /// The number of the earlier trial with this pair, counted from 1.
    pub(super) repeat_of: Option<usize>,
}

/// All that is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Names and origins of images.
    pub(super) images: Vec<(String, Origin)>,
    /// For each concept the images of photos beside its pairs.
    pub(super) references: Vec<Vec<usize>>,
    /// The pairs.
    pub(super) pairs: Vec<Pair>,
    /// What everybody sees first; no votes are kept of it.
    pub(super) practice: Vec<Trial>,
    /// The trials of each person.
    pub(super) people: Vec<Vec<Trial>>,
}

impl Plan {
    /// The concept of a pair.
    pub(super) fn concept(&self, material: &Material, trial: Trial) -> usize {
        material.prompts[self.pairs[trial.pair].prompt].concept
    }
}

/// All pairs of two variants, in their order.
pub(super) fn comparisons(variants: usize) -> Vec<(usize, usize)> {
    let of = |first| (first + 1..variants).map(move |second| (first, second));
    (0..variants).flat_map(of).collect()
}

/// How many catch trials belong to this many pairs.
pub(super) fn catch_count(pairs: usize, pairs_per_catch: usize) -> usize {
    pairs.div_ceil(pairs_per_catch)
}

/// Whether there are catch trials.
pub(super) fn has_catch_trials(plan: &Plan) -> bool {
    plan.pairs.iter().any(|pair| pair.is_catch)
}

/// How many neighbouring trials share their concept, over all people.
pub(super) fn neighbours(plan: &Plan, material: &Material) -> usize {
    let of_person = |trials: &Vec<Trial>| {
        let concept = |trial: Trial| plan.concept(material, trial);
        let pairs = trials.windows(2);
        pairs
            .filter(|two| concept(two[0]) == concept(two[1]))
            .count()
    };
    plan.people.iter().map(of_person).sum()
}
