//! Whether the photos of a rendered concept are those that its `concept.toml` was written with.

use std::path::Path;

use core_model::image_processor::load_image;
use core_model::photos::PhotoFolder;

use crate::config::{ConceptConfig, parse};
use crate::error::Result;
use crate::world::photos_digest;

/// The digest of the photos that `concept.toml` in a folder names; `None` without such a file or key.
///
/// # Errors
/// A file that is not the `concept.toml` of a concept.
pub fn named_digest(folder: &Path) -> Result<Option<String>> {
    let file = folder.join("concept.toml");
    if !file.exists() {
        return Ok(None);
    }
    Ok(parse::<ConceptConfig>(&file)?.rendered)
}

/// Warns of photos that are not those that `concept.toml` in their folder was rendered with. A folder that
/// cannot be read is left to whoever reads it.
pub fn say_other_photos(folder: &Path) {
    if let Some(warning) = other_photos(folder) {
        tracing::warn!("{warning}");
    }
}

fn other_photos(folder: &Path) -> Option<String> {
    let named = named_digest(folder).ok().flatten()?;
    let files = PhotoFolder::read(folder).ok()?.files;
    let photos = files.iter().map(|file| load_image(file));
    let found = photos_digest(&photos.collect::<core_model::Result<Vec<_>>>().ok()?);
    (found != named).then(|| {
        format!(
            "{}: the photos are not those that were rendered with its concept.toml: their digest is \
             {found}, and `rendered` there is {named}. They were changed, or rendered by another version; \
             `core-train world FOLDER --concepts` renders all concepts into another folder. Without the \
             key `rendered` any photos are taken",
            folder.display()
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::files::write_png;
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn photos_with_another_digest_than_their_concept_file_names_are_told_with_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let photo = RgbImage::from_pixel(2, 2, Rgb([1, 2, 3]));
        write_png(&folder.path().join("0.png"), &photo).unwrap();
        let keys = "name = \"cup\"\nsuper_category = \"cup\"\n";
        let digest = photos_digest(std::slice::from_ref(&photo));
        let write = |more: &str| {
            let text = format!("{keys}{more}");
            std::fs::write(folder.path().join("concept.toml"), text).unwrap();
        };

        assert_eq!(other_photos(folder.path()), None, "no concept.toml");
        write("");
        assert_eq!(other_photos(folder.path()), None, "no key");
        write(&format!("rendered = \"{digest}\"\n"));
        assert_eq!(other_photos(folder.path()), None);
        assert_eq!(
            named_digest(folder.path()).unwrap().as_deref(),
            Some(digest.as_str())
        );

        let other = RgbImage::from_pixel(2, 2, Rgb([1, 2, 4]));
        write_png(&folder.path().join("0.png"), &other).unwrap();
        let warning = other_photos(folder.path()).unwrap();
        let name = folder.path().display().to_string();
        for part in [name.as_str(), &digest, "world FOLDER --concepts"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
    }

    #[test]
    fn a_file_that_is_no_concept_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("concept.toml"), "rendered = 7\n").unwrap();
        let message = named_digest(folder.path()).unwrap_err().to_string();
        assert!(message.contains("concept.toml"), "{message}");
    }
}
