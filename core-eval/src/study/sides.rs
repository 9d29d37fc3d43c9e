//! Which image of a pair is on the left: balanced within one at every level, not merely at random.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;

/// A vote whose sides are to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// The person.
    pub(super) person: usize,
    /// The two variants that are compared.
    pub(super) comparison: usize,
    /// The pair of images.
    pub(super) pair: usize,
}

/// Whether the first variant of each vote is on the left. Left and right differ by one at most for
/// every pair over people, for every comparison, for every person, for every person within a
/// comparison, and over all.
///
/// Two votes that are linked get opposite sides. Each vote has one link within its pair (or, where
/// that is left over, within its comparison) and one within its person, so the links form paths and
/// cycles of even length, along which the sides alternate.
pub(super) fn balanced(shown: &[Shown], generator: &mut impl Rng) -> Vec<bool> {
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.shuffle(generator);
    let by_pair = links(
        &order,
        &[
            &|vote: usize| (shown[vote].comparison, shown[vote].pair + 1),
            &|vote: usize| (shown[vote].comparison, 0),
            &|_| (0, 0),
        ],
    );
    let by_person = links(
        &order,
        &[
            &|vote: usize| (shown[vote].person, shown[vote].comparison + 1),
            &|vote: usize| (shown[vote].person, 0),
        ],
    );
    let mut sides: Vec<Option<bool>> = vec![None; shown.len()];
    let mut toss = [false, true];
    for start in order {
        let mut waiting = Vec::new();
        if sides[start].is_none() {
            toss.shuffle(generator);
            waiting.push((start, toss[0]));
        }
        while let Some((vote, side)) = waiting.pop() {
            if sides[vote].replace(side).is_some() {
                continue;
            }
            for linked in [by_pair[vote], by_person[vote]].into_iter().flatten() {
                if sides[linked].is_none() {
                    waiting.push((linked, !side));
                }
            }
        }
    }
    sides.into_iter().flatten().collect()
}

/// The partner of each vote: within groups of the first level, what is left over within groups of the
/// second, and so on.
fn links(order: &[usize], levels: &[&dyn Fn(usize) -> (usize, usize)]) -> Vec<Option<usize>> {
    let mut partner = vec![None; order.len()];
    let mut open = order.to_vec();
    for group in levels {
        let mut single: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for vote in std::mem::take(&mut open) {
            match single.remove(&group(vote)) {
                Some(other) => {
                    partner[vote] = Some(other);
                    partner[other] = Some(vote);
                }
                None => {
                    single.insert(group(vote), vote);
                }
            }
        }
        open = single.into_values().collect();
    }
    partner
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;
    use rand::RngExt;

    use super::*;

    #[test]
    fn left_and_right_differ_by_one_at_most_at_every_level() {
        for index in 0..40 {
            let mut draws = rng(0, "random votes", index);
            let votes = draws.random_range(1..500);
            let shown: Vec<Shown> = (0..votes)
                .map(|_| {
                    let pair = draws.random_range(0..40);
                    Shown {
                        person: draws.random_range(0..15),
                        comparison: pair % 3,
                        pair,
                    }
                })
                .collect();
            let sides = balanced(&shown, &mut draws);
            let mut sums: BTreeMap<(&str, usize, usize), i64> = BTreeMap::new();
            for (vote, left) in shown.iter().zip(&sides) {
                for level in [
                    ("pair", vote.pair, 0),
                    ("comparison", vote.comparison, 0),
                    ("person", vote.person, 0),
                    ("person and comparison", vote.person, vote.comparison),
                    ("all", 0, 0),
                ] {
                    *sums.entry(level).or_default() += if *left { 1 } else { -1 };
                }
            }
            for (level, sum) in sums {
                assert!(sum.abs() <= 1, "{level:?}: {sum}");
            }
        }
    }

    #[test]
    fn the_first_person_does_not_always_see_the_same_side() {
        let shown = vec![
            Shown {
                person: 0,
                comparison: 0,
                pair: 0
            };
            2
        ];
        let first = (0..20).map(|index| balanced(&shown, &mut rng(0, "sides", index))[0]);
        let left = first.filter(|left| *left).count();
        assert!((3..=17).contains(&left), "{left} of 20");
    }
}
