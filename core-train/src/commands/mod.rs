//! The subcommands of `core-train`, one file each.

pub(crate) mod embedding;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod init;
mod inspect_model;
pub(crate) mod lora;
pub(crate) mod model;
mod people;
pub(crate) mod pretrain;
pub(crate) mod train;
pub(crate) mod world;

use std::io::Write;
use std::str::FromStr;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

/// Writes a line of a report to standard output. A reader that has seen enough, as `head`, is no
/// failure: what was made is in files.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a report to standard output, as one JSON object or as lines of text.
fn print_report<T: Serialize>(json: bool, report: &T, lines: fn(&T) -> Vec<String>) -> Result<()> {
    match json {
        true => say(&serde_json::to_string_pretty(report)?),
        false => lines(report).iter().for_each(|line| say(line)),
    }
    Ok(())
}

/// An argument that is one of these values, by its name.
fn one_of<T, const N: usize>(
    values: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = core_model::Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(values.map(name)).try_map(|name| name.parse::<T>())
}
