//! The page that shows an experiment, `report.html`, and its data, `summary.json`.
//!
//! The page is one file without any reference to the network. Small versions of all images are in it;
//! full images are links to the files beside it.

mod arrange;
mod data;
mod diagnostics;
mod durations;
mod html;
mod images;
mod links;
mod names;
mod runs;
mod sheets;
mod source;
mod warnings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use core_model::files::{read, write_atomically};

use arrange::Arranged;
use data::Thumbnail;
use html::{Embedded, render};
use sheets::{ACROSS, Sheets};

pub use runs::RunFiles;
pub use source::{ProtocolScores, Source};

/// The name of the page.
pub const PAGE: &str = "report.html";

/// The name of its data.
pub const SUMMARY: &str = "summary.json";

/// Which images are in the page itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Embed {
    /// Small versions and the image files themselves
    Full,
    /// Small versions; the files are linked
    #[default]
    Thumbnails,
    /// No image; the files are linked
    None,
}

/// How the page is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which images are in the page.
    pub embed: Embed,
    /// How many bytes of image files it holds at most.
    pub limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            embed: Embed::default(),
            limit: 60_000_000,
        }
    }
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The names of the files.
    pub files: Vec<String>,
    /// What the page lacks, in whole sentences.
    pub missing: Vec<String>,
}

/// Writes `report.html` and `summary.json` into the folder `out`. The same files give the same bytes.
///
/// # Errors
/// An unwritable folder.
pub fn write(source: &Source, out: &Path, options: &Options) -> Result<Written> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let Arranged {
        mut page,
        photos,
        images,
    } = Arranged::new(source, out);
    let mut files = Vec::new();
    if options.embed != Embed::None {
        page.thumbnails = data::Thumbnails {
            across: ACROSS,
            photos: embed_sheets(&photos, "photos", &mut files)?,
            images: embed_sheets(&images, "images", &mut files)?,
        };
    }
    if options.embed == Embed::Full {
        let left_out = embed_files(&images, options.limit, &mut files);
        if left_out > 0 {
            page.missing.push(format!(
                "{left_out} of {} image files are not in this page, which holds {} MB of them at \
                 most; they are linked.",
                images.len(),
                options.limit as f64 / 1e6
            ));
        }
    }
    let data = serde_json::to_string(&page)?;
    write_atomically(&out.join(SUMMARY), (data.clone() + "\n").as_bytes())?;
    write_atomically(&out.join(PAGE), render(&data, &files).as_bytes())?;
    Ok(Written {
        files: vec![PAGE.to_string(), SUMMARY.to_string()],
        missing: page.missing,
    })
}

/// Adds the small versions of images, and says where they are.
fn embed_sheets(images: &[PathBuf], name: &str, files: &mut Vec<Embedded>) -> Result<Thumbnail> {
    let sheets = Sheets::draw(images)?;
    let thumbnail = Thumbnail {
        side: sheets.side,
        media_type: sheets.media_type,
        sheets: sheets.sheets.len(),
        absent: sheets.absent,
    };
    let sheets = sheets.sheets.into_iter().enumerate();
    files.extend(sheets.map(|(index, bytes)| Embedded {
        id: format!("{name}-{index}"),
        bytes,
    }));
    Ok(thumbnail)
}

/// Adds the image files, as `file-0` and on, up to `limit` bytes; returns how many are left out.
fn embed_files(images: &[PathBuf], limit: u64, files: &mut Vec<Embedded>) -> usize {
    let (mut size, mut left_out) = (0, 0);
    for (index, path) in images.iter().enumerate() {
        let Ok(bytes) = read(path) else { continue };
        if size + bytes.len() as u64 > limit {
            left_out += 1;
            continue;
        }
        size += bytes.len() as u64;
        files.push(Embedded {
            id: format!("file-{index}"),
            bytes,
        });
    }
    left_out
}
