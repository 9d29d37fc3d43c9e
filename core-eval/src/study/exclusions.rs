//! How each person voted, and whose votes are left out by the rules of `study.toml`.

use serde::Serialize;

use super::question::Question;
use super::settings::{Exclusions, Settings};
use super::votes::{Answer, Vote, Votes};

/// A row of `people.csv`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PersonRow {
    /// The code of the person.
    pub person: String,
    /// How many answers there are.
    pub votes: usize,
    /// Whether there are as many as the study has.
    pub finished: bool,
    /// The share of catch trials in which the photo was recognised.
    pub catch_right: Option<f64>,
    /// The median time of an answer, in seconds.
    pub median_seconds: f64,
    /// The larger of the shares of A and of B among answers other than "cannot tell".
    pub one_side: Option<f64>,
    /// The rules by which the votes are left out, separated by spaces.
    pub excluded_by: String,
}

impl PersonRow {
    /// Whether the votes count.
    pub fn is_kept(&self) -> bool {
        self.excluded_by.is_empty()
    }
}

/// The rules by name.
pub(super) const RULES: [&str; 3] = ["catch_trials", "time", "one_side"];

/// One row per person.
pub(super) fn people(votes: &Votes, settings: &Settings) -> Vec<PersonRow> {
    let names = votes.people.iter().enumerate();
    let row = |(index, name): (usize, &String)| {
        let of: Vec<&Vote> = votes
            .votes
            .iter()
            .filter(|vote| vote.person == index)
            .collect();
        person(name, &of, settings)
    };
    names.map(row).collect()
}

fn person(name: &str, votes: &[&Vote], settings: &Settings) -> PersonRow {
    let known = votes
        .iter()
        .filter(|vote| vote.is_catch() && vote.question == Question::Identity);
    let catch_right = share(known.map(|vote| vote.value() == 1.0));
    let decided = votes
        .iter()
        .filter(|vote| vote.answer != Answer::CannotTell);
    let left = share(decided.map(|vote| vote.answer == Answer::A));
    let one_side = left.map(|left| left.max(1.0 - left));
    let median_seconds = median(votes.iter().map(|vote| vote.milliseconds)) / 1000.0;
    let Exclusions {
        catch_right_at_least,
        median_seconds_at_least,
        one_side_at_most,
    } = settings.exclusions;
    let broken = [
        catch_right.is_some_and(|share| share < catch_right_at_least),
        median_seconds < median_seconds_at_least,
        one_side.is_some_and(|share| share > one_side_at_most),
    ];
    let rules = RULES.into_iter().zip(broken);
    let rules: Vec<&str> = rules
        .filter(|(_, broken)| *broken)
        .map(|(rule, _)| rule)
        .collect();
    PersonRow {
        person: name.to_string(),
        votes: votes.len(),
        finished: votes.len() == settings.votes_per_person(),
        catch_right,
        median_seconds,
        one_side,
        excluded_by: rules.join(" "),
    }
}

fn share(values: impl Iterator<Item = bool>) -> Option<f64> {
    crate::statistics::mean(values.map(|value| f64::from(u8::from(value))))
}

fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let (low, high) = ((values.len().max(1) - 1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => (*low as f64 + *high as f64) / 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median([3, 1, 2].into_iter()), 2.0);
        assert_eq!(median([4, 1, 2, 3].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
