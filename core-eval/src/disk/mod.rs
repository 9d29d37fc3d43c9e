//! How much disk an experiment needs, and whether it is there.

mod estimate;
mod free;
mod measured;

use std::path::PathBuf;

use anyhow::{Result, bail};
use core_model::folder::ModelFolder;
use core_train::cost::disk::RunBytes;
use serde::Serialize;

use crate::experiment::{Experiment, Keep};
use crate::plan::Cell;
use crate::trained::Trained;
use crate::workers::Workers;
use estimate::Missing;
use measured::Measured;

/// Bytes in a results folder by what takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskUse {
    /// What runs have trained, apart from the concepts, with their checkpoints.
    pub weights: u64,
    /// States of runs, for those that go on from them.
    pub states: u64,
    /// The other files of runs: concepts, configurations, logs.
    pub runs: u64,
    /// The evaluation images.
    pub images: u64,
    /// Features and masks.
    pub features: u64,
    /// Tables, figures and the report.
    pub tables: u64,
}

impl DiskUse {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.states + self.runs + self.images + self.features + self.tables
    }
}

/// What an experiment needs on disk.
#[derive(Debug, Clone, Serialize)]
pub struct DiskPlan {
    /// The results folder.
    pub folder: PathBuf,
    /// What is kept of a run whose images are drawn.
    pub keep: Keep,
    /// What lies in the folder now.
    pub now: DiskUse,
    /// What lies there when everything is done, about.
    pub end: DiskUse,
    /// The most that lies there until then with one process at work, about.
    pub peak: DiskUse,
    /// The peak if only images were kept.
    pub peak_of_images: DiskUse,
    /// The bytes that are free, where the system tells.
    pub free: Option<u64>,
}

impl DiskPlan {
    /// Looks at the folder, and computes the rest from the shapes of the networks.
    ///
    /// # Errors
    /// An unreadable folder, a model whose configuration cannot be read.
    pub fn new(
        experiment: &Experiment,
        model: &ModelFolder,
        cells: &[Cell],
        trained: &Trained<'_>,
    ) -> Result<Self> {
        let results = trained.results();
        let workers = Workers::for_model(model.path(), &experiment.device).count;
        let measured = Measured::read(results, cells)?;
        let missing = Missing::new(experiment, model, cells, trained)?;
        let peaks = Keep::ALL.map(|keep| missing.with(&measured, keep, workers));
        let [everything, images] = peaks;
        let own = match experiment.keep {
            Keep::Everything => everything,
            Keep::Images => images,
        };
        Ok(Self {
            folder: results.to_path_buf(),
            keep: experiment.keep,
            now: measured.all(),
            end: own.end,
            peak: own.peak,
            peak_of_images: images.peak,
            free: free::bytes(results),
        })
    }

    /// The bytes that are still to be written, at the most at one moment.
    pub fn needed(&self) -> u64 {
        self.peak.total().saturating_sub(self.now.total())
    }

    /// Refuses an experiment that does not fit.
    ///
    /// # Errors
    /// The folder, the bytes that are needed and free, and what helps.
    pub fn check(&self) -> Result<()> {
        let Some(free) = self.free.filter(|free| *free < self.needed()) else {
            return Ok(());
        };
        let images = self.peak_of_images.total().saturating_sub(self.now.total());
        let advice = match self.keep {
            Keep::Everything if images < self.needed() => format!(
                "set `keep = \"images\"` in the experiment, with which weights are removed when their images are \
                 drawn and {images} bytes are needed, "
            ),
            _ => String::new(),
        };
        bail!(
            "{}: the disk is too small: {} bytes are needed and {free} are free; {advice}name a folder on another disk \
             with --results, or train fewer variants at once with --variant",
            self.folder.display(),
            self.needed(),
        )
    }

    /// The plan for readers.
    pub fn lines(&self) -> Vec<String> {
        let amount = |what: DiskUse| {
            let parts = [
                ("weights", what.weights),
                ("states", what.states),
                ("logs", what.runs),
                ("images", what.images),
                ("features", what.features),
                ("tables and figures", what.tables),
            ];
            let parts = parts.map(|(name, bytes)| format!("{name} {}", mebibytes(bytes)));
            format!("{} MiB ({})", mebibytes(what.total()), parts.join(", "))
        };
        let free = self.free.map(mebibytes);
        let free = free.map_or("not known".to_string(), |free| format!("{free} MiB"));
        vec![
            format!("disk at the end: about {}", amount(self.end)),
            format!(
                "disk at most, with one process: about {}",
                amount(self.peak)
            ),
            format!(
                "disk now: {} MiB; to be written: about {} MiB; free: {free}",
                mebibytes(self.now.total()),
                mebibytes(self.needed()),
            ),
        ]
    }
}

/// Bytes in MiB, with one digit behind the point below 10.
fn mebibytes(bytes: u64) -> String {
    let count = bytes as f64 / f64::from(1 << 20);
    match count < 10.0 {
        true => format!("{count:.1}"),
        false => format!("{count:.0}"),
    }
}

/// What lies in a folder at the end, and at the worst moment before.
#[derive(Debug, Clone, Copy, Default)]
struct EndAndPeak {
    end: DiskUse,
    peak: DiskUse,
}

/// A run that is missing.
#[derive(Debug, Clone, Copy)]
struct MissingRun {
    bytes: RunBytes,
    /// Whether others go on from its last step.
    is_beginning: bool,
}

