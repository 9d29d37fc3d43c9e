//! What a study shows: the images of a results folder that share their noise, the photos of the concepts,
//! and images of which everybody can tell that they do not show the concept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use core_model::files::{read_to_string, sha256};
use core_model::photos::PhotoFolder;
use core_train::phrase::SLOT;
use indexmap::IndexSet;
use serde::Deserialize;
use serde_json::Value;

use crate::report::{ScoreRow, ScoreTable};

/// A concept with its photos.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Concept {
    /// Its name in tables.
    pub(super) name: String,
    /// Its photos, in the order of their names.
    pub(super) photos: Vec<PathBuf>,
}

/// A prompt for a concept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prompt {
    /// The index of the concept.
    pub(super) concept: usize,
    /// The template, as in tables.
    pub(super) template: String,
    /// The template with the class word for the concept.
    pub(super) words: String,
    /// The seed and the number of each image.
    pub(super) images: Vec<Noise>,
}

/// What images of one concept and prompt share when they began with the same noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Noise {
    /// The seed.
    pub(super) seed: u64,
    /// The number of the image among those of the prompt.
    pub(super) image: usize,
}

/// Concept, template and noise of an image.
pub(super) type Place = (String, String, Noise);

/// All that a study can show.
#[derive(Debug, Clone)]
pub(super) struct Material {
    /// The variants that are compared.
    pub(super) variants: Vec<String>,
    /// The concepts.
    pub(super) concepts: Vec<Concept>,
    /// The prompts of all concepts.
    pub(super) prompts: Vec<Prompt>,
    /// For each variant the files by place.
    files: BTreeMap<String, BTreeMap<Place, PathBuf>>,
    /// The first variant without training, if there is one.
    pub(super) untuned: Option<String>,
}

impl Material {
    /// Reads a results folder. The photos are those that its runs were trained on, or lie in a folder for
    /// each concept in `photos`.
    ///
    /// # Errors
    /// No scores, unknown variants, variants with different images, absent images or photos, photos that
    /// are not those of the scores.
    pub(super) fn read(results: &Path, compare: &[String], photos: Option<&Path>) -> Result<Self> {
        let path = results.join("scores.csv");
        let ScoreTable { rows, .. } = ScoreTable::read(&path)?;
        ensure!(
            !rows.is_empty(),
            "{}: holds no scores; name a folder that an experiment wrote, as results/ablation",
            path.display()
        );
        let files = files_by_place(results, &rows)?;
        check_compared(&path, compare, &files)?;
        let of_first = rows.iter().filter(|row| row.variant == compare[0]);
        let of_first: Vec<&ScoreRow> = of_first.collect();
        let names: IndexSet<&str> = of_first.iter().map(|row| row.concept.as_str()).collect();
        let prompts = prompts(results, &of_first, &names, &files[&compare[0]])?;
        let concepts = names.into_iter().map(|name| {
            Ok(Concept {
                name: name.to_string(),
                photos: photo_files(results, name, photos)?,
            })
        });
        let concepts = concepts.collect::<Result<Vec<_>>>()?;
        let untuned = untuned(&files);
        Ok(Self {
            variants: compare.to_vec(),
            concepts,
            prompts,
            files,
            untuned,
        })
    }

    /// The image of a variant.
    ///
    /// # Errors
    /// There is none, or not on disk.
    pub(super) fn file(&self, variant: &str, prompt: &Prompt, noise: Noise) -> Result<&Path> {
        let concept = &self.concepts[prompt.concept].name;
        let place = (concept.clone(), prompt.template.clone(), noise);
        let of = self.files.get(variant).and_then(|of| of.get(&place));
        let file = of.with_context(|| {
            format!(
                "`{variant}` has no image of `{}` for {concept}",
                prompt.template
            )
        })?;
        ensure!(
            file.is_file(),
            "{}: there is no such image; people are shown the images, so name a results folder that \
             still has them (committed reference tables have none)",
            file.display()
        );
        Ok(file)
    }
}

/// The prompts of all concepts, in the order of a variant's rows.
fn prompts(
    results: &Path,
    rows: &[&ScoreRow],
    concepts: &IndexSet<&str>,
    files: &BTreeMap<Place, PathBuf>,
) -> Result<Vec<Prompt>> {
    let mut prompts: Vec<Prompt> = Vec::new();
    for row in rows {
        let concept = concepts.get_index_of(row.concept.as_str()).unwrap_or(0);
        let known = |p: &Prompt| p.concept == concept && p.template == row.prompt;
        if prompts.iter().any(known) {
            continue;
        }
        let places = files.keys();
        let of = places.filter(|(c, p, _)| *c == row.concept && *p == row.prompt);
        let word = class_word(&results.join(&row.image))?;
        prompts.push(Prompt {
            concept,
            template: row.prompt.clone(),
            words: row.prompt.replace(SLOT, &word),
            images: of.map(|(_, _, noise)| *noise).collect(),
        });
    }
    Ok(prompts)
}

/// The number of an image: that of its file name, or its place among the images of its prompt.
fn image_number(row: &ScoreRow, before: usize) -> usize {
    let stem = Path::new(&row.image).file_stem().unwrap_or_default();
    stem.to_str()
        .and_then(|stem| stem.parse().ok())
        .unwrap_or(before)
}

/// The place of every row of scores.
pub(super) fn places(rows: &[ScoreRow]) -> Vec<Place> {
    let mut counts: BTreeMap<(&str, &str, &str, u64), usize> = BTreeMap::new();
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        let of = (&*row.variant, &*row.concept, &*row.prompt, row.seed);
        let before = counts.entry(of).or_default();
        let noise = Noise {
            seed: row.seed,
            image: image_number(row, *before),
        };
        *before += 1;
        places.push((row.concept.clone(), row.prompt.clone(), noise));
    }
    places
}

