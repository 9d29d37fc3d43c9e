//! `core-eval score`: the three scores of images that any tool made.

mod items;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use core_model::device::parse_device;
use core_model::files::write_atomically;
use core_model::source::EncoderSource;
use core_train::config::{ConceptConfig, parse};
use core_train::progress::Progress;
use image::{GrayImage, RgbImage};
use indexmap::IndexSet;

use super::say;
use crate::foregrounds::{no_class_word, of_photos, read_mask};
use crate::metrics::{Feature, JudgeFolders, Judges, Place, References, Scores, Seen};
use crate::pictures::{load_images, picture_files};
use crate::protocol::Protocol;
use crate::statistics::{mean, weighted_mean};

use items::{Item, items};

/// Images that are looked at together.
const BATCH: usize = 32;

/// Arguments of `core-eval score`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["generated", "images"])))]
#[command(group(ArgGroup::new("text").args(["prompt", "prompts"])))]
pub struct ScoreArgs {
    /// Folder of images, all of one concept; scored in the order of their names
    #[arg(long, value_name = "DIR", requires = "text")]
    generated: Option<PathBuf>,
    /// CSV with the columns image,concept,prompt,kind; paths are relative to it
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    images: Option<PathBuf>,
    /// Folder of photos; with --images one folder of photos for each concept in it
    #[arg(long, value_name = "DIR")]
    references: PathBuf,
    /// The prompt of all images; {} stands for the concept that the photos' concept.toml names
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// CSV with the columns image,prompt
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Folder of a CLIP model as transformers writes it, or repository of the hub
    #[arg(long, value_name = "DIR")]
    clip: PathBuf,
    /// Folder of a DINO model (ViT) as transformers writes it, or repository of the hub
    #[arg(long, value_name = "DIR")]
    dino: PathBuf,
    /// dreambooth, core (masked foregrounds), textual-inversion, custom-diffusion, oft or
    /// dreambench-plus
    #[arg(long, value_name = "NAME", default_value = "dreambooth")]
    protocol: String,
    /// Masks of the images: same names, png, white where the concept is
    #[arg(long, value_name = "DIR")]
    generated_masks: Option<PathBuf>,
    /// Masks of the photos: same names, png [default: masks/ beside them, else by --clipseg]
    #[arg(long, value_name = "DIR")]
    references_masks: Option<PathBuf>,
    /// Folder of a CLIPSeg model as transformers writes it, which makes the masks
    #[arg(long, value_name = "DIR", conflicts_with = "generated_masks")]
    clipseg: Option<PathBuf>,
    /// cpu, wgpu[:i] or cuda[:i]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The CSV to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Scores the images, writes the CSV and the protocol, and prints the means.
///
/// # Errors
/// Absent folders and files, images without prompt, models that cannot be used, masks that the
/// protocol needs; all found before the first image is scored, but damaged pictures. What was
/// scored before such a one is kept beside the CSV.
pub fn run(args: &ScoreArgs) -> Result<()> {
    let device = parse_device(&args.device)?;
    let args = &args.located()?;
    let protocol = Protocol::named(&args.protocol)?;
    protocol.check_masks(args.generated_masks.is_some() || args.clipseg.is_some())?;
    check_writable(&args.out)?;
    let items = items(args, protocol)?;
    for item in &items {
        let files = [Some(&item.path), item.mask.as_ref()];
        for file in files.into_iter().flatten() {
            ensure!(
                file.is_file(),
                "{}: no such file, for image `{}`",
                file.display(),
                item.name
            );
        }
    }
    let judges = Judges::load(args.judges(), &device)?;
    let concepts = Concepts::read(args, &items)?;
    let texts = concepts.texts(&items, protocol)?;
    let references = references(args, &items, &judges, protocol, &concepts)?;
    let with_concept = args.images.is_some();
    let mut scores = Vec::with_capacity(items.len());
    let scored = Scoring {
        judges: &judges,
        protocol,
        concepts: &concepts,
        references: &references,
    }
    .score(&items, &texts, &mut scores);
    if let Err(failure) = scored {
        if scores.is_empty() {
            return Err(failure);
        }
        let kept = args.out.with_extension("partial.csv");
        write(&kept, &items, &scores, with_concept)?;
        return Err(failure.context(format!(
            "stopped after {} of {} images; their scores are in {}",
            scores.len(),
            items.len(),
            kept.display()
        )));
    }
    write(&args.out, &items, &scores, with_concept)?;
    let folders: BTreeMap<&str, PathBuf> = references
        .keys()
        .map(|concept| (concept.as_str(), args.folder_of(concept)))
        .collect();
    let folders = folders.iter().map(|(name, path)| (*name, path.as_path()));
    let text = protocol.to_json(args.judges(), folders)?;
    write_atomically(&args.out.with_extension("protocol.json"), text.as_bytes())?;
    let photos = |concept: &str| references.get(concept).map_or(1, |r| r.whole.dino.len());
    say(&means(&items, &scores, with_concept, photos));
    Ok(())
}

/// Finds out before the work whether the results can be written.
fn check_writable(out: &Path) -> Result<()> {
    ensure!(
        !out.is_dir(),
        "--out {}: is a folder; name a CSV file in it",
        out.display()
    );
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    ensure!(
        folder.is_dir(),
        "--out {}: there is no folder {}; make it first",
        out.display(),
        folder.display()
    );
    tempfile::tempfile_in(folder).with_context(|| {
        format!(
            "--out {}: nothing can be written to {}; name a file in another folder",
            out.display(),
            folder.display()
        )
    })?;
    Ok(())
}

impl ScoreArgs {
    /// The same with folders for the judges, fetched where they are repositories of the hub.
    fn located(&self) -> Result<Self> {
        let folder = |path: &Path| -> Result<PathBuf> {
            Ok(EncoderSource::from(path).locate()?.path().to_path_buf())
        };
        Ok(Self {
            clip: folder(&self.clip)?,
            dino: folder(&self.dino)?,
            clipseg: self.clipseg.as_deref().map(folder).transpose()?,
            ..self.clone()
        })
    }