impl Missing {
    /// With what is there already, for `workers` runs at once.
    fn with(&self, measured: &Measured, keep: Keep, workers: usize) -> EndAndPeak {
        let sum = |of: &dyn Fn(&MissingRun) -> u64| self.runs.iter().map(of).sum::<u64>();
        // The worst is that the largest runs are at work at once.
        let at_once = |of: &dyn Fn(&MissingRun) -> u64| {
            let mut all: Vec<u64> = self.runs.iter().map(of).collect();
            all.sort_unstable();
            all.iter().rev().take(workers).sum::<u64>()
        };
        let beginning = |run: &MissingRun, bytes: u64| if run.is_beginning { bytes } else { 0 };
        let kept_states = sum(&|run| beginning(run, run.bytes.last_state));
        // What a run at work takes beside its weights, its log and the state that it keeps.
        let states = |run: &MissingRun| {
            let RunBytes {
                weights,
                rest,
                last_state,
                ..
            } = run.bytes;
            let kept = beginning(run, last_state);
            run.bytes.peak().saturating_sub(weights + rest + kept)
        };
        let planned = measured.planned;
        let mut end = measured.others;
        end.runs += planned.runs + sum(&|run| run.bytes.rest);
        end.images += self.images;
        end.features = end.features.max(self.features);
        end.tables = end.tables.max(self.tables);
        let mut peak = end;
        match keep {
            Keep::Everything => {
                end.weights += planned.weights + sum(&|run| run.bytes.weights);
                end.states += planned.states + kept_states;
                peak.weights = end.weights;
                peak.states = end.states;
            }
            Keep::Images => {
                let beginnings = sum(&|run| beginning(run, run.bytes.weights));
                peak.weights += planned.weights + beginnings + at_once(&|run| run.bytes.weights);
                peak.states += planned.states + kept_states;
            }
        }
        peak.states += at_once(&states);
        // A file of features is replaced when the new one is there.
        peak.features += end.features / 2;
        EndAndPeak { end, peak }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn run(weights: u64, last_state: u64, is_beginning: bool) -> MissingRun {
        MissingRun {
            bytes: RunBytes {
                weights,
                rest: 1,
                last_state,
                states: 2 * last_state,
            },
            is_beginning,
        }
    }

    fn missing() -> Missing {
        Missing {
            runs: vec![run(0, 10, true), run(100, 300, false), run(100, 300, false)],
            images: 7,
            features: 4,
            tables: 2,
        }
    }

    #[test]
    fn everything_that_is_trained_stays_and_states_come_and_go() {
        let EndAndPeak { end, peak } = missing().with(&Measured::default(), Keep::Everything, 2);
        let expected = DiskUse {
            weights: 200,
            states: 10,
            runs: 3,
            images: 7,
            features: 4,
            tables: 2,
        };
        assert_eq!(end, expected);
        // Two states of each of two runs, one of which the weights follow.
        assert_eq!(peak.states, 10 + 2 * (600 - 100));
        assert_eq!((peak.weights, peak.features), (200, 6));
    }

    #[test]
    fn where_only_images_are_kept_weights_take_their_place_for_a_while() {
        let EndAndPeak { end, peak } = missing().with(&Measured::default(), Keep::Images, 1);
        assert_eq!(
            (end.weights, end.states, end.runs, end.images),
            (0, 0, 3, 7)
        );
        assert_eq!((peak.weights, peak.states), (100, 10 + 500));
    }

    #[test]
    fn what_is_there_is_not_needed_again_and_is_removed_where_only_images_are_kept() {
        let planned = DiskUse {
            weights: 50,
            states: 5,
            runs: 1,
            ..DiskUse::default()
        };
        let others = DiskUse {
            weights: 9,
            images: 3,
            ..DiskUse::default()
        };
        let measured = Measured {
            planned,
            others,
            unfinished: 70,
        };
        let everything = missing().with(&measured, Keep::Everything, 1);
        assert_eq!((everything.end.weights, everything.end.states), (259, 15));
        assert_eq!(everything.end.images, 10);
        let images = missing().with(&measured, Keep::Images, 1);
        assert_eq!((images.end.weights, images.end.states), (9, 0));
        assert_eq!(images.peak.weights, 9 + 50 + 100);
    }

    fn plan(keep: Keep, free: u64) -> DiskPlan {
        let weights = |weights: u64| DiskUse {
            weights,
            ..DiskUse::default()
        };
        DiskPlan {
            folder: PathBuf::from("results/x"),
            keep,
            now: weights(MIB),
            end: weights(10 * MIB),
            peak: weights(11 * MIB),
            peak_of_images: weights(3 * MIB),
            free: Some(free),
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers_and_advice() {
        assert!(plan(Keep::Everything, 10 * MIB).check().is_ok());
        let refused = |keep| match plan(keep, 10 * MIB - 1).check() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let message = refused(Keep::Everything);
        for part in [
            "results/x",
            "10485760 bytes are needed",
            "10485759 are free",
            "`keep = \"images\"`",
            "2097152 bytes",
            "--results",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!refused(Keep::Images).contains("keep ="));
        let unknown = DiskPlan {
            free: None,
            ..plan(Keep::Everything, 0)
        };
        assert!(unknown.check().is_ok());
    }
}
