//! `core-eval score`: the three scores of images that any tool made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args};
use core_model::device::parse_device;
use core_model::files::write_atomically;
use core_model::image_processor::load_image;
use core_train::progress::Progress;
use serde::Deserialize;

use super::say;
use crate::metrics::{Judges, References, Scores};
use crate::pictures::{mask_of, masked, picture_files};
use crate::protocol::Protocol;

/// Images that are looked at together.
const BATCH: usize = 16;

/// Arguments of `core-eval score`.
#[derive(Debug, Args)]
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
    /// The prompt of all images, as CLIP shall read it
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// CSV with the columns image,prompt
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Folder of a CLIP model as transformers writes it
    #[arg(long, value_name = "DIR")]
    clip: PathBuf,
    /// Folder of a DINO model (ViT) as transformers writes it
    #[arg(long, value_name = "DIR")]
    dino: PathBuf,
    /// dreambooth (whole pictures) or core (masked foregrounds)
    #[arg(long, value_name = "NAME", default_value = "dreambooth")]
    protocol: String,
    /// Masks of the images: same names, png
    #[arg(long, value_name = "DIR", requires = "references_masks")]
    generated_masks: Option<PathBuf>,
    /// Masks of the photos: same names, png
    #[arg(long, value_name = "DIR", requires = "generated_masks")]
    references_masks: Option<PathBuf>,
    /// cpu, wgpu[:i] or cuda[:i]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The CSV to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// One image to be scored.
#[derive(Debug)]
struct Item {
    /// As it stands in the output.
    name: String,
    path: PathBuf,
    /// Empty when there is only one.
    concept: String,
    prompt: String,
    /// Empty when nobody said.
    kind: String,
    mask: Option<PathBuf>,
}

/// A row of `--images`.
#[derive(Debug, Deserialize)]
struct ImageRow {
    image: String,
    concept: String,
    prompt: String,
    kind: String,
}

/// A row of `--prompts`.
#[derive(Debug, Deserialize)]
struct PromptRow {
    image: String,
    prompt: String,
}

/// Scores the images, writes the CSV and prints the means.
///
/// # Errors
/// Absent folders and files, images without prompt, models that cannot be used, masks that the
/// protocol needs; all found before the first image is scored, but damaged pictures.
pub fn run(args: &ScoreArgs) -> Result<()> {
    let device = parse_device(&args.device)?;
    let protocol = Protocol::named(&args.protocol)?;
    protocol.check_masks(args.generated_masks.is_some())?;
    check_writable(&args.out)?;
    let items = items(args)?;
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
    let judges = Judges::load(&args.clip, &args.dino, &device)?;
    let references = references(args, &items, &judges)?;
    let scores = score(&items, &references, &judges, protocol)?;
    let with_concept = args.images.is_some();
    write(&args.out, &items, &scores, with_concept)?;
    say(&means(&items, &scores, with_concept));
    Ok(())
}

fn check_writable(out: &Path) -> Result<()> {
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
    Ok(())
}

fn items(args: &ScoreArgs) -> Result<Vec<Item>> {
    let mask = |name: &str| {
        let masks = args.generated_masks.as_ref()?;
        Some(mask_of(masks, Path::new(name)))
    };
    if let Some(csv) = &args.images {
        let folder = csv.parent().unwrap_or(Path::new(""));
        let rows: Vec<ImageRow> = read(csv, "image,concept,prompt,kind")?;
        ensure!(!rows.is_empty(), "{}: holds no rows", csv.display());
        let item = |row: ImageRow| Item {
            path: folder.join(&row.image),
            mask: mask(&row.image),
            name: row.image,
            concept: row.concept,
            prompt: row.prompt,
            kind: row.kind,
        };
        return Ok(rows.into_iter().map(item).collect());
    }
    let Some(generated) = &args.generated else {
        bail!("name the images with --generated or --images");
    };
    let mut prompts = match &args.prompts {
        Some(csv) => Some(prompts(csv)?),
        None => None,
    };
    let mut items = Vec::new();
    for path in picture_files(generated)? {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let prompt = match (&mut prompts, &args.prompts) {
            (Some(prompts), Some(csv)) => prompts
                .remove(&name)
                .with_context(|| format!("{}: no prompt for the image `{name}`", csv.display()))?,
            _ => args.prompt.clone().unwrap_or_default(),
        };
        items.push(Item {
            path,
            mask: mask(&name),
            name,
            concept: String::new(),
            prompt,
            kind: String::new(),
        });
    }
    if let Some(absent) = prompts.as_ref().and_then(|prompts| prompts.keys().next()) {
        bail!(
            "{}: the image `{absent}`, which has a prompt, is not there",
            generated.display()
        );
    }
    Ok(items)
}

