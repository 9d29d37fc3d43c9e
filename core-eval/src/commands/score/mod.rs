//! `core-eval score`: the scores of images of any origin.

mod encoders;
mod items;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use core_model::device::parse_device;
use core_model::files::write_atomically;
use core_model::folder::EncoderFolder;
use core_model::photos::PhotoFolder;
use core_model::source::EncoderSource;
use core_train::config::{ConceptConfig, parse};
use core_train::progress::Progress;

use super::say;
use core_eval::gallery::{
    BATCH, Gallery, ImageFeatures, ImageFile, MaskSource, Needs, masked_photos, photos,
};
use core_eval::masks::no_class_word;
use core_eval::metrics::{EncoderFolders, Metric, Scores};
use core_eval::protocol::{Pairing, Protocol};
use core_eval::provenance::protocol_json;
use core_eval::scoring::{Place, scores};

use encoders::EncoderArgs;
use items::{Item, items};
use table::Scored;

/// Arguments of `core-eval score`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["generated", "images"])))]
#[command(group(ArgGroup::new("text").args(["prompt", "prompts"])))]
pub(crate) struct ScoreArgs {
    /// Folder of images, all of one concept
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
    #[command(flatten)]
    encoders: EncoderArgs,
    #[arg(long, value_name = "NAME", default_value = "dreambooth", help = protocol_help())]
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

fn protocol_help() -> String {
    let names: Vec<&str> = Protocol::names().collect();
    format!("How scores are computed: {}", names.join(", "))
}

/// Scores the images, writes the CSV and the protocol, and prints the means.
///
/// # Errors
/// Absent folders and files, images without prompts, models that cannot be used, absent masks: all are
/// found before the first image is scored. A damaged image is found when it is read; the scores of the
/// images before it are written beside the CSV.
pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
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
    let folders = args.folders();
    let mut gallery = Gallery::new(&folders, &device, None)?;
    let concepts = Concepts::read(args, &items)?;
    let texts = concepts.texts(&items, protocol)?;
    let metrics = folders.metrics();
    let photos = photos_of_concepts(args, &items, &mut gallery, protocol, &concepts)?;
    let mut scored = Scored {
        items: &items,
        scores: Vec::with_capacity(items.len()),
        metrics: metrics.clone(),
        with_concept: args.images.is_some(),
    };
    let outcome = Scoring {
        gallery: &mut gallery,
        metrics: &metrics,
        protocol,
        concepts: &concepts,
        photos: &photos,
    }
    .score(&items, &texts, &mut scored.scores);
    if let Err(failure) = outcome {
        if scored.scores.is_empty() {
            return Err(failure);
        }
        let kept = args.out.with_extension("partial.csv");
        scored.write(&kept)?;
        return Err(failure.context(format!(
            "stopped after {} of {} images; their scores are in {}",
            scored.scores.len(),
            items.len(),
            kept.display()
        )));
    }
    scored.write(&args.out)?;
    let concepts: BTreeMap<&str, PathBuf> = photos
        .keys()
        .map(|concept| (concept.as_str(), args.folder_of(concept)))
        .collect();
    let concepts = concepts.iter().map(|(name, path)| (*name, path.as_path()));
    let text = protocol_json(protocol, &folders, concepts)?;
    write_atomically(&args.out.with_extension("protocol.json"), text.as_bytes())?;
    say(&scored.means(|concept| photos.get(concept).map_or(1, Vec::len)));
    Ok(())
}

/// Checks before any work that the results can be written.
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
    /// The same arguments with folders in place of hub repositories, which are downloaded.
    fn located(&self) -> Result<Self> {
        let mut args = self.clone();
        args.encoders.0.locate()?;
        if let Some(clipseg) = &self.clipseg {
            let folder = EncoderSource::from(clipseg.as_path()).locate()?;
            args.clipseg = Some(folder.path().to_path_buf());
        }
        Ok(args)
    }

    fn folders(&self) -> EncoderFolders {
        let mut folders = self.encoders.0.clone();
        folders.clipseg = self.clipseg.as_ref().map(EncoderFolder::new);
        folders
    }

    /// The folder of the photos of a concept.
    fn folder_of(&self, concept: &str) -> PathBuf {
        if concept.is_empty() {
            self.references.clone()
        } else {
            self.references.join(concept)
        }
    }
}

/// The concept.toml of each concept, where there is one beside its photos.
struct Concepts(BTreeMap<String, Option<ConceptConfig>>);

