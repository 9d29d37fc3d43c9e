//! `core-eval study`: blind preference studies with people.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use core_eval::page::{self, Options, PAGE, Source};
use core_eval::study::analysis::analyse;
use core_eval::study::make::Make;
use core_eval::study::{Exclusions, Question};

use super::say;

/// Arguments of `core-eval study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(subcommand)]
    command: StudyCommand,
}

#[derive(Debug, Subcommand)]
enum StudyCommand {
    /// Write a page on which people compare the images of variants without knowing which is which.
    Make(MakeArgs),
    /// Compute preferences, their intervals and their agreement with the metrics from people's votes.
    Analyse(AnalyseArgs),
}

#[derive(Debug, Args)]
struct MakeArgs {
    /// Results folder of an experiment, with its images
    results: PathBuf,
    /// The variants to compare, two or more
    #[arg(long, required = true, num_args = 2.., value_name = "VARIANT")]
    compare: Vec<String>,
    /// How many pairs each person compares, beside catch trials and repetitions
    #[arg(long, default_value_t = 40)]
    per_person: usize,
    /// For how many people pairs and sides are balanced
    #[arg(long, default_value_t = 20)]
    people: usize,
    /// The questions about each pair
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "identity,prompt,overall"
    )]
    question: Vec<Question>,
    /// There is one catch trial for so many pairs, in which the right answer is known
    #[arg(long, default_value_t = 15, value_name = "PAIRS")]
    pairs_per_catch: usize,
    /// Text file with what people agree to; blank lines separate paragraphs
    #[arg(long, value_name = "FILE")]
    consent: Option<PathBuf>,
    /// Text file that says whom to ask, and where to send the votes
    #[arg(long, value_name = "FILE")]
    contact: Option<PathBuf>,
    /// Folder with the photos of each concept in a folder of its name [default: where the runs found them]
    #[arg(long, value_name = "DIR")]
    photos: Option<PathBuf>,
    /// Largest side of the images in the page, in pixels
    #[arg(long, default_value_t = 512, value_name = "PIXELS")]
    side: u32,
    /// Write one page for each person instead of one for all, where that would be too large
    #[arg(long)]
    page_per_person: bool,
    /// Leave out people who recognise the photo in a smaller share of catch trials
    #[arg(long, default_value_t = Exclusions::default().catch_right_at_least, value_name = "SHARE")]
    catch_right: f64,
    /// Leave out people whose median time for an answer is shorter, in seconds
    #[arg(long, default_value_t = Exclusions::default().median_seconds_at_least, value_name = "SECONDS")]
    median_seconds: f64,
    /// Leave out people who choose one side in a larger share of their answers
    #[arg(long, default_value_t = Exclusions::default().one_side_at_most, value_name = "SHARE")]
    one_side: f64,
    /// Seed of the design
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder to write [default: RESULTS/study]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct AnalyseArgs {
    /// The folder that `study make` wrote
    study: PathBuf,
    /// The files that people saved
    #[arg(required = true, value_name = "VOTES.csv")]
    votes: Vec<PathBuf>,
    /// Results folder with the scores of the images [default: the folder around STUDY]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// Makes or analyses a study.
///
/// # Errors
/// As [`Make::run`] and [`analyse`].
pub(crate) fn run(args: &StudyArgs) -> Result<()> {
    let text = match &args.command {
        StudyCommand::Make(args) => make(args).run()?,
        StudyCommand::Analyse(args) => analyse_and_show(args)?,
    };
    say(text.trim_end());
    Ok(())
}

/// Analyses a study. A report page that is there already shows it from then on.
fn analyse_and_show(args: &AnalyseArgs) -> Result<String> {
    let around = match args.study.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => args.study.join(".."),
    };
    let results = args.results.as_ref().unwrap_or(&around);
    let text = analyse(&args.study, &args.votes, results)?;
    if args.results.is_none() && results.join(PAGE).is_file() {
        let source = Source::read(std::slice::from_ref(results))?;
        page::write(&source, results, &Options::default())?;
    }
    Ok(text)
}

fn make(args: &MakeArgs) -> Make {
    Make {
        results: args.results.clone(),
        compare: args.compare.clone(),
        questions: args.question.clone(),
        people: args.people,
        per_person: args.per_person,
        pairs_per_catch: args.pairs_per_catch,
        seed: args.seed,
        photos: args.photos.clone(),
        consent: args.consent.clone(),
        contact: args.contact.clone(),
        side: args.side,
        page_per_person: args.page_per_person,
        exclusions: Exclusions {
            catch_right_at_least: args.catch_right,
            median_seconds_at_least: args.median_seconds,
            one_side_at_most: args.one_side,
        },
        out: args
            .out
            .clone()
            .unwrap_or_else(|| args.results.join("study")),
    }
}
