//! The folder layouts in which tools leave their images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use core_model::files::read_to_string;
use core_model::photos::{PhotoFolder, natural_order};

use super::ScoreArgs;
use super::items::{Item, Prompts};

/// The folders of DreamBench++: photos, images and prompts.
const PHOTOS: &str = "src_image";
const IMAGES: &str = "tgt_image";
const TEXTS: &str = "text";

/// How the images of a folder are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Layout {
    /// The one that the folder fits
    #[default]
    Auto,
    /// Images of one concept in the folder itself
    Plain,
    /// src_image/CONCEPT/NAME.jpg, tgt_image/CONCEPT/NAME.jpg, text/CONCEPT/NAME.txt
    DreambenchPlus,
    /// CONCEPT/SEED/PROMPT.png
    Dreambooth,
}

impl Layout {
    /// The layout to be read. `Auto` says which it found, and why.
    ///
    /// # Errors
    /// A folder that fits none, or not the one that was asked for: the message says what is missing.
    pub(super) fn of(self, folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            PhotoFolder::read(folder)?;
        }
        let known = [
            (Self::DreambenchPlus, dreambench_plus_fits(folder)),
            (Self::Plain, plain_fits(folder)),
            (Self::Dreambooth, dreambooth_fits(folder)),
        ];
        if self != Self::Auto {
            let fits = known.into_iter().find(|(layout, _)| *layout == self);
            return match fits {
                Some((_, Err(missing))) => bail!(
                    "{}: does not have the layout `{}`: {missing}",
                    folder.display(),
                    self.name()
                ),
                _ => Ok(self),
            };
        }
        let mut missing = Vec::new();
        for (layout, fits) in known {
            match fits {
                Ok(why) => {
                    let (folder, name) = (folder.display(), layout.name());
                    tracing::info!("{folder}: read with the layout `{name}`, because {why}");
                    return Ok(layout);
                }
                Err(why) => missing.push(format!("`{}`: {why}", layout.name())),
            }
        }
        bail!(
            "{}: fits no layout. {}. Name the images in a CSV (--images) if they are laid out \
             otherwise",
            folder.display(),
            missing.join("; ")
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::DreambenchPlus => "dreambench-plus",
            Self::Dreambooth => "dreambooth",
        }
    }
}

/// Why a folder fits, or what is missing.
type Fits = std::result::Result<String, String>;

fn plain_fits(folder: &Path) -> Fits {
    match PhotoFolder::read(folder) {
        Ok(images) => Ok(format!("it holds {} images itself", images.files.len())),
        Err(_) => Err("the folder itself holds no images".into()),
    }
}

fn dreambench_plus_fits(folder: &Path) -> Fits {
    let parts = [PHOTOS, IMAGES, TEXTS].into_iter();
    let missing: Vec<&str> = parts.filter(|name| !folder.join(name).is_dir()).collect();
    match missing.as_slice() {
        [] => Ok(format!("it holds {PHOTOS}, {IMAGES} and {TEXTS}")),
        missing => Err(format!("there is no folder {}", missing.join(" and "))),
    }
}

fn dreambooth_fits(folder: &Path) -> Fits {
    let concepts = subfolders(folder).map_err(|error| format!("{error:#}"))?;
    let Some(first) = concepts.first() else {
        return Err("there is no folder CONCEPT/SEED with images named by their prompts".into());
    };
    for concept in &concepts {
        for seed in subfolders(concept).map_err(|error| format!("{error:#}"))? {
            if seed_of(&seed).is_some() && PhotoFolder::read(&seed).is_ok() {
                let seed = seed.strip_prefix(folder).unwrap_or(&seed);
                return Ok(format!("{} holds images", seed.display()));
            }
        }
    }
    Err(format!(
        "`{}` holds no folder whose name is a seed and that holds images",
        name(first)
    ))
}

/// The items of a DreamBench++ folder, whose photos are those in `src_image`.
///
/// # Errors
/// An image without a text, a text without an image, a concept that is not in all three folders.
pub(super) fn dreambench_plus(folder: &Path, args: &ScoreArgs) -> Result<Vec<Item>> {
    ensure!(
        args.prompt.is_none() && args.prompts.is_none(),
        "{}: the layout `dreambench-plus` has the prompts in its folder {TEXTS}; drop --prompt and \
         --prompts",
        folder.display()
    );
    let [photos, images, texts] = [PHOTOS, IMAGES, TEXTS].map(|part| folder.join(part));
    for other in [&photos, &texts] {
        for concept in subfolders(other)? {
            let here = images.join(name(&concept));
            ensure!(
                here.is_dir(),
                "{}: there is no such folder, but {} is there; the layout `dreambench-plus` has \
                 every concept in {PHOTOS}, {IMAGES} and {TEXTS}",
                here.display(),
                concept.display()
            );
        }
    }
    let mut items = Vec::new();
    for concept in concept_folders(&images)? {
        let concept_name = name(&concept);
        let texts = texts.join(&concept_name);
        let files = images_of(&concept)?;
        for text in text_files(&texts)? {
            let named = |file: &PathBuf| file.file_stem() == text.file_stem();
            ensure!(
                files.iter().any(named),
                "{}: there is no image of this name in {}",
                text.display(),
                concept.display()
            );
        }
        for path in files {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = texts.join(format!("{stem}.txt"));
            let prompt = read_to_string(&text)
                .with_context(|| format!("the prompt of {}", path.display()))?;
            ensure!(!prompt.trim().is_empty(), "{}: is empty", text.display());
            let file = format!("{concept_name}/{}", name(&path));
            items.push(Item {
                concept: concept_name.clone(),
                prompt: prompt.trim().to_string(),
                ..Item::new(path, file, args)
            });
        }
    }
    Ok(items)
}

