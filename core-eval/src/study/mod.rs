//! Blind preference studies: which of two images of the same noise do people prefer?
//!
//! | step | module |
//! |---|---|
//! | images and photos of a results folder | `material` |
//! | who compares what, on which side, in which order | `design`, `coloring`, `exchanges`, `sides`, `order`, `planner`, `catch_places`, `trials` |
//! | `study.toml`, `key.csv`, `index.html` | `settings`, `key`, `page`, [`make`] |
//! | how many votes a study needs | [`sample_size`] |
//! | votes of people, and whose are left out | [`votes`], [`exclusions`] |
//! | intervals, strengths, agreement | [`intervals`], [`bradley_terry`], [`agreement`] |
//! | `study.csv`, `table.md` | [`analysis`], `results`, `table` |

pub mod agreement;
pub mod analysis;
mod answers;
pub mod bradley_terry;
mod catch_places;
mod coloring;
mod design;
mod exchanges;
pub mod exclusions;
pub mod intervals;
mod key;
pub mod make;
mod material;
mod metric_agreement;
mod order;
mod page;
mod planner;
mod question;
mod results;
pub mod sample_size;
mod settings;
mod sides;
#[cfg(test)]
mod simulation;
mod table;
mod trials;
pub mod votes;

pub use question::Question;
pub use results::StudyRow;
pub use settings::{Exclusions, Settings};

/// The file with the rules of a study.
pub const SETTINGS: &str = "study.toml";

/// The file that says which image of a pair is of which variant.
pub const KEY: &str = "key.csv";

/// The file with the results of a study.
pub const RESULTS: &str = "study.csv";
