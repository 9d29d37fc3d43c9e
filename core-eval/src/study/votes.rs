//! The votes of people, as the page saves them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::key::{Key, KeyRow, Kind};
use super::question::Question;
use super::settings::Settings;
use crate::rows::read_rows;

/// The columns of a file of votes.
pub const COLUMNS: &str = "study,person,trial,pair,question,left,right,answer,milliseconds,catch,\
                           repeat_of,viewport,time";

/// What a person answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The left image.
    A,
    /// The right image.
    B,
    /// Neither.
    #[serde(rename = "cannot_tell")]
    CannotTell,
}

/// A row of a file of votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoteRow {
    /// The study.
    pub study: String,
    /// The random code of the person, or the one that a panel gave.
    pub person: String,
    /// The number of the trial, counted from 1.
    pub trial: usize,
    /// The pair.
    pub pair: String,
    /// The question.
    pub question: Question,
    /// The random name of the left image.
    pub left: String,
    /// The random name of the right image.
    pub right: String,
    /// The answer.
    pub answer: Answer,
    /// The time from the moment the pair was shown.
    pub milliseconds: u64,
    /// Whether the right answer is known.
    pub catch: bool,
    /// The earlier trial with this pair.
    pub repeat_of: Option<usize>,
    /// The size of the window, as `1280x720`.
    pub viewport: String,
    /// When the answer was given.
    pub time: String,
}

/// A vote with what the key says of its pair.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vote {
    /// The index of the person.
    pub(super) person: usize,
    /// The row of the key.
    pub(super) key: KeyRow,
    /// The question.
    pub(super) question: Question,
    /// The answer.
    pub(super) answer: Answer,
    /// Whether the first image of the key was on the left.
    pub(super) first_is_left: bool,
    /// The time for it.
    pub(super) milliseconds: u64,
    /// The number of the trial.
    pub(super) trial: usize,
    /// The earlier trial with this pair.
    pub(super) repeat_of: Option<usize>,
}

impl Vote {
    /// 1 where the first image of the key was preferred, 0 where the second was, 1/2 where neither.
    pub(super) fn value(&self) -> f64 {
        match self.answer {
            Answer::CannotTell => 0.5,
            Answer::A => f64::from(u8::from(self.first_is_left)),
            Answer::B => f64::from(u8::from(!self.first_is_left)),
        }
    }

    /// Whether the right answer is known.
    pub(super) fn is_catch(&self) -> bool {
        self.key.kind == Kind::Catch
    }
}

/// All votes of a study.
#[derive(Debug, Clone, Default)]
pub(super) struct Votes {
    /// The codes of people, in the order of files.
    pub(super) people: Vec<String>,
    /// Their votes.
    pub(super) votes: Vec<Vote>,
}

impl Votes {
    /// Reads files of votes and joins them with the key.
    ///
    /// # Errors
    /// Other columns, votes of another study or on other pairs, a person in two files, an answer that
    /// was given twice; each names file, line and reason.
    pub(super) fn read(files: &[PathBuf], settings: &Settings, key: &Key) -> Result<Self> {
        let mut all = Self::default();
        let mut file_of: BTreeMap<String, &Path> = BTreeMap::new();
        for file in files {
            let rows: Vec<VoteRow> = read_rows(file, COLUMNS)?;
            ensure!(
                !rows.is_empty(),
                "{}: holds no votes; leave it out, or ask for the file again",
                file.display()
            );
            let mut answered = BTreeSet::new();
            for (index, row) in rows.into_iter().enumerate() {
                let place = || format!("{}, line {}", file.display(), index + 2);
                let person = row.person.clone();
                if let Some(other) = file_of.insert(person.clone(), file)
                    && other != file.as_path()
                {
                    bail!(
                        "{} and {} both hold votes of person `{person}`; keep the later one, which has \
                         all of them, and leave the other out",
                        other.display(),
                        file.display()
                    );
                }
                ensure!(
                    answered.insert((person.clone(), row.trial, row.question)),
                    "{}: person `{person}` answers {} in trial {} a second time; keep one of the two lines",
                    place(),
                    row.question.name(),
                    row.trial
                );
                let known = all.people.iter().position(|name| *name == person);
                let known = known.unwrap_or_else(|| {
                    all.people.push(person);
                    all.people.len() - 1
                });
                let vote = joined(row, known, settings, key).with_context(place)?;
                all.votes.push(vote);
            }
        }
        Ok(all)
    }

    /// The votes of some people only.
    pub(super) fn of(&self, kept: &[bool]) -> Vec<&Vote> {
        let votes = self.votes.iter();
        votes.filter(|vote| kept[vote.person]).collect()
    }
}

/// A row beside the key, checked.
fn joined(row: VoteRow, person: usize, settings: &Settings, key: &Key) -> Result<Vote> {
    ensure!(
        row.study == settings.study,
        "a vote of study `{}`; these are the votes of study `{}`",
        row.study,
        settings.study
    );
    let pair = key.get(&row.pair).with_context(|| {
        format!(
            "the pair `{}` is not in the key of study {}",
            row.pair, settings.study
        )
    })?;
    let first_is_left = check(&row, pair, settings)?;
    Ok(Vote {
        person,
        key: pair.clone(),
        question: row.question,
        answer: row.answer,
        first_is_left,
        milliseconds: row.milliseconds,
        trial: row.trial,
        repeat_of: row.repeat_of,
    })
}

/// Whether the first image of the pair is on the left; refuses a row that does not fit its pair.
fn check(row: &VoteRow, pair: &KeyRow, settings: &Settings) -> Result<bool> {
    let (first, second) = (&pair.first_image, &pair.second_image);
    let first_is_left = (&row.left, &row.right) == (first, second);
    ensure!(
        first_is_left || (&row.left, &row.right) == (second, first),
        "the images `{}` and `{}` are not those of pair `{}`",
        row.left,
        row.right,
        row.pair
    );
    let asked = match pair.kind {
        Kind::Comparison => settings.questions.clone(),
        Kind::Catch => settings.catch_questions(),
    };
    ensure!(
        asked.contains(&row.question),
        "the question `{}` was not asked about this pair",
        row.question.name()
    );
    ensure!(
        (1..=settings.trials).contains(&row.trial),
        "trial {}, where each person has {}",
        row.trial,
        settings.trials
    );
    let is_catch = pair.kind == Kind::Catch;
    ensure!(
        row.catch == is_catch,
        "`catch` is {}, and the key says {is_catch}",
        row.catch
    );
    Ok(first_is_left)
}