impl Concepts {
    /// Reads those that are needed for prompts with `{}` and for the segmenter.
    ///
    /// # Errors
    /// A damaged concept.toml; an absent one where the segmenter needs it.
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

    /// The text that every image is compared with.
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

/// The photos of a concept in the order of its images: each goes with the photo of its name, to
/// the dot.
///
/// # Errors
/// An image without a photo of its name.
fn paired(
    items: &[Item],
    concept: &str,
    folder: &Path,
    photos: Vec<ImageFile>,
) -> Result<Vec<ImageFile>> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_os_string();
    let by_name: BTreeMap<_, _> = photos
        .iter()
        .map(|photo| (stem(&photo.path), photo))
        .collect();
    let items = items.iter().filter(|item| item.concept == concept);
    let photo = |item: &Item| {
        let found = by_name.get(&stem(&item.path)).map(|photo| (*photo).clone());
        found.with_context(|| {
            format!(
                "image `{}` has no photo of its name in {}; the protocol pairs them by name, so \
                 give both the same names, or use protocol `dreambooth`",
                item.name,
                folder.display()
            )
        })
    };
    items.map(photo).collect()
}

/// The features of the photos of every concept.
fn photos_of_concepts(
    args: &ScoreArgs,
    items: &[Item],
    gallery: &mut Gallery,
    protocol: &Protocol,
    concepts: &Concepts,
) -> Result<BTreeMap<String, Vec<ImageFeatures>>> {
    let mut images: BTreeMap<&str, usize> = BTreeMap::new();
    for item in items {
        *images.entry(&item.concept).or_default() += 1;
    }
    let mut files = Vec::new();
    for (concept, count) in images {
        let folder = args.folder_of(concept);
        PhotoFolder::read(&folder)?.say_skipped();
        let given = args.references_masks.as_ref();
        let given = given.map(|masks| masks.join(concept));
        let photos = match protocol.masked {
            true => masked_photos(&folder, given.as_deref(), concepts.class_word(concept))?,
            false => photos(&folder)?,
        };
        protocol.check_counts(&folder.display().to_string(), count, photos.len())?;
        let photos = match protocol.pairing {
            Pairing::OneToOne if photos.len() > 1 => paired(items, concept, &folder, photos)?,
            _ => photos,
        };
        files.push((concept, photos));
    }
    let needs = Needs::of_photos(&gallery.metrics(), &[protocol]);
    let mut all = BTreeMap::new();
    for (concept, photos) in files {
        gallery.check_photos(&photos)?;
        all.insert(concept.to_string(), gallery.features(&photos, &needs)?);
    }
    Ok(all)
}

/// Everything that the scores of images depend on.
struct Scoring<'a> {
    gallery: &'a mut Gallery,
    metrics: &'a [Metric],
    protocol: &'a Protocol,
    concepts: &'a Concepts,
    photos: &'a BTreeMap<String, Vec<ImageFeatures>>,
}

impl Scoring<'_> {
    /// Appends the scores of the images in their order; those before an error are kept.
    fn score(&mut self, items: &[Item], texts: &[String], all: &mut Vec<Scores>) -> Result<()> {
        let mut progress = Progress::new("images", 0, items.len() as u64);
        let mut places = Places::default();
        let needs = Needs::of_images(self.metrics, &[self.protocol]);
        for (batch, texts) in items.chunks(BATCH).zip(texts.chunks(BATCH)) {
            let files: Vec<ImageFile> = batch.iter().map(|item| self.file(item)).collect();
            let features = self.gallery.features(&files, &needs)?;
            for ((item, features), text) in batch.iter().zip(features).zip(texts) {
                let text = self.gallery.text_features(text, self.metrics)?;
                let photos = self.photos.get(&item.concept).map(Vec::as_slice);
                let place = places.next(item);
                let of_image = scores(self.protocol, self.metrics, &features, place, &text, photos);
                all.push(of_image.with_context(|| format!("image `{}`", item.name))?);
                progress.advance("");
            }
        }
        progress.finish();
        Ok(())
    }

    /// The image with the source of its mask: a file where the item names one, or else the segmenter.
    fn file(&self, item: &Item) -> ImageFile {
        let word = || self.concepts.class_word(&item.concept);
        let mask = match &item.mask {
            Some(mask) => Some(MaskSource::File(mask.clone())),
            None => word().map(|word| MaskSource::Word(word.to_string())),
        };
        ImageFile {
            path: item.path.clone(),
            mask,
        }
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
