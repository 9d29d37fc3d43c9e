//! TOML and CSV files are data: damaged ones are read or refused with a message; nothing panics or takes
//! long. `scripts/million-inputs` gives each reader a million inputs.

use crate::damage::{corpus, damaged_texts, inputs};
use crate::readers;

#[test]
fn damaged_run_files_are_refused_or_read() {
    inputs(damaged_texts(corpus("run_file")), |bytes| {
        readers::run_file(&bytes)
    });
}

#[test]
fn damaged_set_arguments_are_refused_or_used() {
    inputs(damaged_texts(corpus("set_arguments")), |bytes| {
        readers::set_arguments(&bytes)
    });
}

#[test]
fn damaged_recipes_are_refused_or_read() {
    inputs(damaged_texts(corpus("recipe")), |bytes| {
        readers::recipe(&bytes)
    });
}

#[test]
fn damaged_experiments_are_refused_or_read() {
    inputs(damaged_texts(corpus("experiment")), |bytes| {
        readers::experiment(&bytes)
    });
}

#[test]
fn damaged_prompt_files_are_refused_or_read() {
    inputs(damaged_texts(corpus("prompts")), |bytes| {
        readers::prompts(&bytes)
    });
}

#[test]
fn damaged_tables_of_results_are_refused_or_read() {
    inputs(damaged_texts(corpus("results")), |bytes| {
        readers::results(&bytes)
    });
}

#[test]
fn damaged_protocols_are_refused() {
    inputs(damaged_texts(corpus("protocol")), |bytes| {
        readers::protocol(&bytes)
    });
}
