//! Which images are scored: a folder or a list, with prompts, kinds and masks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use core_model::files::is_plain_name;
use core_model::photos::PhotoFolder;
use serde::Deserialize;

use super::ScoreArgs;
use core_eval::masks::mask_file;
use core_eval::protocol::Protocol;
use core_eval::rows::read_rows;

/// One image to be scored.
#[derive(Debug)]
pub(super) struct Item {
    /// Its name in the output.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Empty when all images are of one concept.
    pub(super) concept: String,
    pub(super) prompt: String,
    /// Empty when it is not given.
    pub(super) kind: String,
    pub(super) mask: Option<PathBuf>,
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

/// The images that the arguments name, each with its prompt.
///
/// # Errors
/// Absent folders, wrong columns, images without prompts, prompts without images, concepts that name no
/// folder, kinds that the protocol does not know.
pub(super) fn items(args: &ScoreArgs, protocol: &Protocol) -> Result<Vec<Item>> {
    match (&args.images, &args.generated) {
        (Some(csv), _) => listed(csv, args, protocol),
        (None, Some(folder)) => in_folder(folder, args),
        (None, None) => bail!("name the images with --generated or --images"),
    }
}

/// The mask of an image, where there is a folder of masks.
fn mask(args: &ScoreArgs, name: &str) -> Option<PathBuf> {
    let masks = args.generated_masks.as_ref()?;
    Some(mask_file(masks, Path::new(name)))
}

/// The rows of a list of images.
fn listed(csv: &Path, args: &ScoreArgs, protocol: &Protocol) -> Result<Vec<Item>> {
    let folder = csv.parent().unwrap_or(Path::new(""));
    let rows: Vec<ImageRow> = read_rows(csv, "image,concept,prompt,kind")?;
    ensure!(!rows.is_empty(), "{}: holds no rows", csv.display());
    for (number, row) in rows.iter().enumerate() {
        // The header is line 1.
        let at = || format!("{}: line {}", csv.display(), number + 2);
        ensure!(
            is_plain_name(&row.concept),
            "{}: the concept is `{}`; expected the name of a folder in {}",
            at(),
            row.concept,
            args.references.display()
        );
        protocol.check_kind(&row.kind).with_context(at)?;
    }
    let item = |row: ImageRow| Item {
        path: folder.join(&row.image),
        mask: mask(args, &row.image),
        name: row.image,
        concept: row.concept,
        prompt: row.prompt,
        kind: row.kind,
    };
    Ok(rows.into_iter().map(item).collect())
}

/// The images of a folder, all of one concept.
fn in_folder(folder: &Path, args: &ScoreArgs) -> Result<Vec<Item>> {
    let mut prompts = match &args.prompts {
        Some(csv) => Some(prompts(csv)?),
        None => None,
    };
    let mut items = Vec::new();
    let images = PhotoFolder::read(folder)?;
    images.say_skipped();
    for path in images.files {
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
            mask: mask(args, &name),
            name,
            concept: String::new(),
            prompt,
            kind: String::new(),
        });
    }
    if let Some(absent) = prompts.as_ref().and_then(|prompts| prompts.keys().next()) {
        bail!(
            "{}: the image `{absent}`, which has a prompt, is not there",
            folder.display()
        );
    }
    Ok(items)
}

fn prompts(csv: &Path) -> Result<BTreeMap<String, String>> {
    let mut prompts = BTreeMap::new();
    for row in read_rows::<PromptRow>(csv, "image,prompt")? {
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