fn prompts(csv: &Path) -> Result<BTreeMap<String, String>> {
    let mut prompts = BTreeMap::new();
    for row in read::<PromptRow>(csv, "image,prompt")? {
        if prompts.insert(row.image.clone(), row.prompt).is_some() {
            bail!(
                "{}: two prompts for the image `{}`",
                csv.display(),
                row.image
            );
        }
    }
    Ok(prompts)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path, columns: &str) -> Result<Vec<T>> {
    let context = || {
        format!(
            "{}: expected a CSV with the columns {columns}",
            path.display()
        )
    };
    let mut reader = csv::Reader::from_path(path).with_context(context)?;
    reader
        .deserialize()
        .map(|row| row.with_context(context))
        .collect()
}

/// The photos of every concept.
fn references(
    args: &ScoreArgs,
    items: &[Item],
    judges: &Judges,
) -> Result<BTreeMap<String, References>> {
    let mut all = BTreeMap::new();
    for item in items {
        if all.contains_key(&item.concept) {
            continue;
        }
        let mut photos = Vec::new();
        for path in picture_files(&args.references.join(&item.concept))? {
            let photo = load_image(&path)?;
            let name = Path::new(&item.concept).join(path.file_name().unwrap_or_default());
            photos.push(match &args.references_masks {
                Some(masks) => masked(&photo, &mask_of(masks, &name))?,
                None => photo,
            });
        }
        all.insert(item.concept.clone(), judges.references(&photos)?);
    }
    Ok(all)
}

fn score(
    items: &[Item],
    references: &BTreeMap<String, References>,
    judges: &Judges,
    protocol: Protocol,
) -> Result<Vec<Scores>> {
    let mut progress = Progress::new("images", 0, items.len() as u64);
    let mut scores = Vec::with_capacity(items.len());
    for batch in items.chunks(BATCH) {
        let mut images = Vec::new();
        let mut foregrounds = Vec::new();
        for item in batch {
            let image = load_image(&item.path)?;
            if let Some(mask) = &item.mask {
                foregrounds.push(masked(&image, mask)?);
            }
            images.push(image);
        }
        let prompts: Vec<String> = batch.iter().map(|item| item.prompt.clone()).collect();
        let text = judges.text_features(&prompts)?;
        let clip = judges.clip_image_features(&images)?;
        let (identity, dino) = if foregrounds.is_empty() {
            (clip.clone(), judges.dino_features(&images)?)
        } else {
            let clip = judges.clip_image_features(&foregrounds)?;
            (clip, judges.dino_features(&foregrounds)?)
        };
        for (index, item) in batch.iter().enumerate() {
            let counts = protocol.scores_identity(&item.kind);
            let photos = references.get(&item.concept).filter(|_| counts);
            scores.push(Scores {
                clip_t: crate::metrics::cosine(&clip[index], &text[index]),
                clip_i: photos.map(|photos| photos.clip_i(&identity[index])),
                dino: photos.map(|photos| photos.dino(&dino[index])),
            });
            progress.advance("");
        }
    }
    progress.finish();
    Ok(scores)
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
            scores.clip_t.to_string(),
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

/// Means over all images or, with concepts, of each concept and then over these.
fn means(items: &[Item], scores: &[Scores], with_concept: bool) -> String {
    let mut concepts: Vec<&str> = Vec::new();
    for item in items {
        if !concepts.contains(&item.concept.as_str()) {
            concepts.push(&item.concept);
        }
    }
    let columns: [fn(&Scores) -> Option<f64>; 3] = [
        |scores| Some(scores.clip_t),
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
    let mut lines: Vec<String> = concepts
        .iter()
        .zip(of_concept)
        .map(|(concept, values)| line(&format!("{concept}: "), values))
        .collect();
    lines.push(line(&format!("mean of {} concepts: ", concepts.len()), all));
    lines.join("\n")
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
