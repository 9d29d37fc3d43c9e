//! Rows of `tokens.csv`, computed once per run and kept for the next start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::files::sha256;
use core_train::adapters::UNET;
use core_train::run::removed::Removed;

use crate::base::Base;
use crate::experiment::Experiment;
use crate::gallery::{Key, Store};
use crate::plan::{Cell, PlannedRun};
use crate::report::TokenRow;
use crate::tokens::{TokenProbe, related};

/// The rows of runs, which are computed only when they are not known.
pub struct KeptTokens<'a> {
    experiment: &'a Experiment,
    probe: &'a TokenProbe<'a>,
    base: &'a Base,
    results: &'a Path,
    store: Store,
    /// How many prompts the text encoder has read.
    pub prompts: u64,
}

impl<'a> KeptTokens<'a> {
    /// Opens the file in which rows are kept.
    ///
    /// # Errors
    /// Unreadable files of the model.
    pub fn open(
        experiment: &'a Experiment,
        probe: &'a TokenProbe<'a>,
        base: &'a Base,
        results: &'a Path,
        file: &Path,
    ) -> Result<Self> {
        let model = base.folder();
        let parts = model.digests()?.iter().filter(|(name, _)| {
            name.starts_with("text_encoder/") || name.starts_with("tokenizer/")
        });
        let parts: Vec<String> = parts.map(|(name, digest)| name.clone() + digest).collect();
        let network = format!("{parts:?} {:?}", model.weights());
        Ok(Self {
            experiment,
            probe,
            base,
            results,
            store: Store::open(Some(file.to_path_buf()), &Key::of(&[&network]).hex()),
            prompts: 0,
        })
    }

    /// The rows of a cell; none for a variant without training.
    ///
    /// # Errors
    /// An unreadable run.
    pub fn rows(&mut self, cell: &Cell) -> Result<Vec<TokenRow>> {
        let Some(run) = &cell.run else {
            return Ok(Vec::new());
        };
        let key = self.key(run)?;
        let known = self.store.get(key).and_then(parse);
        let mut rows = match known {
            Some(rows) => rows,
            None => {
                let rows = self.probe.rows(cell, self.base, self.results)?;
                self.store.insert(key, to_csv(&rows)?);
                let concept = &run.config.concept;
                // Each prompt is encoded with the learned concept and with the super-category.
                self.prompts += 2 * related(self.experiment, concept).count() as u64;
                rows
            }
        };
        // Equal runs of two variants have equal rows under two names.
        for row in &mut rows {
            row.variant
                .clone_from(&self.experiment.variants[cell.variant].name);
        }
        Ok(rows)
    }

    /// Writes new rows to the file.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn save(&mut self) -> Result<()> {
        self.store.save()
    }

    /// What determines the rows of a run, beside the base model.
    fn key(&self, run: &PlannedRun) -> Result<Key> {
        let trained = trained_weights(&run.folder(self.results))?;
        let prompts = self.experiment.prompts_for(&run.config.concept);
        let mut parts = vec![run.address.as_str()];
        parts.extend(trained.iter().map(String::as_str));
        parts.extend(prompts.iter().map(|prompt| prompt.prompt.as_str()));
        Ok(Key::of(&parts))
    }
}

/// The digests of the weights that a run has trained, except its U-Net, which does not encode prompts; of those that were
/// removed, what is noted.
fn trained_weights(run: &Path) -> Result<Vec<String>> {
    let mut digests: BTreeMap<PathBuf, String> = BTreeMap::new();
    let is_counted = |path: &Path| {
        !path.starts_with(UNET) && path.extension().is_some_and(|end| end == "safetensors")
    };
    for path in entries(run)? {
        let files = if path.is_dir() {
            entries(&path)?
        } else {
            vec![path]
        };
        for file in files {
            let name = file.strip_prefix(run)?.to_path_buf();
            if is_counted(&name) {
                digests.insert(name, sha256(&file)?);
            }
        }
    }
    let removed = Removed::read(run)?.unwrap_or_default().files.into_iter();
    let removed = removed.map(|(name, digest)| (PathBuf::from(name), digest));
    digests.extend(removed.filter(|(name, _)| is_counted(name)));
    Ok(digests.into_values().collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let at = || folder.display().to_string();
    let entries = std::fs::read_dir(folder).with_context(at)?;
    entries
        .map(|entry| Ok(entry.with_context(at)?.path()))
        .collect()
}

fn to_csv(rows: &[TokenRow]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.into_inner()?)
}

fn parse(bytes: &[u8]) -> Option<Vec<TokenRow>> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader.deserialize().collect::<csv::Result<_>>().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_to_the_last_bit() {
        let rows = [0.1 + 0.2, 1.0, -1e-17].map(|cosine| TokenRow {
            variant: "CoRe".into(),
            concept: "dog".into(),
            seed: 3,
            prompt: "a \"{}\", old".into(),
            position: 1,
            token: "a</w>".into(),
            cosine,
        });
        assert_eq!(parse(&to_csv(&rows).unwrap()).unwrap(), rows);
        assert_eq!(parse(b"variant\nCoRe\n"), None);
        assert_eq!(parse(b""), Some(Vec::new()));
    }
}
