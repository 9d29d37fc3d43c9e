//! Which images are scored: a folder in one of several layouts or a list, with prompts, kinds, masks
//! and the images of the base model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use core_model::files::{is_plain_name, seen_from};
use core_model::photos::PhotoFolder;
use core_train::config::{ConceptConfig, parse};
use serde::Deserialize;

use super::ScoreArgs;
use super::items::{Item, Prompts};
use super::layout::{Layout, dreambench_plus, dreambench_plus_photos, dreambooth};
use core_eval::protocol::Protocol;
use core_eval::rows::read_rows;

/// The images with the folder of their photos.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) items: Vec<Item>,
    /// The photos, or a folder of photos for each concept.
    references: PathBuf,
    /// Whether the images belong to several concepts.
    pub(super) by_concept: bool,
}

impl Input {
    /// The images that the arguments name, each with its prompt.
    ///
    /// # Errors
    /// A folder that fits no layout, absent files, wrong columns, images without prompts, prompts
    /// without images, concepts that name no folder, kinds that the protocol does not know.
    pub(super) fn read(args: &ScoreArgs, protocol: &Protocol) -> Result<Self> {
        let references = args.references.clone();
        let input = match (&args.images, &args.generated) {
            (Some(csv), _) => Self {
                items: listed(csv, args, protocol)?,
                references: needed(references)?,
                by_concept: true,
            },
            (None, Some(folder)) => match args.layout.of(folder)? {
                Layout::DreambenchPlus => Self {
                    items: dreambench_plus(folder, args)?,
                    references: references.unwrap_or_else(|| dreambench_plus_photos(folder)),
                    by_concept: true,
                },
                Layout::Dreambooth => Self {
                    items: dreambooth(folder, args)?,
                    references: needed(references)?,
                    by_concept: true,
                },
                Layout::Plain | Layout::Auto => Self {
                    items: in_folder(folder, args)?,
                    references: needed(references)?,
                    by_concept: false,
                },
            },
            (None, None) => bail!("name the images with --generated or --images"),
        };
        input.check_files()?;
        Ok(input)
    }

    /// The folder of the photos that images of a concept are compared with: that of its photos, or the
    /// one that `references` in the `concept.toml` beside them names.
    ///
    /// # Errors
    /// A damaged `concept.toml`.
    pub(super) fn reference_photos(&self, concept: &str) -> Result<PathBuf> {
        let folder = self.photos(concept);
        let file = folder.join("concept.toml");
        if !file.exists() {
            return Ok(folder);
        }
        let concept: ConceptConfig = parse(&file)?;
        Ok(match concept.references {
            Some(references) => seen_from(&folder, &references),
            None => folder,
        })
    }

    /// The folder of the photos of a concept.
    pub(super) fn photos(&self, concept: &str) -> PathBuf {
        match self.by_concept {
            true => self.references.join(concept),
            false => self.references.clone(),
        }
    }

    /// Refuses images that are not there, or whose mask or base image is not.
    fn check_files(&self) -> Result<()> {
        for item in &self.items {
            let files = [Some(&item.path), item.mask.as_ref(), item.base.as_ref()];
            for file in files.into_iter().flatten() {
                ensure!(
                    file.is_file(),
                    "{}: no such file, for image `{}`",
                    file.display(),
                    item.name
                );
            }
        }
        Ok(())
    }
}

fn needed(references: Option<PathBuf>) -> Result<PathBuf> {
    references.context(
        "name the folder of the photos with --references; only the layout `dreambench-plus` has them \
         beside the images",
    )
}

/// A row of `--images`.
#[derive(Debug, Deserialize)]
struct ImageRow {
    image: String,
    concept: String,
    prompt: String,
    kind: String,
}

/// The rows of a list of images.
fn listed(csv: &Path, args: &ScoreArgs, protocol: &Protocol) -> Result<Vec<Item>> {
    let folder = csv.parent().unwrap_or(Path::new(""));
    let rows: Vec<ImageRow> = read_rows(csv, "image,concept,prompt,kind")?;
    ensure!(!rows.is_empty(), "{}: holds no rows", csv.display());
    let photos = args.references.clone().unwrap_or_default();
    for (number, row) in rows.iter().enumerate() {
        // The header is line 1.
        let at = || format!("{}: line {}", csv.display(), number + 2);
        ensure!(
            is_plain_name(&row.concept),
            "{}: the concept is `{}`; expected the name of a folder in {}",
            at(),
            row.concept,
            photos.display()
        );
        protocol.check_kind(&row.kind).with_context(at)?;
    }
    let item = |row: ImageRow| Item {
        concept: row.concept,
        prompt: row.prompt,
        kind: row.kind,
        ..Item::new(folder.join(&row.image), row.image, args)
    };
    Ok(rows.into_iter().map(item).collect())
}

/// The images of a folder, all of one concept.
fn in_folder(folder: &Path, args: &ScoreArgs) -> Result<Vec<Item>> {
    let mut prompts = Prompts::read(args)?;
    let mut items = Vec::new();
    let images = PhotoFolder::read(folder)?;
    images.say_skipped();
    for path in images.files {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let prompt = prompts.of(&name)?.with_context(|| {
            format!(
                "{}: images of the layout `plain` have no prompts; give one to all with --prompt, or \
                 one to each with --prompts",
                folder.display()
            )
        })?;
        items.push(Item {
            prompt,
            ..Item::new(path, name, args)
        });
    }
    prompts.check_used(folder)?;
    Ok(items)
}
