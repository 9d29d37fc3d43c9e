//! `core-train init`: a run file for a folder of photos, with everything that can be told from them.

mod concept;
mod photos;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use core_model::files::write_atomically;
use core_train::world::SIDE;

use super::say;
use concept::Concept;
use photos::Photos;
use text::{Model, RunFile};

/// Arguments of `core-train init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Folder of 3 to 6 photos of one thing
    photos: PathBuf,
    /// The file to write [default: NAME.toml in the current folder, by the name of the concept]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Model folder, one-file checkpoint, or repository of the hub [default: the shipped model for images
    /// as small as its world's, else Stable Diffusion 2.1]
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

/// Looks at the photos and writes the file.
///
/// # Errors
/// A folder without images, an image that cannot be read, a damaged `concept.toml`, a file that is there
/// already or cannot be written.
pub(crate) fn run(args: &InitArgs) -> Result<()> {
    let photos = Photos::read(&args.photos)?;
    let concept = Concept::of(&args.photos)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => PathBuf::from(format!("{}.toml", concept.name())),
    };
    ensure!(
        !out.exists(),
        "{}: is there already; name another file with --out",
        out.display()
    );
    let model = model(args, &photos)?;
    let file = RunFile {
        path: &out,
        photos: &photos,
        concept: &concept,
        model,
    };
    let text = file.text()?;
    write_atomically(&out, text.as_bytes())?;
    say(&format!("{}: {}", out.display(), photos.describe()));
    for remark in photos.remarks() {
        say(&format!("note: {remark}"));
    }
    let edits = text.matches(text::EDIT).count() - 1;
    say(&match edits {
        0 => format!("ready: core-train train {}", out.display()),
        1 => format!("edit the line marked {} before training", text::EDIT),
        _ => format!(
            "edit the {edits} lines marked {} before training",
            text::EDIT
        ),
    });
    Ok(())
}

/// The model that is named, or the one that fits the photos.
fn model(args: &InitArgs, photos: &Photos) -> Result<Model> {
    let shipped = checkout().filter(|_| photos.largest_side() <= 2 * SIDE);
    Ok(match (&args.model, shipped) {
        (Some(path), _) => Model::Named(path.clone()),
        (None, Some(checkout)) => Model::Shipped { checkout },
        (None, None) => Model::Suggested,
    })
}

/// The folder with the shipped model and the recipes for it: the current one, or else the one from which
/// this program was built.
fn checkout() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let mut folders = [Path::new("."), built].into_iter();
    let found = folders.find(|folder| {
        folder.join(text::SHIPPED_MODEL).is_dir() && folder.join(text::SHIPPED_RECIPE).is_file()
    });
    found?.canonicalize().ok()
}
