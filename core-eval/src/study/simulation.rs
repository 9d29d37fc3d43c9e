//! Studies with simulated people of known preferences.

use core_model::rng::rng;
use rand::{Rng, RngExt};
use rayon::prelude::*;

use super::answers::{Answers, Figures};
use super::design::{Assigned, Sizes, assign};
use super::exclusions::{PersonRow, people};
use super::intervals::{two_way, wilson};
use super::key::{KeyRow, Kind};
use super::question::Question;
use super::settings::{Exclusions, Settings};
use super::trials::comparisons;
use super::votes::{Answer, Vote, Votes};
use crate::statistics::{Interval, weighted_mean};

const SIMULATIONS: u64 = 100;

/// Logarithms of strengths with mean 0, and the tie parameter.
const STRENGTHS: [f64; 3] = [0.7, 0.0, -0.7];
const TIE: f64 = 0.4;

const PEOPLE: usize = 40;
const PER_PERSON: usize = 40;
const CATCH_TRIALS: usize = 3;

/// Votes at random, and at once.
const CLICKER: usize = 7;
/// Always votes for the left image, after an honest time.
const ALWAYS_LEFT: usize = 23;

fn settings() -> Settings {
    Settings {
        study: "simulated".into(),
        version: 1,
        seed: 0,
        variants: ["one", "two", "three"].map(String::from).to_vec(),
        questions: vec![Question::Identity],
        people: PEOPLE,
        per_person: PER_PERSON,
        trials: PER_PERSON + CATCH_TRIALS + 2,
        catch_trials: CATCH_TRIALS,
        repeats: 2,
        images: String::new(),
        exclusions: Exclusions::default(),
    }
}

fn key(kind: Kind, (first, second): (usize, usize), prompt: usize, image: usize) -> KeyRow {
    let names = settings().variants;
    KeyRow {
        pair: format!("{kind:?} {first} {second} {prompt} {image}"),
        kind,
        first: names[first].clone(),
        second: names[second].clone(),
        concept: format!("concept {}", prompt / 16),
        prompt: format!("prompt {prompt}"),
        seed: 0,
        image,
        first_image: String::new(),
        second_image: String::new(),
    }
}

/// What a good voter sees in a pair of the model of Davidson: 1, 0 or 1/2.
fn seen((first, second): (usize, usize), generator: &mut impl Rng) -> f64 {
    let (p, q) = (STRENGTHS[first].exp(), STRENGTHS[second].exp());
    let tie = TIE * (p * q).sqrt();
    let at = generator.random::<f64>() * (p + q + tie);
    if at < p {
        1.0
    } else if at < p + q {
        0.0
    } else {
        0.5
    }
}

fn answer(value: f64, first_is_left: bool) -> Answer {
    match (value == 0.5, (value > 0.5) == first_is_left) {
        (true, _) => Answer::CannotTell,
        (false, true) => Answer::A,
        (false, false) => Answer::B,
    }
}

/// A vote of one of the three kinds of people, where a good voter would see `value`.
fn vote(
    person: usize,
    key: KeyRow,
    value: f64,
    first_is_left: bool,
    generator: &mut impl Rng,
) -> Vote {
    let honest = 1500.0 + 4000.0 * generator.random::<f64>();
    let (answer, milliseconds) = match person {
        CLICKER => {
            let any = [Answer::A, Answer::B, Answer::CannotTell];
            let fast = 820 + generator.random_range(0..600);
            (any[generator.random_range(0..3)], fast)
        }
        ALWAYS_LEFT => (Answer::A, honest as u64),
        _ => (answer(value, first_is_left), honest as u64),
    };
    Vote {
        person,
        key,
        question: Question::Identity,
        answer,
        first_is_left,
        milliseconds,
        trial: 0,
        repeat_of: None,
    }
}

/// A whole study.
fn simulated(simulation: u64) -> Votes {
    let mut generator = rng(simulation, "simulated people", 0);
    let sizes = Sizes {
        comparisons: 3,
        images: vec![2; 48],
        people: PEOPLE,
        per_person: PER_PERSON,
    };
    let mut votes: Vec<Vote> = Vec::new();
    for of in assign(&sizes, simulation) {
        let Assigned {
            person,
            comparison,
            prompt,
            image,
            first_is_left,
        } = of;
        let variants = comparisons(3)[comparison];
        let value = seen(variants, &mut generator);
        let key = key(Kind::Comparison, variants, prompt, image);
        votes.push(vote(person, key, value, first_is_left, &mut generator));
    }
    for person in 0..PEOPLE {
        for at in 0..CATCH_TRIALS {
            let key = key(Kind::Catch, (0, 1), at, 0);
            let left = generator.random();
            // One catch trial in a hundred is missed by people who look.
            let value = f64::from(u8::from(generator.random::<f64>() < 0.99));
            votes.push(vote(person, key, value, left, &mut generator));
        }
    }
    let mut next = vec![0; PEOPLE];
    for vote in &mut votes {
        next[vote.person] += 1;
        vote.trial = next[vote.person];
    }
    Votes {
        people: (0..PEOPLE)
            .map(|person| format!("person {person}"))
            .collect(),
        votes,
    }
}

