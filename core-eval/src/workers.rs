//! Independent work on several cores.
//!
//! Operations of small networks do not gain from several cores, so each core is a worker with one thread.
//! Large networks and GPUs have one worker with all threads, since one task fills the memory. The choice
//! depends on model and device only, never on the amount of work.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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

    /// Calls `work` on every worker until it says that there is no more. After a failure nothing is begun,
    /// and the first failure is returned.
    ///
    /// # Errors
    /// The error of a piece of work; a panic in one is an error too.
    pub fn repeat(self, work: impl Fn() -> Result<bool> + Sync) -> Result<()> {
        let failed = AtomicBool::new(false);
        let worker = || -> Result<()> {
            let pool = self.pool()?;
            while !failed.load(Ordering::Relaxed) {
                match pool.install(&work) {
                    Ok(true) => {}
                    Ok(false) => break,
                    // The others end with what they are at; the first says why.
                    Err(_) if failed.swap(true, Ordering::Relaxed) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.count).map(|_| scope.spawn(worker)).collect();
            let ended = workers.into_iter().map(|worker| {
                let ended = worker.join();
                ended.unwrap_or_else(|_| Err(anyhow!("a worker ended by a panic, reported above")))
            });
            // All are waited for before the first failure is returned.
            let ended: Vec<Result<()>> = ended.collect();
            ended.into_iter().collect()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

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

    const TWO: Workers = Workers {
        count: 2,
        threads: 1,
    };

    #[test]
    fn every_worker_works_until_there_is_no_more_on_one_thread() {
        let left = Mutex::new(5);
        let work = || {
            assert_eq!(rayon::current_num_threads(), 1);
            let mut left = left.lock().unwrap();
            *left -= i32::from(*left > 0);
            Ok(*left > 0)
        };
        TWO.repeat(work).unwrap();
        assert_eq!(left.into_inner().unwrap(), 0);
    }

    #[test]
    fn a_failure_is_reported_and_stops_the_rest() {
        let count = Mutex::new(0);
        let error = TWO.repeat(|| {
            let mut count = count.lock().unwrap();
            *count += 1;
            match *count {
                1..3 => Ok(true),
                _ => Err(anyhow!("piece {count} failed")),
            }
        });
        // The other worker may be at the next piece and fail before the first one says so.
        let error = error.unwrap_err().to_string();
        let expected = ["piece 3 failed", "piece 4 failed"];
        assert!(expected.contains(&error.as_str()), "{error}");
        assert!(count.into_inner().unwrap() <= 4);
    }
}
