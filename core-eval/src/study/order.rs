//! The order of a person's trials: at random, but no two neighbouring trials of one concept.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// An order of trials, given the concept of each, in which no two neighbours share a concept wherever
/// that is possible: it is impossible when one concept has more than half of the trials.
pub(super) fn spaced(concepts: &[usize], generator: &mut impl Rng) -> Vec<usize> {
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (trial, concept) in concepts.iter().enumerate() {
        waiting.entry(*concept).or_default().push(trial);
    }
    waiting.values_mut().for_each(|of| of.shuffle(generator));
    let mut order = Vec::with_capacity(concepts.len());
    let mut last = None;
    for left in (1..=concepts.len()).rev() {
        let others = || {
            waiting
                .iter()
                .filter(|(concept, _)| Some(**concept) != last)
        };
        // A concept with more than half of what is left must come now, or neighbours would be forced.
        let forced = others().find(|(_, of)| 2 * of.len() > left);
        let concept = match forced {
            Some((concept, _)) => Some(*concept),
            None => drawn(
                others().map(|(concept, of)| (*concept, of.len())),
                generator,
            ),
        };
        // Only the last concept is left.
        let Some(concept) = concept.or(last) else {
            break;
        };
        if let Some(of) = waiting.get_mut(&concept) {
            order.extend(of.pop());
            if of.is_empty() {
                waiting.remove(&concept);
            }
        }
        last = Some(concept);
    }
    order
}

/// A concept with a chance in proportion to its trials.
fn drawn(
    concepts: impl Iterator<Item = (usize, usize)> + Clone,
    generator: &mut impl Rng,
) -> Option<usize> {
    let all: usize = concepts.clone().map(|(_, trials)| trials).sum();
    if all == 0 {
        return None;
    }
    let mut at = generator.random_range(0..all);
    for (concept, trials) in concepts {
        if at < trials {
            return Some(concept);
        }
        at -= trials;
    }
    None
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;

    use super::*;

    fn neighbours(concepts: &[usize], order: &[usize]) -> usize {
        let pairs = order.windows(2);
        pairs
            .filter(|of| concepts[of[0]] == concepts[of[1]])
            .count()
    }

    #[test]
    fn neighbours_share_no_concept_whenever_that_is_possible() {
        for index in 0..200 {
            let mut draws = rng(0, "random trials", index);
            let count = draws.random_range(2..60);
            let kinds = draws.random_range(2..5);
            let concepts: Vec<usize> = (0..count).map(|_| draws.random_range(0..kinds)).collect();
            let most = (0..kinds)
                .map(|kind| concepts.iter().filter(|concept| **concept == kind).count())
                .max()
                .unwrap_or(0);
            let order = spaced(&concepts, &mut draws);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "every trial once");
            if most <= count.div_ceil(2) {
                assert_eq!(neighbours(&concepts, &order), 0, "{concepts:?} {order:?}");
            }
        }
    }

    #[test]
    fn one_concept_alone_is_shown_all_the_same() {
        let order = spaced(&[0; 5], &mut rng(0, "order", 0));
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn two_people_see_different_orders() {
        let concepts: Vec<usize> = (0..30).map(|trial| trial % 3).collect();
        let [one, other] = [0, 1].map(|index| spaced(&concepts, &mut rng(0, "order", index)));
        assert_ne!(one, other);
    }
}
