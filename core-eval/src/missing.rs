//! What an experiment lacks before it can be scored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::images::GenerationJob;

/// How long a network file system may hide what another machine has written: clients of NFS look again
/// after at most 60 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time between two looks.
const PAUSE: Duration = Duration::from_secs(3);

/// How many of the missing are named.
const NAMED: usize = 8;

/// Waits until everything is there.
///
/// # Errors
/// What is still missing after 90 s.
pub(crate) fn wait(jobs: &[GenerationJob<'_>], stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    loop {
        let missing = of(jobs)?;
        if missing.is_empty() {
            return Ok(());
        }
        if start.elapsed() >= PATIENCE {
            bail!(message(&missing));
        }
        if start.elapsed() < PAUSE {
            tracing::info!(
                "{} of {} are missing; waiting for {} s, since a network file system may show \
                 them late",
                missing.len(),
                jobs.len(),
                PATIENCE.as_secs()
            );
        }
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                bail!("stopped; the same command continues from here");
            }
            std::thread::sleep(PAUSE / 30);
        }
    }
}

/// What each cell lacks that lacks something.
fn of(jobs: &[GenerationJob<'_>]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for job in jobs {
        let (folder, _) = job.origin()?;
        let folder = folder.display();
        match &job.cell.run {
            Some(run) if !run.folder(job.results).exists() => {
                missing.push(format!("run {} for {folder}", run.address));
            }
            _ if !job.is_done()? => missing.push(folder.to_string()),
            _ => {}
        }
    }
    Ok(missing)
}

fn message(missing: &[String]) -> String {
    let mut message = format!("{} of the results are missing: ", missing.len());
    let named = &missing[..missing.len().min(NAMED)];
    message += &named.join(", ");
    if named.len() < missing.len() {
        message += " and others";
    }
    message
        + "; start workers again (`--worker`, or `core-eval submit`), and they do what is missing"
}
