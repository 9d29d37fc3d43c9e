//! What a file is by its first bytes, whatever its name says: for messages about files that are
//! not what was expected.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// As many bytes as are needed to recognise any kind.
pub(crate) const FIRST_BYTES: usize = 64;

/// A kind of file that people meet where they expect another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// No bytes at all.
    Empty,
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
    /// BMP.
    Bmp,
    /// TIFF, and cameras' raw files, which are built like it.
    Tiff,
    /// AVIF.
    Avif,
    /// HEIC, as telephones write it.
    Heic,
    /// JPEG XL.
    JpegXl,
    /// JPEG 2000.
    Jpeg2000,
    /// SVG.
    Svg,
    /// Photoshop.
    Photoshop,
    /// MP4 or QuickTime.
    Film,
    /// PDF.
    Pdf,
    /// The data that macOS keeps about a file, beside it.
    AppleDouble,
    /// What git holds instead of a large file.
    GitLfsPointer,
    /// HTML.
    WebPage,
    /// An archive of zip, as `torch.save` writes it too.
    Zip,
    /// Compressed by gzip.
    Gzip,
    /// An archive of RAR or 7-Zip.
    OtherArchive,
    /// A pickle of Python.
    Pickle,
    /// Tensors of GGML.
    Gguf,
    /// An array of NumPy.
    Numpy,
    /// A file of HDF5, as Keras writes weights.
    Hdf5,
}

use FileKind::*;

/// Where a kind has which bytes.
const SIGNATURES: [(usize, &[u8], FileKind); 34] = [
    (0, b"\x89PNG\r\n\x1a\n", Png),
    (0, b"\xff\xd8\xff", Jpeg),
    (8, b"WEBP", WebP),
    (0, b"GIF87a", Gif),
    (0, b"GIF89a", Gif),
    (0, b"II*\0", Tiff),
    (0, b"MM\0*", Tiff),
    (0, b"II+\0", Tiff),
    (0, b"MM\0+", Tiff),
    (4, b"ftypavif", Avif),
    (4, b"ftypavis", Avif),
    (4, b"ftyphei", Heic),
    (4, b"ftyphev", Heic),
    (4, b"ftypmif1", Heic),
    (4, b"ftypmsf1", Heic),
    (0, b"\xff\x0a", JpegXl),
    (4, b"JXL \r\n", JpegXl),
    (4, b"jP  \r\n", Jpeg2000),
    (0, b"\xff\x4f\xff\x51", Jpeg2000),
    (4, b"ftyp", Film),
    (0, b"8BPS", Photoshop),
    (0, b"%PDF", Pdf),
    (0, b"\0\x05\x16\x07\0\x02", AppleDouble),
    (0, b"version https://git-lfs.github.com", GitLfsPointer),
    (0, b"PK\x03\x04", Zip),
    (0, b"\x1f\x8b", Gzip),
    (0, b"Rar!\x1a", OtherArchive),
    (0, b"7z\xbc\xaf\x27\x1c", OtherArchive),
    (0, b"GGUF", Gguf),
    (0, b"\x93NUMPY", Numpy),
    (0, b"\x89HDF\r\n\x1a\n", Hdf5),
    (0, b"\x80\x02", Pickle),
    (0, b"\x80\x03", Pickle),
    (0, b"\x80\x04", Pickle),
];

impl FileKind {
    /// The kind of a file that begins like this; `None` when it is none of those known here.
    pub fn of(start: &[u8]) -> Option<Self> {
        if start.is_empty() {
            return Some(Empty);
        }
        let has = |(at, bytes, _): &&(usize, &[u8], FileKind)| {
            start.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
        };
        if let Some((_, _, kind)) = SIGNATURES.iter().find(has) {
            return Some(*kind);
        }
        // BMP has two bytes only, which text may have too; bytes 6 to 9 are reserved.
        if start.starts_with(b"BM") && start.get(6..10) == Some(&[0; 4]) {
            return Some(Bmp);
        }
        let start = start.get(..FIRST_BYTES).unwrap_or(start);
        let text = String::from_utf8_lossy(start).to_lowercase();
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        if begins(&["<!doctype html", "<html", "<head"]) {
            return Some(WebPage);
        }
        (begins(&["<svg"]) || begins(&["<?xml"]) && text.contains("<svg")).then_some(Svg)
    }

    /// The kind of a file; `None` also when it cannot be read.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mut start = Vec::with_capacity(FIRST_BYTES);
        let file = File::open(path).ok()?;
        file.take(FIRST_BYTES as u64).read_to_end(&mut start).ok()?;
        Self::of(&start)
    }

    /// Whether it is an image of any kind.
    pub fn is_image(self) -> bool {
        self.is_read() || matches!(self, Avif | Heic | JpegXl | Jpeg2000 | Svg | Photoshop)
    }

    /// Whether it is an image that `load_image` reads.
    pub fn is_read(self) -> bool {
        matches!(self, Png | Jpeg | WebP | Gif | Bmp | Tiff)
    }
}

/// With its article and what to do about it, as in "the file is ..".
impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Empty => "empty; fetch or copy it again",
            Png => "a PNG image",
            Jpeg => "a JPEG image",
            WebP => "a WebP image",
            Gif => "a GIF image",
            Bmp => "a BMP image",
            Tiff => "a TIFF image",
            Avif => "an AVIF image",
            Heic => "a HEIC image",
            JpegXl => "a JPEG XL image",
            Jpeg2000 => "a JPEG 2000 image",
            Svg => "an SVG drawing",
            Photoshop => "a Photoshop file",
            Film => "a film (MP4 or QuickTime)",
            Pdf => "a PDF document",
            AppleDouble => "what macOS keeps about another file (AppleDouble), not the file itself",
            GitLfsPointer => {
                "a Git-LFS pointer, which stands for the file; run `git lfs pull`, or fetch the \
                 file itself"
            }
            WebPage => {
                "a web page (HTML), perhaps one that asks to log in; fetch the file itself again"
            }
            Zip => "a zip archive",
            Gzip => "compressed (gzip); unpack it first",
            OtherArchive => "an archive; unpack it first",
            Pickle => "a pickle of Python",
            Gguf => "a GGUF file of quantised tensors",
            Numpy => "an array of NumPy",
            Hdf5 => "an HDF5 file, as Keras writes weights",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content() {
        let heic = b"\0\0\0\x18ftypheic\0\0\0\0";
        let film = b"\0\0\0\x18ftypmp42\0\0\0\0";
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0";
        for (start, kind) in [
            (&b""[..], Some(FileKind::Empty)),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Some(FileKind::Png)),
            (heic, Some(FileKind::Heic)),
            (film, Some(FileKind::Film)),
            (pointer, Some(FileKind::GitLfsPointer)),
            (b"\n <!DOCTYPE html><html>", Some(FileKind::WebPage)),
            (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", Some(FileKind::Bmp)),
            (b"BMW is a maker of cars", None),
            (b"a photo of a {}", None),
        ] {
            assert_eq!(FileKind::of(start), kind, "{start:?}");
        }
    }
}