    fn judges(&self) -> JudgeFolders<'_> {
        JudgeFolders {
            clip: &self.clip,
            dino: &self.dino,
            clipseg: self.clipseg.as_deref(),
        }
    }

    /// The folder of a concept's photos.
    fn folder_of(&self, concept: &str) -> PathBuf {
        if concept.is_empty() {
            self.references.clone()
        } else {
            self.references.join(concept)
        }
    }
}

/// The concept.toml beside the photos of each concept, where there is one.
struct Concepts(BTreeMap<String, Option<ConceptConfig>>);

impl Concepts {
    /// Reads those that are needed: for prompts with `{}`, and for what the mask judge looks for.
    ///
    /// # Errors
    /// A damaged concept.toml; an absent one where the mask judge needs it.
    fn read(args: &ScoreArgs, items: &[Item]) -> Result<Self> {
        let mut concepts = BTreeMap::new();
        let masked = args.clipseg.is_some();
        for item in items {
            let needed = masked || item.prompt.contains("{}");
            if !needed || concepts.contains_key(&item.concept) {
                continue;
            }
            let folder = args.folder_of(&item.concept);
            let file = folder.join("concept.toml");
            ensure!(!masked || file.exists(), no_class_word(&folder));
            let concept = file.exists().then(|| parse(&file)).transpose()?;
            concepts.insert(item.concept.clone(), concept);
        }
        Ok(Self(concepts))
    }

    fn of(&self, concept: &str) -> Option<&ConceptConfig> {
        self.0.get(concept).and_then(Option::as_ref)
    }

    fn class_word(&self, concept: &str) -> Option<&str> {
        Some(self.of(concept)?.super_category.as_str())
    }

    /// What CLIP reads for every image.
    fn texts(&self, items: &[Item], protocol: &Protocol) -> Result<Vec<String>> {
        items
            .iter()
            .map(|item| {
                let word = self.of(&item.concept).map(ConceptConfig::placeholder_token);
                let class_word = self.class_word(&item.concept);
                protocol
                    .text(&item.prompt, word.as_deref(), class_word)
                    .with_context(|| format!("image `{}`", item.name))
            })
            .collect()
    }
}

/// The photos of every concept.
fn references(
    args: &ScoreArgs,
    items: &[Item],
    judges: &Judges,
    protocol: &Protocol,
    concepts: &Concepts,
) -> Result<BTreeMap<String, References>> {
    let mut images: BTreeMap<&str, usize> = BTreeMap::new();
    for item in items {
        *images.entry(&item.concept).or_default() += 1;
    }
    let mut files = Vec::new();
    for (concept, count) in images {
        let folder = args.folder_of(concept);
        let photos = picture_files(&folder)?;
        protocol.check_counts(&folder.display().to_string(), count, photos.len())?;
        files.push((concept, folder, photos));
    }
    let mut all = BTreeMap::new();
    for (concept, folder, files) in files {
        let photos = load_images(files.iter().map(PathBuf::as_path))?;
        let masks = protocol.masked.then(|| {
            let given = args.references_masks.as_ref();
            let given = given.map(|masks| masks.join(concept));
            let word = concepts.class_word(concept);
            of_photos(&folder, &files, &photos, given.as_deref(), judges, word)
        });
        let masks = masks.transpose()?;
        let references = judges.references(&photos, masks.as_deref())?;
        all.insert(concept.to_string(), references);
    }
    Ok(all)
}

/// What images are scored with.
struct Scoring<'a> {
    judges: &'a Judges,
    protocol: &'a Protocol,
    concepts: &'a Concepts,
    references: &'a BTreeMap<String, References>,
}

