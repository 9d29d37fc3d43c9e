//! Which comparisons of which images each person sees: a balanced incomplete block design.

use core_model::rng::rng;
use rand::Rng;
use rand::seq::SliceRandom;

use super::coloring::{Edge, equitable};
use super::exchanges::separate;
use super::sides::{Shown, balanced};

/// The sizes of a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizes {
    /// How many comparisons of two variants there are.
    pub(super) comparisons: usize,
    /// For each concept and prompt, how many images of one noise there are per variant.
    pub(super) images: Vec<usize>,
    /// How many people vote.
    pub(super) people: usize,
    /// How many pairs each of them compares.
    pub(super) per_person: usize,
}

impl Sizes {
    /// How many different pairs of images there are.
    pub(super) fn pairs(&self) -> usize {
        self.comparisons * self.images.iter().sum::<usize>()
    }
}

/// One pair shown to one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The person.
    pub(super) person: usize,
    /// The comparison.
    pub(super) comparison: usize,
    /// The concept and prompt, as an index into [`Sizes::images`].
    pub(super) prompt: usize,
    /// Which of its images.
    pub(super) image: usize,
    /// Whether the first variant of the comparison is on the left.
    pub(super) first_is_left: bool,
}

/// The pairs of all people. Within one each: every comparison is shown equally often, over all and to
/// each person; so is every prompt; so is every prompt in every comparison over all; so is every image
/// of a prompt in a comparison. Sides are balanced as the module `sides` says. Nobody sees a pair twice as
/// long as exchanges between people can prevent it.
pub(super) fn assign(sizes: &Sizes, seed: u64) -> Vec<Assigned> {
    let mut generator = rng(seed, "study design", 0);
    let mut edges = crossed(sizes, &mut generator);
    edges.shuffle(&mut generator);
    let people = equitable(&edges, sizes.people);
    let mut blocks = vec![Vec::new(); sizes.people];
    for (edge, person) in edges.into_iter().zip(people) {
        blocks[person].push(edge);
    }
    separate(&mut blocks, &sizes.images, &mut generator);
    let mut assigned = with_images(&blocks, sizes, &mut generator);
    let offsets: Vec<usize> = sizes
        .images
        .iter()
        .scan(0, |sum, images| Some(std::mem::replace(sum, *sum + images)))
        .collect();
    let all: usize = sizes.images.iter().sum();
    let shown: Vec<Shown> = assigned
        .iter()
        .map(|vote| Shown {
            person: vote.person,
            comparison: vote.comparison,
            pair: vote.comparison * all + offsets[vote.prompt] + vote.image,
        })
        .collect();
    let sides = balanced(&shown, &mut generator);
    for (vote, first_is_left) in assigned.iter_mut().zip(sides) {
        vote.first_is_left = first_is_left;
    }
    assigned
}

/// How many times somebody sees a pair that they saw already.
pub(super) fn twice(assigned: &[Assigned]) -> usize {
    let mut all: Vec<_> = assigned
        .iter()
        .map(|vote| (vote.person, vote.comparison, vote.prompt, vote.image))
        .collect();
    all.sort_unstable();
    all.windows(2).filter(|two| two[0] == two[1]).count()
}