fn figures(votes: &Votes, kept: &[bool]) -> Figures {
    let votes = votes.of(kept);
    Answers::new(&votes, Question::Identity, &settings(), &[]).figures()
}

fn covers(interval: Option<Interval>, value: f64) -> bool {
    interval.is_some_and(|interval| (interval.low..=interval.high).contains(&value))
}

/// What came of one simulation.
struct Outcome {
    /// Whether the interval of each strength holds the true one.
    strengths: [bool; 3],
    /// The same for the tie parameter.
    tie: bool,
    /// Whether the two bad voters are left out.
    bad: [bool; 2],
    /// How many others are left out.
    good: usize,
}

fn outcome(simulation: u64) -> Outcome {
    let votes = simulated(simulation);
    let people = people(&votes, &settings());
    let kept: Vec<bool> = people.iter().map(PersonRow::is_kept).collect();
    let figures = figures(&votes, &kept);
    let strength = |at: usize| figures.strengths[at].and_then(|s| s.interval());
    let bad = [CLICKER, ALWAYS_LEFT];
    let good = (0..PEOPLE).filter(|person| !bad.contains(person));
    Outcome {
        strengths: [0, 1, 2].map(|at| covers(strength(at), STRENGTHS[at])),
        tie: covers(figures.tie.and_then(|s| s.interval()), TIE),
        bad: bad.map(|person| !kept[person]),
        good: good.filter(|person| !kept[*person]).count(),
    }
}

#[test]
fn known_strengths_are_recovered_and_bad_voters_left_out() {
    let outcomes: Vec<Outcome> = (0..SIMULATIONS).into_par_iter().map(outcome).collect();
    let count = |test: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| test(o)).count();
    let strengths = [0, 1, 2].map(|at| count(&|outcome| outcome.strengths[at]));
    let together = count(&|outcome| outcome.strengths.iter().all(|covered| *covered));
    let tie = count(&|outcome| outcome.tie);
    let bad = [0, 1].map(|at| count(&|outcome| outcome.bad[at]));
    let good: usize = outcomes.iter().map(|outcome| outcome.good).sum();
    eprintln!(
        "{SIMULATIONS} simulations: intervals hold the true strengths in {strengths:?}, all of them at once in \
         {together}, the tie parameter in {tie}; random clicker left out in {}, always-left in {}; {good} of {} \
         good voters left out",
        bad[0],
        bad[1],
        SIMULATIONS as usize * (PEOPLE - 2),
    );
    assert!(strengths.iter().all(|count| *count >= 90), "{strengths:?}");
    assert!(together >= 90 && tie >= 90, "{together} {tie}");
    assert_eq!(bad, [100, 100]);
}

#[test]
fn intervals_over_people_hold_where_independent_votes_would_be_too_sure() {
    // 30 people with preferences from 0.2 to 1, mean 0.6, each on the same 20 prompts.
    let coverage: Vec<[bool; 2]> = (0..200)
        .into_par_iter()
        .map(|simulation| {
            let mut generator = rng(simulation, "people who differ", 0);
            let (mut clusters, mut values) = (Vec::new(), Vec::new());
            for person in 0..30 {
                let preference = 0.2 + 0.8 * generator.random::<f64>();
                for prompt in 0..20 {
                    clusters.push([person, prompt]);
                    let prefers = generator.random::<f64>() < preference;
                    values.push(f64::from(u8::from(prefers)));
                }
            }
            let spread = two_way(&clusters, "test", |weights| {
                let values = values.iter().copied();
                vec![weighted_mean(values.zip(weights.iter().copied()))]
            })[0];
            let ours = spread.and_then(|s| s.interval_of_share(600, 1.0));
            let simple = spread.map(|s| wilson(s.value, 600.0));
            [covers(ours, 0.6), covers(simple, 0.6)]
        })
        .collect();
    let share = |at: usize| coverage.iter().filter(|of| of[at]).count() as f64 / 200.0;
    let (ours, simple) = (share(0), share(1));
    eprintln!("intervals over people and prompts hold in {ours}, Wilson's in {simple}");
    assert!((0.91..=0.99).contains(&ours), "{ours}");
    assert!(simple < 0.85, "{simple}");
}
