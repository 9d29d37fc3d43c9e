//! Plans a study: pairs of the design, catch trials, repetitions and practice for every person.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use core_model::rng::rng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::catch_places::CatchPlaces;
use super::design::{Assigned, Sizes, assign, twice};
use super::material::{Material, Noise};
use super::order::spaced;
use super::trials::{Origin, Pair, Plan, REPEATS, Side, Trial, Wanted, catch_count, comparisons};

/// How many photos of a concept are shown beside a pair.
const REFERENCES: usize = 3;

/// How many trials come before those that count.
const PRACTICE: usize = 3;

/// How far apart a pair and its repetition are, in trials, where there are enough.
const REPEAT_DISTANCE: usize = 10;

/// How often an order is drawn in search of one in which repetitions are far apart.
const ORDERS: u64 = 200;

/// Plans a study.
///
/// # Errors
/// More pairs per person than there are, absent images.
pub(super) fn plan(material: &Material, wanted: Wanted) -> Result<Plan> {
    let comparisons = comparisons(material.variants.len());
    let sizes = Sizes {
        comparisons: comparisons.len(),
        images: material
            .prompts
            .iter()
            .map(|prompt| prompt.images.len())
            .collect(),
        people: wanted.people,
        per_person: wanted.per_person,
    };
    ensure!(
        wanted.per_person <= sizes.pairs(),
        "--per-person is {}, and there are {} pairs of images ({} comparisons of two variants, {} \
         images of each variant); choose at most as many",
        wanted.per_person,
        sizes.pairs(),
        sizes.comparisons,
        sizes.pairs() / sizes.comparisons
    );
    let assigned = assign(&sizes, wanted.seed);
    ensure!(
        twice(&assigned) == 0,
        "with --per-person {} somebody would see one pair twice; choose fewer, or another --seed",
        wanted.per_person
    );
    let mut planner = Planner {
        material,
        wanted,
        comparisons,
        plan: Plan::default(),
        known_images: BTreeMap::new(),
        known_pairs: BTreeMap::new(),
    };
    planner.add_references();
    planner.add_people(&assigned)?;
    planner.add_practice(&assigned)?;
    Ok(planner.plan)
}

/// A comparison of two images of one prompt.
type Shown = (usize, usize, Noise);

struct Planner<'a> {
    material: &'a Material,
    wanted: Wanted,
    comparisons: Vec<(usize, usize)>,
    plan: Plan,
    known_images: BTreeMap<Origin, usize>,
    known_pairs: BTreeMap<Shown, usize>,
}

