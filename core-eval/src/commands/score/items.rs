//! One image to be scored, and where its prompt comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::ScoreArgs;
use core_eval::masks::mask_file;
use core_eval::rows::read_rows;

/// One image to be scored.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Its name in the output: its path below the folder of images.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Empty when all images are of one concept.
    pub(super) concept: String,
    pub(super) prompt: String,
    /// Empty when it is not given.
    pub(super) kind: String,
    /// 0 where images are not laid out by seeds.
    pub(super) seed: u64,
    pub(super) mask: Option<PathBuf>,
    /// The base model's image on the same noise.
    pub(super) base: Option<PathBuf>,
}

impl Item {
    /// An image with the files of its name in the folders of masks and of base images.
    pub(super) fn new(path: PathBuf, name: String, args: &ScoreArgs) -> Self {
        let masks = args.generated_masks.as_ref();
        Self {
            mask: masks.map(|masks| mask_file(masks, Path::new(&name))),
            base: args.base.as_ref().map(|base| base.join(&name)),
            path,
            name,
            ..Self::default()
        }
    }
}

/// A row of `--prompts`.
#[derive(Debug, Deserialize)]
struct PromptRow {
    image: String,
    prompt: String,
}

/// The prompts that the arguments give.
pub(super) enum Prompts {
    /// None.
    None,
    /// One for all images.
    One(String),
    /// One for each image, by its name, with the file that says so.
    Each {
        csv: PathBuf,
        by_name: BTreeMap<String, String>,
    },
}

impl Prompts {
    /// Reads `--prompts`, if it is given.
    ///
    /// # Errors
    /// An unreadable file, wrong columns, two prompts for one image.
    pub(super) fn read(args: &ScoreArgs) -> Result<Self> {
        let Some(csv) = &args.prompts else {
            return Ok(args.prompt.clone().map_or(Self::None, Self::One));
        };
        let mut by_name = BTreeMap::new();
        for row in read_rows::<PromptRow>(csv, "image,prompt")? {
            if by_name.insert(row.image.clone(), row.prompt).is_some() {
                let (csv, image) = (csv.display(), row.image);
                bail!("{csv}: two prompts for the image `{image}`");
            }
        }
        let csv = csv.clone();
        Ok(Self::Each { csv, by_name })
    }

    /// The prompt of an image; `None` where the arguments give none to any.
    ///
    /// # Errors
    /// A file of prompts without this image.
    pub(super) fn of(&mut self, image: &str) -> Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::One(prompt) => Ok(Some(prompt.clone())),
            Self::Each { csv, by_name } => {
                let prompt = by_name.remove(image);
                let prompt = prompt.with_context(|| {
                    format!("{}: no prompt for the image `{image}`", csv.display())
                })?;
                Ok(Some(prompt))
            }
        }
    }

    /// Refuses prompts of images that are not there.
    ///
    /// # Errors
    /// The first such image.
    pub(super) fn check_used(&self, folder: &Path) -> Result<()> {
        if let Self::Each { by_name, .. } = self
            && let Some(absent) = by_name.keys().next()
        {
            bail!(
                "{}: the image `{absent}`, which has a prompt, is not there",
                folder.display()
            );
        }
        Ok(())
    }
}
