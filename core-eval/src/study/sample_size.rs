//! How many votes and people a study needs to tell a preference from a coin toss.

use statrs::distribution::{ContinuousCDF, Normal};

/// The shares for which `study make` says what they need: two that the CoRe paper reports, and two small ones.
const SHARES: [f64; 4] = [0.55, 0.6, 0.647, 0.857];

/// The chance to find a preference that is there.
const POWER: f64 = 0.8;

/// The two-sided level of the test.
const LEVEL: f64 = 0.05;

/// How alike the votes of one person are, as a correlation, where nothing is known yet.
const WITHIN_PERSON: f64 = 0.1;

/// The number of votes per person in the table of the documentation.
const USUAL_VOTES: usize = 20;

/// The number of independent votes with which a test against one half finds a true share with a power
/// of 80 %: ((z(0.975) / 2 + z(0.8) sqrt(p (1 - p))) / (p - 1/2))^2.
pub fn votes_needed(share: f64) -> usize {
    let quantile = |at: f64| Normal::standard().inverse_cdf(at);
    let spread = (share * (1.0 - share)).sqrt();
    let distance = quantile(1.0 - LEVEL / 2.0) / 2.0 + quantile(POWER) * spread;
    (distance / (share - 0.5)).powi(2).ceil() as usize
}

/// By how much votes of one person count less than as many votes of different people.
pub fn design_effect(votes_per_person: f64) -> f64 {
    1.0 + (votes_per_person - 1.0).max(0.0) * WITHIN_PERSON
}

/// The number of people who give so many votes each on a comparison.
pub fn people_needed(share: f64, votes_per_person: f64) -> usize {
    let votes = votes_needed(share) as f64 * design_effect(votes_per_person);
    (votes / votes_per_person).ceil() as usize
}

/// The table for a study, in which each person gives so many votes on each comparison.
pub fn table(votes_per_person: f64) -> String {
    let mut text = format!(
        "Votes on one comparison of two variants that find a true preference with a power of 80 % (two-sided, \
         5 %).\nVotes of one person are alike (correlation {WITHIN_PERSON}), so {USUAL_VOTES} votes each multiply \
         the number by {:.1}, the {votes_per_person:.1} of this\nstudy by {:.1}.\n\n\
         | true share | independent votes | people with {USUAL_VOTES} votes each | people in this study's design |\n\
         |---|---|---|---|\n",
        design_effect(USUAL_VOTES as f64),
        design_effect(votes_per_person),
    );
    for share in SHARES {
        text += &format!(
            "| {share} | {} | {} | {} |\n",
            votes_needed(share),
            people_needed(share, USUAL_VOTES as f64),
            people_needed(share, votes_per_person)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_normal_approximation_by_hand() {
        // (0.98 + 0.8416 * 0.4899) / 0.1 = 13.923, squared 193.86.
        assert_eq!(SHARES.map(votes_needed), [783, 194, 89, 13]);
    }

    #[test]
    fn twenty_votes_of_one_person_count_as_seven_of_different_people() {
        assert!((design_effect(20.0) - 2.9).abs() < 1e-12);
        assert_eq!(
            SHARES.map(|share| people_needed(share, 20.0)),
            [114, 29, 13, 2]
        );
        assert!((design_effect(0.5) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_table_shows_them() {
        let table = table(40.0 / 3.0);
        assert!(table.contains("| 0.647 | 89 | 13 |"), "{table}");
        assert!(table.contains("| 0.55 | 783 | 114 |"), "{table}");
    }
}