/// Where a DreamBench++ folder has its photos.
pub(super) fn dreambench_plus_photos(folder: &Path) -> PathBuf {
    folder.join(PHOTOS)
}

/// The items of a folder of concepts and seeds. The name of an image is its prompt, unless the
/// arguments give prompts.
///
/// # Errors
/// Names that are no prompts, images without prompts, prompts without images.
pub(super) fn dreambooth(folder: &Path, args: &ScoreArgs) -> Result<Vec<Item>> {
    let mut prompts = Prompts::read(args)?;
    let mut items = Vec::new();
    for concept in concept_folders(folder)? {
        let concept_name = name(&concept);
        for seed_folder in subfolders(&concept)? {
            let Some(seed) = seed_of(&seed_folder) else {
                let path = seed_folder.display();
                tracing::warn!("{path}: not used: its name is no seed");
                continue;
            };
            for path in images_of(&seed_folder)? {
                let file = format!("{concept_name}/{}/{}", name(&seed_folder), name(&path));
                let prompt = match prompts.of(&file)? {
                    Some(prompt) => prompt,
                    None => prompt_of_name(&path)?,
                };
                items.push(Item {
                    concept: concept_name.clone(),
                    prompt,
                    seed,
                    ..Item::new(path, file, args)
                });
            }
        }
    }
    prompts.check_used(folder)?;
    Ok(items)
}

/// The prompt that the name of an image is; underscores stand for spaces where there are no spaces.
fn prompt_of_name(path: &Path) -> Result<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    ensure!(
        stem.chars().any(char::is_alphabetic),
        "{}: its name is no prompt; the layout `dreambooth` expects images named by their prompts, \
         or --prompts with the columns image,prompt",
        path.display()
    );
    Ok(match stem.contains(' ') {
        true => stem.into_owned(),
        false => stem.replace('_', " "),
    })
}

fn seed_of(folder: &Path) -> Option<u64> {
    name(folder).parse().ok()
}

/// The folders of concepts in a folder, at least one.
fn concept_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let concepts = subfolders(folder)?;
    ensure!(
        !concepts.is_empty(),
        "{}: holds no folder of a concept",
        folder.display()
    );
    Ok(concepts)
}

/// The images of a folder; what else is there gets a warning.
fn images_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let images = PhotoFolder::read(folder)?;
    images.say_skipped();
    Ok(images.files)
}

/// The texts of a folder, in natural order.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    Ok(files)
}

/// The folders in a folder, in natural order; hidden ones are those of the operating system.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = entries(folder)?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let at = || folder.display().to_string();
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(at)? {
        let path = entry.with_context(at)?.path();
        if !name(&path).starts_with('.') {
            entries.push(path);
        }
    }
    entries.sort_by(|a, b| natural_order(a, b));
    Ok(entries)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        folder
    }

    #[test]
    fn the_layout_is_found_from_what_the_folder_holds() {
        for (files, layout) in [
            (&["0.png"][..], Layout::Plain),
            (
                &["src_image/a/0.jpg", "tgt_image/a/0.jpg", "text/a/0.txt"],
                Layout::DreambenchPlus,
            ),
            (&["dog/7/a_dog.png"], Layout::Dreambooth),
        ] {
            assert_eq!(Layout::Auto.of(folder(files).path()).unwrap(), layout);
        }
    }

    #[test]
    fn a_folder_that_fits_none_is_refused_with_what_each_layout_lacks() {
        let empty = folder(&["tgt_image/a/notes.txt", "src_image/a/0.jpg"]);
        let message = Layout::Auto.of(empty.path()).unwrap_err().to_string();
        for part in [
            "`plain`: the folder itself holds no images",
            "`dreambench-plus`: there is no folder text",
            "`dreambooth`: `src_image` holds no folder whose name is a seed",
            "--images",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let plain = folder(&["0.png"]);
        let message = Layout::Dreambooth.of(plain.path()).unwrap_err().to_string();
        assert!(message.contains("CONCEPT/SEED"), "{message}");
    }

    #[test]
    fn names_of_images_are_prompts_with_spaces_or_underscores() {
        let prompt = |name: &str| prompt_of_name(Path::new(name));
        assert_eq!(prompt("a_dog_in_snow.png").unwrap(), "a dog in snow");
        assert_eq!(prompt("a {} in_snow.png").unwrap(), "a {} in_snow");
        let message = prompt("00001.png").unwrap_err().to_string();
        assert!(message.contains("--prompts"), "{message}");
    }
}
