//! What lies in a results folder.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use core_train::adapters::{LORA, OFT, TEXT_ENCODER, UNET};
use core_train::cost::disk::on_disk;
use core_train::run::folder::CHECKPOINTS;
use core_train::run::state::STATE;

use super::DiskUse;
use crate::plan::{Cell, PlannedRun};

/// What lies in a results folder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// The finished runs of the experiment, and those from which they went on.
    pub(super) planned: DiskUse,
    /// Everything else that stays.
    pub(super) others: DiskUse,
    /// Runs that are not finished, which are replaced by finished ones.
    pub(super) unfinished: u64,
}

impl Measured {
    /// Looks at all files.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub(super) fn read(results: &Path, cells: &[Cell]) -> Result<Self> {
        let planned = addresses(cells);
        let mut measured = Self::default();
        for (name, path) in entries(results)? {
            match name.as_str() {
                "runs" => measured.read_runs(&path, &planned)?,
                "images" => measured.others.images += size(&path)?,
                "features" => measured.others.features += size(&path)?,
                _ => measured.others.tables += size(&path)?,
            }
        }
        Ok(measured)
    }

    fn read_runs(&mut self, runs: &Path, planned: &BTreeSet<&str>) -> Result<()> {
        for (name, run) in entries(runs)? {
            if name.contains(".partial") {
                self.unfinished += size(&run)?;
                continue;
            }
            let of = match planned.contains(name.as_str()) {
                true => &mut self.planned,
                false => &mut self.others,
            };
            of.runs += on_disk(1);
            for (name, path) in entries(&run)? {
                let bytes = size(&path)?;
                match name.as_str() {
                    UNET | TEXT_ENCODER | LORA | OFT | CHECKPOINTS => of.weights += bytes,
                    STATE => of.states += bytes,
                    _ => of.runs += bytes,
                }
            }
        }
        Ok(())
    }

    /// All of it.
    pub(super) fn all(&self) -> DiskUse {
        let (a, b) = (self.planned, self.others);
        DiskUse {
            weights: a.weights + b.weights,
            states: a.states + b.states + self.unfinished,
            runs: a.runs + b.runs,
            images: a.images + b.images,
            features: a.features + b.features,
            tables: a.tables + b.tables,
        }
    }
}

/// The addresses of all runs, with those from which they can go on.
fn addresses(cells: &[Cell]) -> BTreeSet<&str> {
    let runs = cells.iter().filter_map(|cell| cell.run.as_ref());
    let chains = runs.flat_map(|run| {
        std::iter::successors(Some(run), |run: &&PlannedRun| run.earlier.as_deref())
    });
    chains.map(|run| run.address.as_str()).collect()
}

/// The names and paths in a folder; none where there is no folder, or a file.
fn entries(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let absent = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    let listed = match std::fs::read_dir(folder) {
        Err(error) if absent.contains(&error.kind()) => return Ok(Vec::new()),
        other => other.with_context(|| folder.display().to_string())?,
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.with_context(|| folder.display().to_string())?;
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    Ok(entries)
}

/// The bytes of a file, or of a folder with everything in it. What another process removes meanwhile counts nothing.
fn size(path: &Path) -> Result<u64> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(0);
    };
    let mut bytes = on_disk(metadata.len());
    if metadata.is_dir() {
        for (_, path) in entries(path)? {
            bytes += size(&path)?;
        }
    }
    Ok(bytes)
}