impl Scoring<'_> {
    /// Appends the scores of the images in their order; what was scored before an error stays.
    fn score(&self, items: &[Item], texts: &[String], scores: &mut Vec<Scores>) -> Result<()> {
        let mut progress = Progress::new("images", 0, items.len() as u64);
        let mut places = Places::default();
        let mut read: HashMap<&str, Feature> = HashMap::new();
        for (batch, texts) in items.chunks(BATCH).zip(texts.chunks(BATCH)) {
            let seen = self.look(batch)?;
            for ((item, seen), text) in batch.iter().zip(seen).zip(texts) {
                let text = match read.entry(text) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(self.judges.text_feature(text)),
                };
                let photos = self.references.get(&item.concept);
                let of_image = seen
                    .scores(self.protocol, places.next(item), text, photos)
                    .with_context(|| format!("image `{}`", item.name))?;
                scores.push(of_image);
                progress.advance("");
            }
        }
        progress.finish();
        Ok(())
    }

    /// What the judges see of some images.
    fn look(&self, batch: &[Item]) -> Result<Vec<Seen>> {
        let images = load_images(batch.iter().map(|item| item.path.as_path()))?;
        let masks = self.protocol.masked.then(|| self.masks(batch, &images));
        self.judges.seen(&images, masks.transpose()?.as_deref())
    }

    /// From files where the items name them, else from the mask judge.
    fn masks(&self, batch: &[Item], images: &[RgbImage]) -> Result<Vec<GrayImage>> {
        let files: Option<Vec<&PathBuf>> = batch.iter().map(|item| item.mask.as_ref()).collect();
        if let Some(files) = files {
            let pairs = files.into_iter().zip(images);
            return pairs.map(|(file, image)| read_mask(file, image)).collect();
        }
        let words = batch
            .iter()
            .filter_map(|item| self.concepts.class_word(&item.concept));
        self.judges.masks(images, &words.collect::<Vec<_>>())
    }
}

/// Counts images within concepts and prompts.
#[derive(Default)]
struct Places<'a> {
    of_concept: BTreeMap<&'a str, usize>,
    of_prompt: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> Places<'a> {
    fn next(&mut self, item: &'a Item) -> Place<'a> {
        let count = |counter: &mut usize| {
            *counter += 1;
            *counter - 1
        };
        let prompt = (item.concept.as_str(), item.prompt.as_str());
        Place {
            index: count(self.of_concept.entry(&item.concept).or_default()),
            number: count(self.of_prompt.entry(prompt).or_default()),
            kind: &item.kind,
        }
    }
}

fn write(out: &Path, items: &[Item], scores: &[Scores], with_concept: bool) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = || out.display().to_string();
    let mut header = vec!["image", "concept", "clip_t", "clip_i", "dino"];
    if !with_concept {
        header.remove(1);
    }
    writer.write_record(&header).with_context(failed)?;
    for (item, scores) in items.iter().zip(scores) {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let mut record = vec![
            item.name.clone(),
            item.concept.clone(),
            number(scores.clip_t),
            number(scores.clip_i),
            number(scores.dino),
        ];
        if !with_concept {
            record.remove(1);
        }
        writer.write_record(&record).with_context(failed)?;
    }
    let bytes = writer.into_inner().with_context(failed)?;
    Ok(write_atomically(out, &bytes)?)
}

/// Means over all images or, with concepts, of each concept, over these, and over everything: all
/// images for CLIP-T, all pairs of image and photo for the others.
fn means(
    items: &[Item],
    scores: &[Scores],
    with_concept: bool,
    photos: impl Fn(&str) -> usize,
) -> String {
    let concepts: IndexSet<&str> = items.iter().map(|item| item.concept.as_str()).collect();
    let columns: [fn(&Scores) -> Option<f64>; 3] = [
        |scores| scores.clip_t,
        |scores| scores.clip_i,
        |scores| scores.dino,
    ];
    let of_concept: Vec<[Option<f64>; 3]> = concepts
        .iter()
        .map(|concept| {
            columns.map(|column| {
                let rows = items.iter().zip(scores);
                let rows = rows.filter(|(item, _)| item.concept == *concept);
                mean(rows.filter_map(|(_, scores)| column(scores)))
            })
        })
        .collect();
    let line = |name: &str, values: [Option<f64>; 3]| {
        let [t, i, d] = values.map(|v| v.map_or("-".to_string(), |v| format!("{v:.6}")));
        format!("{name}clip_t {t} clip_i {i} dino {d}")
    };
    let all = [0, 1, 2].map(|column| mean(of_concept.iter().filter_map(|row| row[column])));
    if !with_concept {
        return line("", all);
    }
    let pooled = [0, 1, 2].map(|index| {
        let weight = |item: &Item| match index {
            0 => 1.0,
            _ => photos(&item.concept) as f64,
        };
        let rows = items.iter().zip(scores);
        weighted_mean(
            rows.filter_map(|(item, scores)| Some((columns[index](scores)?, weight(item)))),
        )
    });
    let mut lines: Vec<String> = concepts
        .iter()
        .zip(of_concept)
        .map(|(concept, values)| line(&format!("{concept}: "), values))
        .collect();
    let count = concepts.len();
    lines.push(line(&format!("macro mean of {count} concepts: "), all));
    let count = items.len();
    lines.push(line(&format!("pooled mean of {count} images: "), pooled));
    lines.join("\n")
}
