//! `core-eval study analyse`: from votes to figures.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::files::write_atomically;

use super::answers::{Answers, Figures, OfComparison};
use super::exclusions::{PersonRow, RULES, people};
use super::intervals::{Spread, wilson};
use super::metric_agreement::{Scored, scored};
use super::question::Question;
use super::results::{
    ALPHA, CANNOT_TELL, DECIDED, DECIDED_WILSON, EXCLUDED, METRIC, PEOPLE, REPEAT, SHARE,
    SHARE_WILSON, SIDE_A, STRENGTH, StudyRow, TIE,
};
use super::sample_size::design_effect;
use super::settings::Settings;
use super::table::table;
use super::votes::Votes;
use super::{RESULTS, key};
use crate::report::write_rows;

/// The file with one row per person.
const PEOPLE_FILE: &str = "people.csv";

/// The file to read.
const TABLE_FILE: &str = "table.md";

/// Writes `study.csv`, `people.csv` and `table.md` into the folder of a study and returns the table. The
/// scores of the images are those of `results`.
///
/// # Errors
/// A folder that is none of a study, files of votes that do not belong to it, damaged scores, an
/// unwritable folder. Nothing is written then.
pub fn analyse(study: &Path, files: &[PathBuf], results: &Path) -> Result<String> {
    let (key, text) = key::read(study)?;
    let settings = Settings::read(study, &text)?;
    let votes = Votes::read(files, &settings, &key)?;
    let metrics = match results.join("scores.csv").is_file() {
        true => scored(results)?,
        false => Vec::new(),
    };
    let people = people(&votes, &settings);
    let rows = rows(&votes, &people, &settings, &metrics);
    let table = table(&rows, &people, &settings, !metrics.is_empty());
    write_rows(&study.join(RESULTS), &rows)?;
    write_rows(&study.join(PEOPLE_FILE), &people)?;
    let path = study.join(TABLE_FILE);
    write_atomically(&path, table.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(table)
}

/// The rows of `study.csv`: first with the rules of exclusion, then without.
pub(super) fn rows(
    votes: &Votes,
    people: &[PersonRow],
    settings: &Settings,
    metrics: &[Scored],
) -> Vec<StudyRow> {
    let mut rows = Vec::new();
    let kept: Vec<bool> = people.iter().map(PersonRow::is_kept).collect();
    for (exclusions, kept) in [("applied", kept), ("none", vec![true; people.len()])] {
        let count = kept.iter().filter(|kept| **kept).count();
        let base = StudyRow {
            exclusions: exclusions.into(),
            people: count,
            ..StudyRow::default()
        };
        let votes = votes.of(&kept);
        rows.push(StudyRow {
            question: "all".into(),
            measure: PEOPLE.into(),
            value: Some(count as f64),
            votes: votes.len(),
            ..base.clone()
        });
        if exclusions == "applied" {
            rows.extend(excluded(people, &base));
        }
        for question in &settings.questions {
            let figures = Answers::new(&votes, *question, settings, metrics).figures();
            rows.extend(of_question(&figures, *question, settings, metrics, &base));
        }
    }
    rows
}

/// How many people each rule leaves out.
fn excluded<'a>(
    people: &'a [PersonRow],
    base: &'a StudyRow,
) -> impl Iterator<Item = StudyRow> + 'a {
    RULES.into_iter().map(|rule| {
        let broken = people
            .iter()
            .filter(|person| person.excluded_by.split(' ').any(|by| by == rule));
        let broken: Vec<&PersonRow> = broken.collect();
        StudyRow {
            question: "all".into(),
            measure: format!("{EXCLUDED}{rule}"),
            value: Some(broken.len() as f64),
            votes: broken.iter().map(|person| person.votes).sum(),
            people: broken.len(),
            ..base.clone()
        }
    })
}

fn of_question(
    figures: &Figures,
    question: Question,
    settings: &Settings,
    metrics: &[Scored],
    base: &StudyRow,
) -> Vec<StudyRow> {
    let base = StudyRow {
        question: question.name().into(),
        ..base.clone()
    };
    let row = |measure, votes| base.of(measure, votes);
    let mut rows = Vec::new();
    for of in &figures.comparisons {
        let [first, second] = [of.variants.0, of.variants.1];
        let base = StudyRow {
            first: settings.variants[first].clone(),
            second: settings.variants[second].clone(),
            ..base.clone()
        };
        rows.extend(of_comparison(of, &base));
    }
    for (variant, spread) in settings.variants.iter().zip(&figures.strengths) {
        let first = variant.clone();
        let row = row(STRENGTH, figures.votes);
        rows.push(number(StudyRow { first, ..row }, *spread));
    }
    if !figures.strengths.is_empty() {
        rows.push(number(row(TIE, figures.votes), figures.tie));
    }
    rows.push(share(row(SIDE_A, figures.decided_votes), figures.left));
    rows.push(share(row(REPEAT, figures.repeat.1), figures.repeat.0));
    rows.push(number(row(ALPHA, figures.votes), figures.alpha));
    for (scored, (spread, votes)) in metrics.iter().zip(&figures.metrics) {
        let row = StudyRow {
            protocol: scored.protocol.clone(),
            metric: scored.metric.column().into(),
            ..row(METRIC, *votes)
        };
        rows.push(share(row, *spread));
    }
    rows
}

fn of_comparison(of: &OfComparison, base: &StudyRow) -> Vec<StudyRow> {
    let mut rows = Vec::new();
    for (measure, simple, spread, votes) in [
        (SHARE, SHARE_WILSON, of.share, of.votes),
        (DECIDED, DECIDED_WILSON, of.decided, of.decided_votes),
    ] {
        rows.push(share(base.of(measure, votes), spread));
        let interval = spread.map(|s| wilson(s.value, votes as f64));
        let value = spread.map(|s| s.value);
        rows.push(base.of(simple, votes).with(value, interval));
    }
    rows.push(share(base.of(CANNOT_TELL, of.votes), of.ties));
    rows
}

/// A share with its interval over people and prompts.
fn share(row: StudyRow, spread: Option<Spread>) -> StudyRow {
    let planned = design_effect(row.votes as f64 / row.people.max(1) as f64);
    let interval = spread.and_then(|s| s.interval_of_share(row.votes, planned));
    row.with(spread.map(|s| s.value), interval)
}

/// Another figure with its interval.
fn number(row: StudyRow, spread: Option<Spread>) -> StudyRow {
    let interval = spread.and_then(|s| s.interval());
    row.with(spread.map(|s| s.value), interval)
}
