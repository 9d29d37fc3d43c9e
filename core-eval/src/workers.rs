//! Independent work on several cores.
//!
//! Operations of small networks do not gain from several cores, so each core is a worker with one thread.
//! Large networks and GPUs have one worker with all threads, since one task fills the memory. The choice
//! depends on model and device only, never on the amount of work.

use std::path::Path;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};

/// The largest U-Net for which every core is a worker, in bytes on disk.
const SMALL: u64 = 256 << 20;

/// The number of cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many tasks run at once, and the threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// The number of tasks at once.
    pub count: usize,
    /// The number of threads per task.
    pub threads: usize,
}

impl Workers {
    /// For tasks with a model folder on a device.
    pub fn for_model(model: &Path, device: &str) -> Self {
        let unet = model.join("unet/diffusion_pytorch_model.safetensors");
        let small = std::fs::metadata(unet).is_ok_and(|file| file.len() <= SMALL);
        let [count, threads] = if device == "cpu" && small {
            [cores(), 1]
        } else {
            [1, cores()]
        };
        Self { count, threads }
    }

    /// Runs `work` with the threads of one task.
    ///
    /// # Errors
    /// The error of `work`.
    pub fn alone<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.pool()?.install(work)
    }

    fn pool(self) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .build()
            .context("starting a worker thread")
    }

    /// Runs every task once. After a failure no further task is started, and the first failure in the
    /// order of the tasks is returned.
    ///
    /// # Errors
    /// The error of a task; a panic in a task is an error too.
    pub fn for_each<T: Sync>(
        self,
        tasks: &[T],
        work: impl Fn(&T) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let failures = Mutex::new(Vec::new());
        let worker = || -> Result<()> {
            let pool = self.pool()?;
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
            let workers: Vec<_> = (0..self.count.min(tasks.len()))
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn small_models_get_a_core_each_and_gpus_one_worker() {
        let model = tempfile::tempdir().unwrap();
        let workers = |device: &str| Workers::for_model(model.path(), device);
        assert_eq!(workers("cpu").count, 1);
        std::fs::create_dir(model.path().join("unet")).unwrap();
        let file = model
            .path()
            .join("unet/diffusion_pytorch_model.safetensors");
        std::fs::write(file, b"small").unwrap();
        assert_eq!((workers("cpu").count, workers("cpu").threads), (cores(), 1));
        assert_eq!(workers("cuda:1").count, 1);
    }

    #[test]
    fn every_task_is_done_once_on_one_thread() {
        let done = Mutex::new(Vec::new());
        let workers = Workers {
            count: 2,
            threads: 1,
        };
        let work = |task: &i32| {
            assert_eq!(rayon::current_num_threads(), 1);
            done.lock().unwrap().push(*task);
            Ok(())
        };
        workers.for_each(&[3, 1, 2], work).unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3]);
    }

    #[test]
    fn a_failure_is_reported_and_stops_the_rest() {
        let tasks: Vec<usize> = (0..100).collect();
        let workers = Workers {
            count: 2,
            threads: 1,
        };
        let error = workers.for_each(&tasks, |task| {
            if *task == 0 {
                Err(anyhow!("task {task} failed"))
            } else {
                Ok(())
            }
        });
        assert_eq!(error.unwrap_err().to_string(), "task 0 failed");
    }
}