fn files_by_place(
    results: &Path,
    rows: &[ScoreRow],
) -> Result<BTreeMap<String, BTreeMap<Place, PathBuf>>> {
    let mut files: BTreeMap<String, BTreeMap<Place, PathBuf>> = BTreeMap::new();
    for (row, place) in rows.iter().zip(places(rows)) {
        let of = files.entry(row.variant.clone()).or_default();
        if of.insert(place, results.join(&row.image)).is_some() {
            bail!(
                "{}: two rows of `{}` are about the same image {}",
                results.join("scores.csv").display(),
                row.variant,
                row.image
            );
        }
    }
    Ok(files)
}

/// Refuses variants that cannot be compared image by image.
fn check_compared(
    path: &Path,
    compare: &[String],
    files: &BTreeMap<String, BTreeMap<Place, PathBuf>>,
) -> Result<()> {
    ensure!(
        compare.len() >= 2,
        "--compare names {} variant; name two or more",
        compare.len()
    );
    for (index, variant) in compare.iter().enumerate() {
        ensure!(
            !compare[..index].contains(variant),
            "--compare names `{variant}` twice"
        );
        let Some(of) = files.get(variant) else {
            let known: Vec<String> = files.keys().map(|name| format!("`{name}`")).collect();
            bail!(
                "{}: has no variant `{variant}`; expected some of {}",
                path.display(),
                known.join(", ")
            );
        };
        let first = &files[&compare[0]];
        let lacking = first.keys().find(|place| !of.contains_key(*place));
        let beyond = of.keys().find(|place| !first.contains_key(*place));
        if let Some((concept, prompt, noise)) = lacking.or(beyond) {
            let (has, has_not) = match lacking {
                Some(_) => (&compare[0], variant),
                None => (variant, &compare[0]),
            };
            bail!(
                "{}: `{has}` has image {} of `{prompt}` for {concept} with seed {}, `{has_not}` has \
                 not; only variants with the same images can be compared",
                path.display(),
                noise.image,
                noise.seed
            );
        }
    }
    Ok(())
}

/// What `source.json` beside the images of a variant, concept and seed says.
#[derive(Debug, Deserialize)]
struct Source {
    run: Option<String>,
    super_category: String,
}

fn source(image: &Path) -> Result<Source> {
    let folder = image.parent().and_then(Path::parent).unwrap_or(image);
    let path = folder.join("source.json");
    ensure!(
        path.is_file(),
        "{}: there is no such file; name a results folder as an experiment of this version writes it, \
         with its images",
        path.display()
    );
    let text = read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The word that stands for the concept in sentences.
fn class_word(image: &Path) -> Result<String> {
    Ok(source(image)?.super_category)
}

/// The first variant whose images come from the base model.
fn untuned(files: &BTreeMap<String, BTreeMap<Place, PathBuf>>) -> Option<String> {
    let is_untuned = |of: &BTreeMap<Place, PathBuf>| {
        let first = of.values().next();
        first.is_some_and(|file| source(file).is_ok_and(|source| source.run.is_none()))
    };
    let mut variants = files.iter().filter(|(_, of)| is_untuned(of));
    variants.next().map(|(name, _)| name.clone())
}

/// The part of a run's configuration that names its photos.
#[derive(Debug, Deserialize)]
struct RunFile {
    concept: RunConcept,
}

#[derive(Debug, Deserialize)]
struct RunConcept {
    name: String,
    images: PathBuf,
    references: Option<PathBuf>,
}

/// The photos of a concept, which must be those that the scores are about.
fn photo_files(results: &Path, concept: &str, given: Option<&Path>) -> Result<Vec<PathBuf>> {
    let folder = match given {
        Some(given) => given.join(concept),
        None => compared_with(results, concept)?,
    };
    ensure!(
        folder.is_dir(),
        "{}: the folder with the photos of {concept} is not there; name the folder that holds it with \
         --photos",
        folder.display()
    );
    let photos = PhotoFolder::read(&folder)?.files;
    let path = results.join("protocol.json");
    let protocol: Value = serde_json::from_str(&read_to_string(&path)?)
        .with_context(|| path.display().to_string())?;
    let scored = protocol["photos"][concept].as_object();
    let scored: BTreeSet<&str> = scored
        .with_context(|| format!("{}: names no photos of {concept}", path.display()))?
        .values()
        .filter_map(Value::as_str)
        .collect();
    for photo in &photos {
        ensure!(
            scored.contains(sha256(photo)?.as_str()),
            "{}: is not one of the photos of {concept} that were scored in {}; give the folder of those \
             with --photos",
            photo.display(),
            results.display()
        );
    }
    Ok(photos)
}

/// The folder of the photos that images are compared with, in the configuration of a concept's run.
fn compared_with(results: &Path, concept: &str) -> Result<PathBuf> {
    let runs = results.join("runs");
    let mut folders: Vec<PathBuf> = match std::fs::read_dir(&runs) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    folders.sort();
    for folder in folders {
        let path = folder.join("config.toml");
        if !path.is_file() {
            continue;
        }
        let run: RunFile = core_train::config::parse(&path)?;
        if run.concept.name == concept {
            let RunConcept {
                images, references, ..
            } = run.concept;
            return Ok(folder.join(references.unwrap_or(images)));
        }
    }
    bail!(
        "{}: holds no run of {concept} that says where its photos are; name the folder that holds the \
         photos of {concept} in a folder of that name with --photos",
        runs.display()
    )
}
