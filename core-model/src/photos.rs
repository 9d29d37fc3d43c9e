//! The images of a folder, and what else lies there.
//!
//! Folders of photos hold more than photos: what operating systems and editors leave, notes, folders,
//! links to files that are gone, images of kinds that are not read. None of these ends a run, and
//! none is left out in silence: each is listed with the reason.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_kind::FileKind;
use crate::image_processor::FORMATS;

/// What the name of an image ends in.
const EXTENSIONS: [&str; 11] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff",
];

/// What belongs to a folder of photos without being one.
const PARTS_OF_A_CONCEPT: [&str; 3] = ["concept.toml", "landmarks.csv", "masks"];

/// What operating systems leave in folders.
const SYSTEM_FILES: [&str; 5] = [
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
];

/// The images of a folder, in natural order (`2.png` before `10.png`).
#[derive(Debug)]
pub struct PhotoFolder {
    /// The images.
    pub files: Vec<PathBuf>,
    /// Everything else but a `concept.toml`, a `landmarks.csv` and a folder of masks.
    pub skipped: Vec<Skipped>,
}

/// A file that is not used.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why it is not used.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not used: {}", self.path.display(), self.reason)
    }
}

impl PhotoFolder {
    /// Lists a folder. Which files are images, their names decide; no image is opened.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be listed, [`Error::Format`] when it holds no image.
    pub fn read(folder: &Path) -> Result<Self> {
        if folder.is_file() {
            let reason = "is a file; expected a folder of images";
            return Err(Error::format(folder, reason));
        }
        let (mut files, mut skipped) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if PARTS_OF_A_CONCEPT.contains(&&*name) {
                continue;
            }
            match reason_to_skip(&path, &name) {
                None => files.push(path),
                Some(reason) => skipped.push(Skipped { path, reason }),
            }
        }
        files.sort_by(|a, b| natural_order(a, b));
        skipped.sort_by(|a, b| natural_order(&a.path, &b.path));
        if files.is_empty() {
            return Err(no_images(folder, &skipped));
        }
        Ok(Self { files, skipped })
    }

    /// Writes one warning for every file that is not used.
    pub fn say_skipped(&self) {
        for skipped in &self.skipped {
            tracing::warn!("{skipped}");
        }
    }
}

fn no_images(folder: &Path, skipped: &[Skipped]) -> Error {
    const MOST: usize = 5;
    let mut reason = format!("holds no images; expected {FORMATS} files");
    for Skipped { path, reason: why } in skipped.iter().take(MOST) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        reason += &format!("; `{name}`: {why}");
    }
    if skipped.len() > MOST {
        reason += &format!("; and {} more", skipped.len() - MOST);
    }
    Error::format(folder, reason)
}

