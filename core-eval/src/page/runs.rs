//! The training runs behind the images: configuration and environment.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use core_model::files::read_to_string;
use core_model::photos::PhotoFolder;
use core_train::run::folder::{CONFIG, ENVIRONMENT};
use serde_json::Value;

use super::durations::{between, newest_image, training, written};
use crate::images::SOURCE;

/// What is kept of a run and of the images that were generated with it.
#[derive(Debug, Clone)]
pub struct RunFiles {
    /// The variant.
    pub variant: String,
    /// The concept.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The class word.
    pub word: String,
    /// The name of the run's folder; none for the base model.
    pub address: Option<String>,
    /// How the images were sampled.
    pub sampling: Value,
    /// The text of `config.toml`.
    pub config: Option<String>,
    /// The content of `environment.json`.
    pub environment: Option<Value>,
    /// Seconds that training took, where the times of the files tell.
    pub training: Option<u64>,
    /// Seconds that generating the images took.
    pub generation: Option<u64>,
    /// When the last image was written.
    pub newest_image: Option<SystemTime>,
    folder: PathBuf,
}

impl RunFiles {
    /// The runs of a results folder, as far as they are there.
    pub fn read_all(results: &Path) -> Vec<Self> {
        let mut runs = Vec::new();
        for (variant, folder) in folders(&results.join("images")) {
            for (concept, folder) in folders(&folder) {
                for (seed, folder) in folders(&folder) {
                    let Ok(seed) = seed.parse() else { continue };
                    let source = json(&folder.join(SOURCE));
                    let source = source.unwrap_or_default();
                    let mut run = Self::read(results, &variant, &concept, seed, source);
                    run.newest_image = newest_image(&folder);
                    run.generation = between(written(&folder.join(SOURCE)), run.newest_image);
                    runs.push(run);
                }
            }
        }
        runs
    }

    fn read(results: &Path, variant: &str, concept: &str, seed: u64, mut sampling: Value) -> Self {
        let text = |key: &str| sampling[key].as_str().map(str::to_string);
        let (address, word) = (text("run"), text("super_category"));
        let run = address.as_deref().unwrap_or_default();
        let folder = results.join("runs").join(run);
        if let Some(sampling) = sampling.as_object_mut() {
            sampling.retain(|key, _| !["run", "prompts", "super_category"].contains(&key.as_str()));
        }
        let kept = |name: &str| address.as_ref().map(|_| folder.join(name));
        Self {
            variant: variant.to_string(),
            concept: concept.to_string(),
            seed,
            word: word.unwrap_or_default(),
            config: kept(CONFIG).and_then(|path| read_to_string(&path).ok()),
            environment: kept(ENVIRONMENT).and_then(|path| json(&path)),
            training: address.as_ref().and_then(|_| training(&folder)),
            generation: None,
            newest_image: None,
            address,
            sampling,
            folder,
        }
    }

    /// The photos that images of its concept are compared with, where they still are where the run found them.
    pub fn photos(&self) -> Vec<PathBuf> {
        let config = self.config.as_deref().unwrap_or_default();
        let config: Option<toml::Table> = config.parse().ok();
        let folder = config.as_ref().and_then(|config| {
            let concept = config.get("concept")?;
            let folder = concept.get("references").or(concept.get("images"));
            folder?.as_str()
        });
        let photos = folder.and_then(|folder| PhotoFolder::read(&self.folder.join(folder)).ok());
        photos.map_or(Vec::new(), |photos| photos.files)
    }
}

/// The folders in a folder by name, sorted.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.path().is_dir());
    let named = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, entry.path())
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_str(&read_to_string(path).ok()?).ok()
}
