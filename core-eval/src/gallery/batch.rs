//! Images that networks read together.

use anyhow::{Result, bail};
use core_model::files::sha256;
use image::RgbImage;
use rayon::prelude::*;

use super::image_file::{ImageFile, MaskSource, load_images};
use super::store::Key;

/// Images that are read together, and their pixels once they are needed.
pub(super) struct Batch<'a> {
    pub(super) files: &'a [ImageFile],
    /// The SHA-256 of every file.
    pub(super) digests: Vec<String>,
    pixels: Option<Vec<RgbImage>>,
}

impl<'a> Batch<'a> {
    /// Reads the files for their digests.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn new(files: &'a [ImageFile]) -> Result<Self> {
        let digests = files.par_iter().map(|file| sha256(&file.path));
        Ok(Self {
            files,
            digests: digests.collect::<core_model::Result<_>>()?,
            pixels: None,
        })
    }

    /// The images, which are decoded on the first call.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn pixels(&mut self) -> Result<&[RgbImage]> {
        if self.pixels.is_none() {
            let files = self.files.iter().map(|file| file.path.as_path());
            self.pixels = Some(load_images(files)?);
        }
        Ok(self.pixels.as_deref().unwrap_or_default())
    }

    /// The keys of the features of whole images.
    pub(super) fn keys(&self) -> Vec<Key> {
        let digests = self.digests.iter();
        digests.map(|digest| Key::of(&["whole", digest])).collect()
    }

    /// The indices of images with landmarks, and the keys of the features of their faces.
    pub(super) fn face_keys(&self) -> (Vec<usize>, Vec<Key>) {
        let images = self.files.iter().zip(&self.digests).enumerate();
        let faces = images.filter_map(|(index, (file, digest))| {
            let landmarks = format!("{:?}", file.landmarks?);
            Some((index, Key::of(&["face", digest, &landmarks])))
        });
        faces.unzip()
    }

    /// The keys of the features of foregrounds, which depend on the masks too.
    ///
    /// # Errors
    /// A mask that is absent or cannot be read.
    pub(super) fn foreground_keys(&self, segmenter: &str) -> Result<Vec<Key>> {
        let key = |(file, digest): (&ImageFile, &String)| {
            Ok(match &file.mask {
                Some(MaskSource::File(mask)) => {
                    Key::of(&["foreground", digest, "file", &sha256(mask)?])
                }
                Some(MaskSource::Word(word)) => {
                    Key::of(&["foreground", digest, "word", segmenter, word])
                }
                None => bail!("{}: there is no mask", file.path.display()),
            })
        };
        self.files.iter().zip(&self.digests).map(key).collect()
    }
}