/// Why something in a folder is not an image; `None` for images.
fn reason_to_skip(path: &Path, name: &str) -> Option<String> {
    if name.starts_with("._") {
        return Some("the data that macOS keeps about another file".into());
    }
    if name.starts_with('.') {
        return Some("a hidden file".into());
    }
    if SYSTEM_FILES.contains(&name.to_lowercase().as_str()) {
        return Some("a file of the operating system".into());
    }
    let Ok(metadata) = path.metadata() else {
        return Some(match path.is_symlink() {
            true => "a link to a file that is not there".into(),
            false => "it cannot be read".into(),
        });
    };
    if metadata.is_dir() {
        return Some("a folder; images in it are not read".into());
    }
    if !metadata.is_file() {
        return Some("no ordinary file".into());
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    if EXTENSIONS.contains(&extension.to_lowercase().as_str()) {
        return None;
    }
    Some(match FileKind::of_file(path) {
        Some(kind) if kind.is_read() => {
            format!("its name does not end as that of an image, but it is {kind}; rename it")
        }
        Some(kind) if kind.is_image() => {
            format!("it is {kind}, which is not read; convert it to one of {FORMATS}")
        }
        Some(kind) => format!("it is {kind}"),
        None => format!("its name does not end as that of an image ({FORMATS})"),
    })
}

/// Compares names as people count: digits by the number that they form. Names that differ in
/// leading zeros only are ordered by their bytes.
pub fn natural_order(a: &Path, b: &Path) -> Ordering {
    let (a, b) = (a.to_string_lossy(), b.to_string_lossy());
    let (mut left, mut right) = (&*a, &*b);
    while let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let number = |text: &mut &str| {
                let end = text.find(|c: char| !c.is_ascii_digit());
                let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
                *text = rest;
                let digits = digits.trim_start_matches('0').to_string();
                (digits.len(), digits)
            };
            number(&mut left).cmp(&number(&mut right))
        } else {
            left = &left[x.len_utf8()..];
            right = &right[y.len_utf8()..];
            x.cmp(&y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(files: &[PathBuf]) -> Vec<String> {
        let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        files.iter().map(name).collect()
    }

    #[test]
    fn images_are_in_natural_order() {
        let folder = tempfile::tempdir().unwrap();
        let all = ["10.png", "2.PNG", "b.JPEG", "a-1.webp", "a-01.tif", "1.gif"];
        for name in all {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let read = PhotoFolder::read(folder.path()).unwrap();
        let expected = ["1.gif", "2.PNG", "10.png", "a-01.tif", "a-1.webp", "b.JPEG"];
        assert_eq!(names(&read.files), expected);
        assert!(read.skipped.is_empty());
    }

    #[test]
    fn everything_that_is_no_image_is_listed_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        let png = b"\x89PNG\r\n\x1a\n";
        for (name, bytes) in [
            ("0.png", &png[..]),
            ("._0.png", b"\0\x05\x16\x07\0\x02\0\0"),
            (".DS_Store", b""),
            ("Thumbs.db", b""),
            ("1.heic", heic),
            ("2", png),
            ("notes.txt", b"notes"),
            ("concept.toml", b""),
        ] {
            std::fs::write(path(name), bytes).unwrap();
        }
        for name in ["x.jpg", "masks"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let read = PhotoFolder::read(folder.path()).unwrap();
        assert_eq!(names(&read.files), ["0.png"]);
        let skipped = read.skipped.iter().map(|skipped| {
            let name = skipped.path.file_name().unwrap().to_string_lossy();
            format!("{name}: {}", skipped.reason)
        });
        let skipped: Vec<String> = skipped.collect();
        assert_eq!(
            skipped,
            [
                ".DS_Store: a hidden file",
                "._0.png: the data that macOS keeps about another file",
                "1.heic: it is a HEIC image, which is not read; convert it to one of PNG, JPEG, \
                 WebP, GIF, BMP or TIFF",
                "2: its name does not end as that of an image, but it is a PNG image; rename it",
                "Thumbs.db: a file of the operating system",
                "notes.txt: its name does not end as that of an image (PNG, JPEG, WebP, GIF, BMP \
                 or TIFF)",
                "x.jpg: a folder; images in it are not read",
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_broken_ones_listed() {
        use std::os::unix::fs::symlink;
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let photo = elsewhere.path().join("photo.png");
        std::fs::write(&photo, b"").unwrap();
        symlink(&photo, folder.path().join("0.png")).unwrap();
        symlink("/nowhere/1.png", folder.path().join("1.png")).unwrap();
        let read = PhotoFolder::read(folder.path()).unwrap();
        assert_eq!(names(&read.files), ["0.png"]);
        let message = read.skipped[0].to_string();
        assert!(message.ends_with("1.png: not used: a link to a file that is not there"));
    }

    #[test]
    fn folders_without_images_are_refused_with_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), b"words").unwrap();
        let message = PhotoFolder::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("holds no images"), "{message}");
        assert!(message.contains("`a.txt`"), "{message}");
        let absent = folder.path().join("absent");
        let message = PhotoFolder::read(&absent).unwrap_err().to_string();
        assert!(message.contains("absent"), "{message}");
    }
}
