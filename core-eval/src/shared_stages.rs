//! First stages that several runs have in common are trained once.
//!
//! A stage is addressed by its content: the address of a run that ends after it. Where several runs of
//! an experiment begin with the same stages, that shorter run is planned too, and the others go on from
//! its last step, with the same bits as if each had trained these stages itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use core_train::RunConfig;
use core_train::run::first_stages::first_stages;

use crate::planned_run::PlannedRun;

/// Names for every run the longest run that it can go on from: one that ends after stages which another
/// run has too, or that is planned in any case. `address` gives that of a configuration.
///
/// # Errors
/// Those of `address`.
pub(crate) fn share<'a>(
    runs: impl Iterator<Item = &'a mut PlannedRun>,
    address: impl Fn(&RunConfig) -> Result<String>,
) -> Result<()> {
    let mut runs: Vec<&mut PlannedRun> = runs.collect();
    let mut beginnings = Vec::with_capacity(runs.len());
    // By the address of a beginning: the runs that begin so, or are that run.
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in &runs {
        let mut of_run = Vec::new();
        for stages in 1..run.config.stages.len() {
            let config = first_stages(&run.config, stages);
            let address = address(&config)?;
            users
                .entry(address.clone())
                .or_default()
                .insert(run.address.clone());
            of_run.push((address, config));
        }
        beginnings.push(of_run);
    }
    for run in &runs {
        if let Some(users) = users.get_mut(&run.address) {
            users.insert(run.address.clone());
        }
    }
    let is_shared = |address: &String| users.get(address).is_some_and(|users| users.len() > 1);
    for (run, beginnings) in runs.iter_mut().zip(beginnings) {
        let shared = beginnings
            .into_iter()
            .filter(|(address, _)| is_shared(address));
        run.earlier = shared.fold(None, |earlier, (address, config)| {
            Some(Arc::new(PlannedRun {
                config,
                address,
                earlier,
            }))
        });
    }
    Ok(())
}