/// As many pairs of comparison and prompt as there are votes. Both are counted round by round; one of
/// them is shifted whenever both counts come back together, so that every pair occurs equally often.
fn crossed(sizes: &Sizes, generator: &mut impl Rng) -> Vec<Edge> {
    let (comparisons, prompts) = (sizes.comparisons, sizes.images.len());
    let shuffled = |count: usize, generator: &mut _| {
        let mut names: Vec<usize> = (0..count).collect();
        names.shuffle(generator);
        names
    };
    let (of_comparison, of_prompt) = (
        shuffled(comparisons, generator),
        shuffled(prompts, generator),
    );
    let period = comparisons * prompts / greatest_common_divisor(comparisons, prompts);
    (0..sizes.people * sizes.per_person)
        .map(|vote| {
            let shift = vote / period;
            (
                of_comparison[(vote + shift) % comparisons],
                of_prompt[vote % prompts],
            )
        })
        .collect()
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// Chooses images: those of a prompt in a comparison take turns in a random order, person by person,
/// so that one person sees different ones.
fn with_images(blocks: &[Vec<Edge>], sizes: &Sizes, generator: &mut impl Rng) -> Vec<Assigned> {
    let mut people: Vec<usize> = (0..blocks.len()).collect();
    people.shuffle(generator);
    let prompts = sizes.images.len();
    let mut turns: Vec<(Vec<usize>, usize)> = (0..sizes.comparisons * prompts)
        .map(|of| {
            let mut order: Vec<usize> = (0..sizes.images[of % prompts]).collect();
            order.shuffle(generator);
            (order, 0)
        })
        .collect();
    let mut assigned = Vec::new();
    for person in people {
        for (comparison, prompt) in &blocks[person] {
            let (order, turn) = &mut turns[comparison * prompts + prompt];
            assigned.push(Assigned {
                person,
                comparison: *comparison,
                prompt: *prompt,
                image: order[*turn % order.len()],
                first_is_left: false,
            });
            *turn += 1;
        }
    }
    assigned.sort_by_key(|vote| vote.person);
    assigned
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sizes(
        comparisons: usize,
        prompts: usize,
        images: usize,
        people: usize,
        per: usize,
    ) -> Sizes {
        Sizes {
            comparisons,
            images: vec![images; prompts],
            people,
            per_person: per,
        }
    }

    /// The most frequent minus the least frequent of `possible` values.
    fn spread<K: Ord>(values: impl Iterator<Item = K>, possible: usize) -> usize {
        let mut counts: BTreeMap<K, usize> = BTreeMap::new();
        values.for_each(|value| *counts.entry(value).or_default() += 1);
        let most = counts.values().max().copied().unwrap_or(0);
        let least = match counts.len() == possible {
            true => counts.values().min().copied().unwrap_or(0),
            false => 0,
        };
        most - least
    }

    const CASES: [(usize, usize, usize, usize, usize); 8] = [
        (1, 48, 2, 20, 40),
        (3, 48, 2, 20, 40),
        (3, 48, 2, 40, 40),
        (6, 32, 1, 10, 33),
        (21, 48, 2, 20, 40),
        (4, 6, 1, 7, 20),
        (2, 3, 4, 5, 9),
        (10, 10, 1, 30, 25),
    ];

    #[test]
    fn every_comparison_and_every_prompt_is_shown_equally_often() {
        for (comparisons, prompts, images, people, per) in CASES {
            let sizes = sizes(comparisons, prompts, images, people, per);
            let votes = assign(&sizes, 7);
            assert_eq!(votes.len(), people * per);
            let all = || votes.iter();
            assert!(spread(all().map(|v| v.comparison), comparisons) <= 1);
            assert!(spread(all().map(|v| v.prompt), prompts) <= 1);
            let cells = comparisons * prompts;
            assert!(spread(all().map(|v| (v.comparison, v.prompt)), cells) <= 1);
            for prompt in 0..prompts {
                for comparison in 0..comparisons {
                    let of = all().filter(|v| (v.comparison, v.prompt) == (comparison, prompt));
                    assert!(spread(of.map(|v| v.image), images) <= 1);
                }
            }
            for person in 0..people {
                let of = || votes.iter().filter(move |v| v.person == person);
                assert_eq!(of().count(), per);
                assert!(spread(of().map(|v| v.comparison), comparisons) <= 1);
                assert!(spread(of().map(|v| v.prompt), prompts) <= 1);
            }
        }
    }

    #[test]
    fn sides_are_balanced_within_one_for_every_pair_and_person() {
        for (comparisons, prompts, images, people, per) in CASES {
            let votes = assign(&sizes(comparisons, prompts, images, people, per), 3);
            let mut sums: BTreeMap<[usize; 4], i64> = BTreeMap::new();
            for vote in &votes {
                let side = if vote.first_is_left { 1 } else { -1 };
                let pair = [0, vote.comparison, vote.prompt, vote.image];
                for level in [
                    pair,
                    [1, vote.comparison, 0, 0],
                    [2, vote.person, 0, 0],
                    [3, vote.person, vote.comparison, 0],
                ] {
                    *sums.entry(level).or_default() += side;
                }
            }
            assert!(sums.values().all(|sum| sum.abs() <= 1), "{sums:?}");
        }
    }

    #[test]
    fn nobody_sees_a_pair_twice() {
        for (comparisons, prompts, images, people, per) in CASES {
            for seed in 0..5 {
                let votes = assign(&sizes(comparisons, prompts, images, people, per), seed);
                assert_eq!(twice(&votes), 0, "{comparisons} {prompts} {images} {seed}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_study_and_another_seed_another() {
        let sizes = sizes(3, 16, 2, 10, 20);
        assert_eq!(assign(&sizes, 1), assign(&sizes, 1));
        assert_ne!(assign(&sizes, 1), assign(&sizes, 2));
    }
}
