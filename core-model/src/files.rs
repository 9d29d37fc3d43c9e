//! Writing files so that a reader never meets half of one: beside, then renamed.

use std::io::{Cursor, ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use image::{ImageBuffer, ImageFormat, PixelWithColorType};

use crate::error::{Error, Result};
use crate::file_kind::FileKind;

/// What begins the name of a file that is being written.
const SCRATCH: &str = ".scratch-";

/// Writes `bytes` to `path`, replacing what was there only when all of them are on disk.
///
/// # Errors
/// [`Error::Io`] naming `path`; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempfile_in(folder)
        .map_err(Error::io(path))?;
    scratch.write_all(bytes).map_err(Error::io(path))?;
    scratch.as_file().sync_all().map_err(Error::io(path))?;
    make_readable(scratch.as_file()).map_err(Error::io(path))?;
    scratch
        .persist(path)
        .map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}

/// Removes what [`write_atomically`] leaves in a folder when its process is killed: files that were last written so
/// long ago that nobody writes them any more.
///
/// # Errors
/// [`Error::Io`] naming what cannot be read or removed.
pub fn remove_scratch(folder: &Path, untouched_for: Duration) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        if !entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            continue;
        }
        let path = entry.path();
        let written = entry.metadata().and_then(|data| data.modified());
        let age = written.map(|written| written.elapsed().unwrap_or_default());
        match age.and_then(|age| match age >= untouched_for {
            true => std::fs::remove_file(&path),
            false => Ok(()),
        }) {
            // Whoever wrote it was not dead, or another process was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.map_err(Error::io(&path))?,
        }
    }
    Ok(())
}

/// Copies a file, or a folder with everything in it, where it is there.
///
/// # Errors
/// [`Error::Io`] naming the file or folder that cannot be read or written; what was copied before stays.
pub fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        std::fs::create_dir_all(to).map_err(Error::io(to))?;
        for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
            let entry = entry.map_err(Error::io(from))?;
            copy_all(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if from.exists() {
        std::fs::copy(from, to).map_err(Error::io(to))?;
        let copied = std::fs::File::open(to).map_err(Error::io(to))?;
        copied.sync_all().map_err(Error::io(to))?;
    }
    Ok(())
}

/// The file of a model folder that the Hugging Face hub shows.
pub(crate) const MODEL_CARD: &str = "README.md";

/// A folder that appears under its name when it is whole; before, it lies beside.
#[derive(Debug)]
pub(crate) struct NewFolder<'a> {
    out: &'a Path,
    scratch: tempfile::TempDir,
}

impl<'a> NewFolder<'a> {
    /// Fails when there is something of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`]
    pub(crate) fn check(out: &Path) -> Result<()> {
        match out.exists() {
            true => Err(Error::Invalid(format!(
                "{}: exists already; name a new folder",
                out.display()
            ))),
            false => Ok(()),
        }
    }

    /// Makes the folders above it.
    ///
    /// # Errors
    /// [`Error::Io`] naming what cannot be written.
    pub(crate) fn begin(out: &'a Path) -> Result<Self> {
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let scratch = tempfile::tempdir_in(parent).map_err(Error::io(parent))?;
        Ok(Self { out, scratch })
    }

