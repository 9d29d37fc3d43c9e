//! `table.md`: the results of a study for readers.

use super::exclusions::PersonRow;
use super::question::Question;
use super::results::{
    ALPHA, CANNOT_TELL, DECIDED, METRIC, REPEAT, SHARE, SHARE_WILSON, SIDE_A, STRENGTH, StudyRow,
};
use super::settings::Settings;
use crate::metrics::Metric;

/// Everything that `study.csv` and `people.csv` say, question by question.
pub(super) fn table(
    rows: &[StudyRow],
    people: &[PersonRow],
    settings: &Settings,
    has_scores: bool,
) -> String {
    let mut text = format!("# Preference study {}\n\n", settings.study);
    text += &people_markdown(people, settings);
    for question in &settings.questions {
        let find = Find {
            rows,
            question: *question,
        };
        text += &format!("\n## {}\n\n", question.text());
        text += &shares(&find);
        text += &strengths(&find);
        text += &reliability(&find);
        text += &metrics(&find);
    }
    if !has_scores {
        text += "\nNo scores of the images were found, so the agreement of metrics with the votes is absent; name \
                 the results folder with --results.\n";
    }
    text + LEGEND
}

const LEGEND: &str = "\nShares count \"cannot tell\" as half a vote for each side. In square brackets 95 % \
    intervals over people and prompts, which hold for other people and other prompts of the same kind; Wilson's \
    intervals count all votes as independent and are too narrow where people or prompts differ. Strengths are \
    logarithms in Davidson's model with mean 0: a difference of 1 means that the stronger one is preferred 2.7 \
    times as often. Krippendorff's alpha is 1 where everybody agrees and 0 where answers look drawn at random. A \
    metric agrees with an answer A or B when it scores the preferred image higher.\n";

/// Who voted, and whose votes are left out.
fn people_markdown(people: &[PersonRow], settings: &Settings) -> String {
    let left_out: Vec<&PersonRow> = people.iter().filter(|person| !person.is_kept()).collect();
    let unfinished = people.iter().filter(|person| !person.finished).count();
    let rules = settings.exclusions;
    let mut text = format!(
        "{} people voted, {unfinished} of them without reaching the end; {} are left out by rules that were fixed \
         before: fewer than {:.0} % of catch trials right{}, a median answer before {} s, or one side in more than \
         {:.0} % of answers.\n",
        people.len(),
        left_out.len(),
        100.0 * rules.catch_right_at_least,
        if settings.catch_trials == 0 {
            " (there were none)"
        } else {
            ""
        },
        rules.median_seconds_at_least,
        100.0 * rules.one_side_at_most,
    );
    if !left_out.is_empty() {
        text += "\n| left out | rules | catch trials right | median seconds | one side |\n|---|---|---|---|---|\n";
    }
    for person in left_out {
        text += &format!(
            "| {} | {} | {} | {:.1} | {} |\n",
            cell(&person.person),
            person.excluded_by,
            percent(person.catch_right),
            person.median_seconds,
            percent(person.one_side),
        );
    }
    text
}

/// Rows of a question.
struct Find<'a> {
    rows: &'a [StudyRow],
    question: Question,
}

impl<'a> Find<'a> {
    /// The rows of a measure, with or without the rules of exclusion.
    fn all(&self, measure: &str, exclusions: &str) -> Vec<&'a StudyRow> {
        let rows = self.rows.iter().filter(|row| {
            row.question == self.question.name()
                && row.measure == measure
                && row.exclusions == exclusions
        });
        rows.collect()
    }
}

fn shares(find: &Find<'_>) -> String {
    let mut text = String::from(
        "| preferred over | votes | share | Wilson | ties left out | cannot tell | share without exclusions | \
         verdict |\n|---|---|---|---|---|---|---|---|\n",
    );
    let columns = [SHARE, SHARE_WILSON, DECIDED, CANNOT_TELL].map(|m| find.all(m, "applied"));
    let everybody = find.all(SHARE, "none");
    for (index, share) in columns[0].iter().enumerate() {
        let [_, wilson, decided, ties] = [0, 1, 2, 3].map(|column| columns[column][index]);
        let verdict = match (share.low, share.high) {
            (Some(low), _) if low > 0.5 => format!("{} is preferred", share.first),
            (_, Some(high)) if high < 0.5 => format!("{} is preferred", share.second),
            _ => "no difference shown".to_string(),
        };
        text += &format!(
            "| {} over {} | {} | {} | {} | {} | {} | {} | {} |\n",
            cell(&share.first),
            cell(&share.second),
            share.votes,
            figure(share),
            interval(wilson),
            figure(decided),
            percent(ties.value),
            figure(everybody[index]),
            cell(&verdict),
        );
    }
    text
}

fn strengths(find: &Find<'_>) -> String {
    let rows = find.all(STRENGTH, "applied");
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n| variant | strength |\n|---|---|\n");
    let mut sorted = rows;
    sorted.sort_by(|a, b| {
        b.value
            .unwrap_or(f64::MIN)
            .total_cmp(&a.value.unwrap_or(f64::MIN))
    });
    for row in sorted {
        text += &format!("| {} | {} |\n", cell(&row.first), figure(row));
    }
    text
}

fn reliability(find: &Find<'_>) -> String {
    let one = |measure| {
        let rows = find.all(measure, "applied");
        rows.first().map_or("–".to_string(), |row| figure(row))
    };
    format!(
        "\nAnswer A among A and B (½ without position bias): {}. The same answer to a repeated pair: {}. \
         Krippendorff's alpha: {}.\n",
        one(SIDE_A),
        one(REPEAT),
        one(ALPHA)
    )
}

fn metrics(find: &Find<'_>) -> String {
    let rows = find.all(METRIC, "applied");
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| metric | protocol | agrees with the votes | votes |\n|---|---|---|---|\n",
    );
    for row in rows {
        let title =
            Metric::named(&row.metric).map_or(row.metric.clone(), |m| m.title().to_string());
        text += &format!(
            "| {title} | {} | {} | {} |\n",
            cell(&row.protocol),
            figure(row),
            row.votes
        );
    }
    text
}

/// A value with its interval.
fn figure(row: &StudyRow) -> String {
    match row.value {
        Some(value) => format!("{value:.3} {}", interval(row))
            .trim_end()
            .to_string(),
        None => "–".to_string(),
    }
}

fn interval(row: &StudyRow) -> String {
    match (row.low, row.high) {
        (Some(low), Some(high)) => format!("[{low:.3}, {high:.3}]"),
        _ => String::new(),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_string(), |share| format!("{:.0} %", 100.0 * share))
}

/// A name as the text of a cell: nothing in it is Markdown, HTML or another cell.
fn cell(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            '\n' | '\r' | '\t' => text.push(' '),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        assert_eq!(
            cell("<img onerror=alert(1)>|\n`x`"),
            "&lt;img onerror=alert(1)&gt;\\| \\`x\\`"
        );
    }

    #[test]
    fn figures_without_an_interval_show_the_value_alone() {
        let row = StudyRow {
            value: Some(0.5),
            ..StudyRow::default()
        };
        assert_eq!(figure(&row), "0.500");
        assert_eq!(figure(&StudyRow::default()), "–");
    }
}
