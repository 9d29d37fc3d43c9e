//! The part of an experiment's work that a process is limited to.

use std::str::FromStr;

use anyhow::{Result, ensure};
use indexmap::IndexSet;

use crate::plan::Cell;

/// Which runs are trained and whose images are generated; everything when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Addresses of runs, or their first letters. Empty: all.
    pub only: Vec<String>,
    /// One of several parts of about equal size.
    pub shard: Option<Shard>,
}

/// The part with this number of so many, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub index: usize,
    /// The number of parts.
    pub count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, count)| Some([index.parse().ok()?, count.parse().ok()?]));
        match numbers {
            Some([index, count]) if index < count => Ok(Self { index, count }),
            _ => Err("is no part such as 0/4, the first of four, to 3/4, the last".to_string()),
        }
    }
}

impl Part {
    /// The cells of this part. Cells of one run are always in the same part.
    ///
    /// # Errors
    /// Letters with which no address begins, or several.
    pub fn of(&self, mut cells: Vec<Cell>) -> Result<Vec<Cell>> {
        for name in &self.only {
            let found = addresses(&cells);
            let found = found
                .iter()
                .filter(|address| address.starts_with(name))
                .count();
            ensure!(
                found > 0,
                "--only {name}: no run has this address; `core-eval plan` lists the addresses"
            );
            ensure!(
                found == 1,
                "--only {name}: {found} addresses begin so; name more letters"
            );
        }
        if !self.only.is_empty() {
            cells.retain(|cell| {
                let run = cell.run.as_ref();
                run.is_some_and(|run| self.only.iter().any(|name| run.address.starts_with(name)))
            });
        }
        if let Some(shard) = self.shard {
            let all = addresses(&cells);
            let mut base = 0;
            cells.retain(|cell| {
                let number = match &cell.run {
                    Some(run) => all.iter().position(|address| *address == run.address),
                    // Cells without a run are dealt out by themselves.
                    None => {
                        base += 1;
                        Some(base - 1)
                    }
                };
                number.is_some_and(|number| number % shard.count == shard.index)
            });
        }
        Ok(cells)
    }
}

/// The address of every run, once, in the order of the cells.
fn addresses(cells: &[Cell]) -> Vec<String> {
    let runs = cells.iter().filter_map(|cell| cell.run.as_ref());
    let addresses: IndexSet<&String> = runs.map(|run| &run.address).collect();
    addresses.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_from_0() {
        let shard = |index, count| Ok(Shard { index, count });
        assert_eq!("0/4".parse(), shard(0, 4));
        assert_eq!("3/4".parse(), shard(3, 4));
        for text in ["4/4", "0/0", "1", "a/2", "-1/2", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