    /// Where to write meanwhile.
    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.path().join("model")
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`] naming it.
    pub(crate) fn finish(self) -> Result<()> {
        std::fs::rename(self.path(), self.out).map_err(Error::io(self.out))
    }
}

/// Scratch files are private to their owner; results are ordinary files.
#[cfg(unix)]
fn make_readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Writes an image with eight bits per channel as PNG, like [`write_atomically`].
///
/// # Errors
/// [`Error::Io`] naming `path`; [`Error::Format`] when the image has no pixels.
pub fn write_png<P>(path: &Path, image: &ImageBuffer<P, Vec<u8>>) -> Result<()>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| Error::format(path, error))?;
    write_atomically(path, bytes.get_ref())
}

/// Whether a name from an untrusted file names something directly in a folder: no separators, no
/// `..`, not empty.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

/// Where things are kept that can be made again: `XDG_CACHE_HOME`, else `.cache` of the home folder.
///
/// # Errors
/// [`Error::Invalid`] when there is no home folder.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from)
        && cache.is_absolute()
    {
        return Ok(cache);
    }
    let home = std::env::home_dir().ok_or_else(|| {
        let text = "there is no home folder for the model folders of one-file checkpoints; set \
                    XDG_CACHE_HOME, or make a model folder with `core-train model import`";
        Error::Invalid(text.into())
    })?;
    Ok(home.join(".cache"))
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io(path))
}

/// Reads a text file of UTF-8. A byte order mark, which Windows and Excel write, is left out, and
/// every end of a line becomes `\n`.
///
/// # Errors
/// [`Error::Io`] naming `path`, [`Error::Format`] when the text is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String> {
    let text = plain_text(read(path)?).map_err(|reason| Error::format(path, reason))?;
    Ok(text)
}

/// The text in the bytes of a file, or why there is none.
fn plain_text(mut bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is text in UTF-16; save it as UTF-8".into());
    }
    if let Some(kind) = FileKind::of(&bytes).filter(|kind| !matches!(kind, FileKind::Empty)) {
        return Err(format!("is {kind}; expected a text file"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        format!("line {line} is not text in UTF-8; save the file in that encoding")
    })?;
    Ok(match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    })
}

/// A path that a user wrote, seen from the folder `base`; `~` is the user's home.
pub fn seen_from(base: &Path, path: &Path) -> PathBuf {
    base.join(expand_home(path))
}

/// A path with the user's home for a leading `~`, as shells expand it.
pub fn expand_home(path: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => PathBuf::from(home),
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_path_buf(),
    }
}

/// The SHA-256 of a file in lower-case hexadecimal, read in pieces.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn sha256(path: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut piece).map_err(Error::io(path))?;
        if length == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&piece[..length]);
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_the_old_file_and_leaves_no_scratch_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_when_it_is_old_enough() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".scratch-a1B2c3", "a.txt"] {
            std::fs::write(folder.path().join(name), "half").unwrap();
        }
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        remove_scratch(folder.path(), Duration::from_secs(3600)).unwrap();
        assert_eq!(files(), 2);
        remove_scratch(folder.path(), Duration::ZERO).unwrap();
        assert_eq!(files(), 1);
        assert_eq!(read(&folder.path().join("a.txt")).unwrap(), b"half");
    }

    #[test]
    fn byte_order_marks_and_ends_of_lines_of_other_systems_are_no_text() {
        let text = |bytes: &[u8]| plain_text(bytes.to_vec());
        for bytes in [
            &b"a {}\nb\n"[..],
            b"\xef\xbb\xbfa {}\r\nb\r\n",
            b"a {}\rb\r",
        ] {
            assert_eq!(text(bytes).as_deref(), Ok("a {}\nb\n"));
        }
        for (bytes, part) in [
            (&b"\xff\xfea\0"[..], "UTF-16"),
            (b"one\ntwo \xe9t\xe9", "line 2"),
            (b"PK\x03\x04", "a zip archive"),
            (b"<!doctype html>", "a web page"),
        ] {
            let reason = text(bytes).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_leading_tilde_is_the_home_of_the_user() {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        assert_eq!(expand_home(Path::new("~/a/b")), home.join("a/b"));
        assert_eq!(seen_from(Path::new("/x"), Path::new("~")), home);
        let plain = ["a~/b", "~user/a", "/a/~"].map(Path::new);
        assert_eq!(plain.map(expand_home), plain.map(Path::to_path_buf));
        assert_eq!(
            seen_from(Path::new("/x"), Path::new("a")),
            Path::new("/x/a")
        );
    }

    #[test]
    fn writing_into_a_missing_folder_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/a.txt");
        let message = write_atomically(&path, b"x").unwrap_err().to_string();
        assert!(message.contains("absent/a.txt"), "{message}");
    }

    #[test]
    fn sha256_is_the_published_one_of_abc() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write_atomically(&path, b"abc").unwrap();
        assert_eq!(
            sha256(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
