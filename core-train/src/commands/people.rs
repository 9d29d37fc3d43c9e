//! The photo folders of the shipped people, which `core-train world --concepts` writes too.

use std::path::Path;

use anyhow::Result;
use core_model::files::{write_atomically, write_png};
use core_train::world::{PersonConcept, PersonPhotos, photos_digest};
use image::RgbImage;

use super::world::{make_folder, refuse_other_version};

/// Every folder to learn a person from.
fn folders() -> impl Iterator<Item = PersonPhotos> {
    PersonConcept::ALL
        .into_iter()
        .flat_map(|person| person.folders())
}

/// Refuses a folder with photos of another version of the renderer.
///
/// # Errors
/// The first such folder.
pub(super) fn check(folder: &Path) -> Result<()> {
    let mut folders = folders();
    folders.try_for_each(|PersonPhotos { path, photos, .. }| {
        refuse_other_version(&folder.join(path), &photos_digest(&photos))
    })
}

/// Writes one folder per person and number of photos, with `0.png` and so on and `concept.toml`; those
/// for choosing settings go to `development/`. `references/` has photos that scores compare with, and
/// their masks. Returns the number of folders to learn from.
///
/// # Errors
/// A folder that cannot be created or written to.
pub(super) fn write(folder: &Path) -> Result<usize> {
    let mut written = 0;
    for PersonPhotos { path, photos, toml } in folders() {
        let home = folder.join(path);
        write_photos(&home, &photos)?;
        write_atomically(&home.join("concept.toml"), toml.as_bytes())?;
        written += 1;
    }
    for person in PersonConcept::ALL {
        let home = folder.join(person.references_path());
        let references = person.references().into_iter();
        let (photos, masks): (Vec<_>, Vec<_>) = references.map(|r| (r.image, r.mask)).unzip();
        write_photos(&home, &photos)?;
        let home = home.join("masks");
        make_folder(&home)?;
        for (number, mask) in masks.iter().enumerate() {
            write_png(&home.join(format!("{number}.png")), mask)?;
        }
    }
    Ok(written)
}

fn write_photos(folder: &Path, photos: &[RgbImage]) -> Result<()> {
    make_folder(folder)?;
    for (number, photo) in photos.iter().enumerate() {
        write_png(&folder.join(format!("{number}.png")), photo)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// Every file below a folder, by its path inside it.
    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => open.push(path),
                    false => {
                        let name = path.strip_prefix(folder).unwrap().to_path_buf();
                        files.insert(name, std::fs::read(path).unwrap());
                    }
                }
            }
        }
        files
    }

    /// Sine and cosine come from the platform's mathematics library, so the last bit is pinned on one
    /// platform only.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_shipped_folders_of_people_are_reproduced_byte_for_byte() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(write(home.path()).unwrap(), 10);
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/concepts/people");
        let (written, shipped) = (files(home.path()), files(&shipped));
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&written), names(&shipped));
        for (name, bytes) in &written {
            assert!(bytes == &shipped[name], "{}", name.display());
        }
        // Four people by two and by five photos, two by two, six with six references and masks.
        assert_eq!(written.len(), 4 * (2 + 5) + 2 * 2 + 10 + 6 * (6 + 6));
    }

    #[test]
    fn photos_of_another_version_are_refused_by_folder() {
        let home = tempfile::tempdir().unwrap();
        write(home.path()).unwrap();
        check(home.path()).unwrap();
        let toml = home.path().join("person-b-five/concept.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        let at = text.find("rendered = ").unwrap();
        std::fs::write(&toml, format!("{}rendered = \"0123\"\n", &text[..at])).unwrap();
        let message = check(home.path()).unwrap_err().to_string();
        assert!(
            message.contains("person-b-five") && message.contains("0123"),
            "{message}"
        );
    }
}
