//! Experiments: variants of a method trained, drawn, scored and compared.
//!
//! | what | module |
//! |---|---|
//! | the TOML file and what it refers to | [`experiment`] |
//! | from file to tables | [`harness`] |
//! | addresses of runs, work on all cores | [`plan`], [`workers`] |
//! | evaluation images with paired noise | [`images`] |
//! | CLIP-T, CLIP-I, DINO and how they are computed | [`metrics`], [`protocol`] |
//! | context tokens, learning curves, claims | [`tokens`], [`curves`], [`effects`] |
//! | intervals, tables, plots | [`statistics`], [`report`] |

pub mod commands;
pub mod curves;
pub mod effects;
pub mod experiment;
pub mod harness;
pub mod images;
pub mod metrics;
pub mod plan;
pub mod protocol;
pub mod report;
pub mod statistics;
pub mod tokens;
pub mod workers;