impl Planner<'_> {
    fn image(&mut self, origin: Origin) -> usize {
        let plan = &mut self.plan;
        *self.known_images.entry(origin.clone()).or_insert_with(|| {
            let index = plan.images.len();
            let name = random_name(self.wanted.seed, "study image", index);
            plan.images.push((name, origin));
            index
        })
    }

    fn add_references(&mut self) {
        for concept in &self.material.concepts {
            let photos = concept.photos.iter().take(REFERENCES);
            let images = photos.map(|photo| self.image(Origin::Reference(photo.clone())));
            let images = images.collect();
            self.plan.references.push(images);
        }
    }

    fn push(&mut self, is_catch: bool, sides: [Side; 2], prompt: usize, noise: Noise) -> usize {
        let index = self.plan.pairs.len();
        let [first, second] = sides;
        self.plan.pairs.push(Pair {
            id: random_name(self.wanted.seed, "study pair", index),
            is_catch,
            first,
            second,
            prompt,
            noise,
        });
        index
    }

    /// The pair of two variants on one noise.
    fn pair(&mut self, shown: Shown) -> Result<usize> {
        if let Some(known) = self.known_pairs.get(&shown) {
            return Ok(*known);
        }
        let (comparison, prompt, noise) = shown;
        let (first, second) = self.comparisons[comparison];
        let material = self.material;
        let mut side = |variant: usize| -> Result<Side> {
            let name = material.variants[variant].clone();
            let file = material.file(&name, &material.prompts[prompt], noise)?;
            let image = self.image(Origin::Generated(file.to_path_buf()));
            Ok(Side { name, image })
        };
        let sides = [side(first)?, side(second)?];
        let index = self.push(false, sides, prompt, noise);
        self.known_pairs.insert(shown, index);
        Ok(index)
    }

    fn shown(&self, vote: &Assigned) -> Shown {
        let noise = self.material.prompts[vote.prompt].images[vote.image];
        (vote.comparison, vote.prompt, noise)
    }

    fn add_people(&mut self, assigned: &[Assigned]) -> Result<()> {
        let mut catches = CatchPlaces::new(self.material, self.wanted.seed);
        for person in 0..self.wanted.people {
            let mut generator = rng(self.wanted.seed, "study trials", person as u64);
            let mut trials = Vec::new();
            for vote in assigned.iter().filter(|vote| vote.person == person) {
                trials.push(Trial {
                    pair: self.pair(self.shown(vote))?,
                    first_is_left: vote.first_is_left,
                    repeat_of: None,
                });
            }
            self.repeat(&mut trials, &mut generator);
            let mut first_is_left = generator.random();
            for _ in 0..catch_count(self.wanted.per_person, self.wanted.pairs_per_catch) {
                let concept = self.rarest(&trials, &mut generator);
                let Some(place) = catches.as_mut().map(|of| of.next(concept)) else {
                    break;
                };
                let pair = self.catch_pair(place, &mut generator)?;
                trials.push(Trial {
                    pair,
                    first_is_left,
                    repeat_of: None,
                });
                first_is_left = !first_is_left;
            }
            let ordered = self.ordered(&trials, person);
            self.plan.people.push(ordered);
        }
        Ok(())
    }

    /// Adds some of the trials a second time, of the rarest concepts where possible.
    fn repeat(&self, trials: &mut Vec<Trial>, generator: &mut impl Rng) {
        let mut again = trials.clone();
        again.shuffle(generator);
        for _ in 0..REPEATS.min(again.len()) {
            let concept = self.rarest(trials, generator);
            let is_rare = |trial: &Trial| self.plan.concept(self.material, *trial) == concept;
            let trial = again.remove(again.iter().position(is_rare).unwrap_or(0));
            trials.push(trial);
        }
    }

    /// The concept with the fewest trials, so that one has more than half of them as seldom as possible:
    /// then some would be neighbours.
    fn rarest(&self, trials: &[Trial], generator: &mut impl Rng) -> usize {
        let mut concepts: Vec<usize> = (0..self.material.concepts.len()).collect();
        concepts.shuffle(generator);
        let of = |trial: &Trial| self.plan.concept(self.material, *trial);
        let count = |concept: &usize| trials.iter().filter(|trial| of(trial) == *concept).count();
        concepts.into_iter().min_by_key(count).unwrap_or(0)
    }

    /// The trials in an order without neighbours of one concept, with repetitions as far apart as some
    /// of many random orders has them.
    fn ordered(&self, trials: &[Trial], person: usize) -> Vec<Trial> {
        let concepts: Vec<usize> = trials
            .iter()
            .map(|trial| self.plan.concept(self.material, *trial))
            .collect();
        let wanted = REPEAT_DISTANCE.min(trials.len() / 3);
        let mut best: (usize, Vec<Trial>) = (0, trials.to_vec());
        for attempt in 0..ORDERS {
            let index = person as u64 * ORDERS + attempt;
            let mut generator = rng(self.wanted.seed, "study order", index);
            let order = spaced(&concepts, &mut generator);
            let mut ordered: Vec<Trial> = order.into_iter().map(|index| trials[index]).collect();
            let distance = mark_repeats(&mut ordered, trials);
            if attempt == 0 || distance > best.0 {
                best = (distance, ordered);
            }
            if best.0 >= wanted {
                break;
            }
        }
        best.1
    }

    /// A photo against an image that does not show the concept: one of the base model, or else a photo
    /// of another concept.
    fn catch_pair(
        &mut self,
        (prompt, noise): (usize, Noise),
        generator: &mut impl Rng,
    ) -> Result<usize> {
        let material = self.material;
        let concept = material.prompts[prompt].concept;
        let photo = {
            let photos = &material.concepts[concept].photos;
            let beyond = photos.get(REFERENCES..).filter(|others| !others.is_empty());
            let photos = beyond.unwrap_or(photos);
            photos[generator.random_range(0..photos.len())].clone()
        };
        let like = material.file(&material.variants[0], &material.prompts[prompt], noise)?;
        let (name, wrong) = match &material.untuned {
            Some(untuned) => {
                let file = material.file(untuned, &material.prompts[prompt], noise)?;
                (untuned.clone(), Origin::Generated(file.to_path_buf()))
            }
            None => {
                let other = (concept + 1) % material.concepts.len();
                let other = &material.concepts[other];
                let file = other.photos[0].clone();
                let like = like.to_path_buf();
                (
                    format!("photo of {}", other.name),
                    Origin::Photo { file, like },
                )
            }
        };
        let right = Origin::Photo {
            file: photo,
            like: like.to_path_buf(),
        };
        let first = Side {
            name: "photo".into(),
            image: self.image(right),
        };
        let second = Side {
            name,
            image: self.image(wrong),
        };
        Ok(self.push(true, [first, second], prompt, noise))
    }

    /// Pairs that nobody votes on, or else any, of different concepts where there are some.
    fn add_practice(&mut self, assigned: &[Assigned]) -> Result<()> {
        let used: BTreeSet<Shown> = assigned.iter().map(|vote| self.shown(vote)).collect();
        let mut all: Vec<Shown> = Vec::new();
        for (prompt, of) in self.material.prompts.iter().enumerate() {
            let comparisons = 0..self.comparisons.len();
            all.extend(comparisons.flat_map(|c| of.images.iter().map(move |n| (c, prompt, *n))));
        }
        let mut generator = rng(self.wanted.seed, "study practice", 0);
        all.shuffle(&mut generator);
        all.sort_by_key(|shown| used.contains(shown));
        let mut chosen: Vec<Shown> = Vec::new();
        while chosen.len() < PRACTICE && !all.is_empty() {
            let concept = |shown: &Shown| self.material.prompts[shown.1].concept;
            let last = chosen.last().map(concept);
            let other = all.iter().position(|shown| Some(concept(shown)) != last);
            chosen.push(all.remove(other.unwrap_or(0)));
        }
        for shown in chosen {
            let trial = Trial {
                pair: self.pair(shown)?,
                first_is_left: generator.random(),
                repeat_of: None,
            };
            self.plan.practice.push(trial);
        }
        Ok(())
    }
}

/// Marks the second trial of each pair that occurs twice, and returns the smallest distance. The first
/// trial has the side that the design gave, which comes first in `designed`.
fn mark_repeats(trials: &mut [Trial], designed: &[Trial]) -> usize {
    let mut smallest = trials.len();
    for at in 0..trials.len() {
        let pair = trials[at].pair;
        let Some(earlier) = trials[..at].iter().position(|trial| trial.pair == pair) else {
            continue;
        };
        let design = designed.iter().find(|trial| trial.pair == pair);
        let first_is_left = design.is_some_and(|trial| trial.first_is_left);
        trials[earlier].first_is_left = first_is_left;
        trials[at].first_is_left = !first_is_left;
        trials[at].repeat_of = Some(earlier + 1);
        smallest = smallest.min(at - earlier);
    }
    smallest
}

/// A name that says nothing: 16 hexadecimal digits.
fn random_name(seed: u64, purpose: &str, index: usize) -> String {
    format!("{:016x}", rng(seed, purpose, index as u64).random::<u64>())
}
