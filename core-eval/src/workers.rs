//! Independent work on several cores: one worker a core, each with one thread of its own.
//!
//! Small networks gain nothing from sharing an operation among cores. One thread a task also makes
//! its result independent of how much else is to be done.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};

/// Workers that this machine affords.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does all tasks, each exactly once, and reports the first failure in the order of the tasks;
/// after a failure no further task is begun.
///
/// # Errors
/// What a task reported; a panic inside a task is such a report too.
pub fn for_each<T: Sync>(tasks: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let worker = || -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .context("starting a worker thread")?;
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(index) else { break };
            if let Err(error) = pool.install(|| work(task)) {
                failed.store(true, Ordering::Relaxed);
                if let Ok(mut failures) = failures.lock() {
                    failures.push((index, error));
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..count().min(tasks.len()))
            .map(|_| scope.spawn(worker))
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow!("a worker ended by a panic, reported above"))??;
        }
        Ok(())
    })?;
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort_by_key(|(index, _)| *index);
    match failures.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_on_one_thread() {
        let done = Mutex::new(Vec::new());
        for_each(&[3, 1, 2], |task| {
            assert_eq!(rayon::current_num_threads(), 1);
            done.lock().unwrap().push(*task);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3]);
    }

    #[test]
    fn a_failure_is_reported_and_stops_the_rest() {
        let tasks: Vec<usize> = (0..100).collect();
        let error = for_each(&tasks, |task| {
            if *task == 0 {
                Err(anyhow!("task {task} failed"))
            } else {
                Ok(())
            }
        });
        assert_eq!(error.unwrap_err().to_string(), "task 0 failed");
    }
}
