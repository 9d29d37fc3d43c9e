//! Experiments: variants of a method are trained, sampled, scored and compared.
//!
//! | topic | module |
//! |---|---|
//! | the TOML file and what it refers to | [`experiment`] |
//! | from file to tables | [`harness`], [`dry_run`], [`planned`], [`work_plan`], [`disk`] |
//! | addresses of runs, training | [`plan`], [`trained`], [`training`] |
//! | work shared between cores, processes and machines | [`work`], [`part`], [`claims`], [`workers`], [`machines`], [`slurm`] |
//! | evaluation images with paired noise | [`images`] |
//! | attention maps of tokens | [`attention_file`] |
//! | metrics, and how scores are computed | [`metrics`], [`protocol`], [`gallery`], [`masks`], [`scoring`], [`provenance`] |
//! | commands that judge images | [`judge`] |
//! | diversity, copied photos, lowest prompts, scores of photos | [`checks`], [`image_rows`] |
//! | scores that flatter a variant | [`own_encoder`] |
//! | context tokens, training curves, scores during training, claims | [`tokens`], [`kept_tokens`], [`curves`], [`validation_scores`], [`effects`] |
//! | which networks ran, and how often | [`usage`] |
//! | the report page | [`page`] |
//! | preference studies with people | [`study`] |
//! | intervals, tables, figures, tables of several experiments | [`statistics`], [`report`], [`merge`] |
//! | required size of an experiment, distance to the committed reference | [`precision`], [`mod@reference`] |

mod attention;
pub mod attention_file;
pub mod base;
mod base64;
pub mod checks;
pub mod claims;
pub mod curves;
mod decoded;
pub mod disk;
pub mod dry_run;
pub mod effects;
pub mod experiment;
pub mod gallery;
pub mod harness;
pub mod image_rows;
pub mod images;
pub mod judge;
pub mod kept_tokens;
pub mod landmarks;
mod lock;
pub mod machines;
pub mod masks;
pub mod merge;
mod missing;
pub mod own_encoder;
pub mod page;
pub mod part;
mod photo_files;
pub mod plan;
pub mod planned;
mod planned_run;
pub mod precision;
pub mod protocol;
pub mod provenance;
mod quick;
pub mod reference;
mod removal;
pub mod report;
pub mod rows;
pub mod scoring;
pub mod settings;
mod shared_stages;
pub mod slurm;
pub mod statistics;
pub mod study;
pub mod tokens;
pub mod trained;
pub mod training;
pub mod usage;
pub mod validation_scores;
pub mod work;
pub mod work_plan;
mod work_progress;
pub mod workers;

pub use core_metrics as metrics;
