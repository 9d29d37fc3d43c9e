//! The addresses of the shipped experiments' runs stay what they are: a changed address trains a
//! run again that is there already. Whoever changes what a run computes counts `RUN_FORMAT` up,
//! and writes the new addresses into `fixtures/addresses.txt`.

use std::fmt::Write;
use std::path::Path;

use core_eval::experiment::Experiment;
use core_eval::plan::plan;

#[test]
fn runs_of_the_shipped_experiments_keep_their_addresses() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = String::new();
    for name in ["ablation", "effects", "development"] {
        let file = here.join(format!("../experiments/{name}.toml"));
        let (experiment, model) = Experiment::load(&file).unwrap().located().unwrap();
        for cell in plan(&experiment, &model).unwrap() {
            let Some(run) = &cell.run else { continue };
            let variant = &experiment.variants[cell.variant].name;
            let concept = &run.config.concept.name;
            let place = format!("{variant} / {concept} / seed {}", cell.seed);
            writeln!(found, "{name}: {place}: {}", run.address).unwrap();
        }
    }
    let expected = std::fs::read_to_string(here.join("tests/fixtures/addresses.txt")).unwrap();
    assert_eq!(found, expected);
}
