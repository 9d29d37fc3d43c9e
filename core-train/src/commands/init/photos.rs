//! What a folder of photos holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use core_model::files::sha256;
use core_model::image_processor::load_image;
use core_model::photos::PhotoFolder;

/// Numbers of photos with which the paper's methods learn well.
const USUAL: std::ops::RangeInclusive<usize> = 3..=6;

/// Side in pixels of the images that Stable Diffusion 1.x and 2.x-base draw.
const USUAL_SIDE: u32 = 512;

/// Photos of which more than this share is cut off when they are made square.
const CUT: f64 = 0.3;

/// The photos of a folder.
pub(super) struct Photos {
    folder: PathBuf,
    /// Every file with its width and height as it is seen.
    sizes: Vec<(PathBuf, [u32; 2])>,
    /// Files with the same bytes, each with the one before it.
    repeated: Vec<[PathBuf; 2]>,
}

impl Photos {
    /// Opens every image of the folder.
    ///
    /// # Errors
    /// A folder without images, an image that cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let listed = PhotoFolder::read(folder)?;
        listed.say_skipped();
        let (mut sizes, mut repeated) = (Vec::new(), Vec::new());
        let mut digests = BTreeMap::new();
        for file in listed.files {
            let image = load_image(&file)?;
            sizes.push((file.clone(), [image.width(), image.height()]));
            if let Some(first) = digests.insert(sha256(&file)?, file.clone()) {
                repeated.push([first, file]);
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            sizes,
            repeated,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The longest side of all photos, in pixels.
    pub(super) fn largest_side(&self) -> u32 {
        let sides = self.sizes.iter().flat_map(|(_, size)| *size);
        sides.max().unwrap_or_default()
    }

    /// Their number and sizes.
    pub(super) fn describe(&self) -> String {
        let area = |size: &[u32; 2]| u64::from(size[0]) * u64::from(size[1]);
        let mut sizes: Vec<[u32; 2]> = self.sizes.iter().map(|(_, size)| *size).collect();
        sizes.sort_by_key(area);
        let name = |[width, height]: [u32; 2]| format!("{width} x {height}");
        let (first, last) = (sizes.first(), sizes.last());
        let range = match (first, last) {
            (Some(first), Some(last)) if first != last => {
                format!("{} to {}", name(*first), name(*last))
            }
            (Some(only), _) => name(*only),
            _ => String::new(),
        };
        match sizes.len() {
            1 => format!("1 photo of {range} pixels"),
            count => format!("{count} photos of {range} pixels"),
        }
    }

    /// What may keep a concept from being learned well.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let count = self.sizes.len();
        if !USUAL.contains(&count) {
            remarks.push(format!(
                "there are {count} photos; the paper's methods were made for {} to {}",
                USUAL.start(),
                USUAL.end()
            ));
        }
        for [first, second] in &self.repeated {
            remarks.push(format!(
                "{} and {} are the same file; remove one of them",
                first.display(),
                second.display()
            ));
        }
        for (path, [width, height]) in &self.sizes {
            let (short, long) = (width.min(height), width.max(height));
            let cut = 1.0 - f64::from(*short) / f64::from(*long);
            if cut > CUT {
                remarks.push(format!(
                    "{} is {width} x {height} pixels: cutting out its centre loses {:.0} % of it; crop it \
                     yourself, or set resize = \"squash\"",
                    path.display(),
                    100.0 * cut
                ));
            }
        }
        remarks
    }

    /// Photos that a model of photographs would have to enlarge.
    pub(super) fn small(&self) -> Vec<String> {
        let small = self
            .sizes
            .iter()
            .filter(|(_, size)| size.iter().any(|side| *side < USUAL_SIDE));
        small
            .map(|(path, _)| {
                let name = path.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            })
            .collect()
    }
}
