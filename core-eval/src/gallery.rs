//! What the networks of an evaluation make of images: masks, and features of whole images and of
//! foregrounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use image::{GrayImage, RgbImage};

use crate::masks::{MASKS, Segmenter, is_empty, mask_file, masked, no_class_word, read_mask};
use crate::metrics::{EncoderFolders, EncoderKind, Feature, ImageEncoder, Metric, Reading, Region};
use crate::pictures::is_black;
use crate::protocol::Protocol;

/// Images that a network reads together; fixed, so that a score does not depend on how many there
/// are.
pub const BATCH: usize = 32;

/// The loaded networks.
pub struct Gallery {
    encoders: Vec<(&'static EncoderKind, Box<dyn ImageEncoder>)>,
    segmenter: Option<Segmenter>,
}

/// The features of a text by encoder.
pub type TextFeatures = BTreeMap<&'static str, Feature>;

/// The features of one image.
#[derive(Debug, Clone, Default)]
pub struct ImageFeatures {
    by_reading: BTreeMap<Reading, Feature>,
    /// Whether its mask shows nothing.
    pub empty_mask: bool,
    /// Whether all of it is black.
    pub is_black: bool,
}

impl ImageFeatures {
    /// The one that a metric reads under a protocol, where it was computed.
    pub fn of(&self, metric: Metric, protocol: &Protocol) -> Option<&Feature> {
        self.by_reading.get(&metric.reading(protocol.masked))
    }

    /// The same with a feature more.
    #[must_use]
    pub fn with(mut self, reading: Reading, feature: Feature) -> Self {
        self.by_reading.insert(reading, feature);
        self
    }
}

/// The features that some metrics read under some protocols.
pub fn readings<'a>(
    metrics: impl Iterator<Item = &'a Metric> + Clone,
    protocols: &[&Protocol],
) -> BTreeSet<Reading> {
    let protocols = protocols.iter();
    protocols
        .flat_map(|protocol| {
            let metrics = metrics.clone();
            metrics.map(|metric| metric.reading(protocol.masked))
        })
        .collect()
}

impl Gallery {
    /// Loads every network whose folder is named.
    ///
    /// # Errors
    /// Absent or damaged files; preprocessing that does not fit its network.
    pub fn load(folders: &EncoderFolders, device: &Device) -> Result<Self> {
        let encoders = folders
            .encoders()
            .map(|(kind, folder)| Ok((kind, (kind.load)(folder, device)?)));
        let encoders = encoders.collect::<Result<_>>()?;
        let clipseg = folders.clipseg.as_deref();
        let segmenter = clipseg.map(|folder| Segmenter::load(folder, device));
        Ok(Self {
            encoders,
            segmenter: segmenter.transpose()?,
        })
    }

    fn encoder(&self, key: &str) -> Result<&dyn ImageEncoder> {
        let mut encoders = self.encoders.iter();
        let found = encoders.find(|(kind, _)| kind.key == key);
        let (_, encoder) = found.with_context(|| format!("no folder of `{key}` is named"))?;
        Ok(encoder.as_ref())
    }

    /// The features of a text that metrics compare images with.
    ///
    /// # Errors
    /// An encoder that reads no texts.
    pub fn text_features(&self, text: &str, metrics: &[Metric]) -> Result<TextFeatures> {
        let mut features = TextFeatures::new();
        for metric in metrics.iter().filter(|metric| !metric.reads_photos()) {
            let key = metric.definition().encoder().key;
            if !features.contains_key(key) {
                features.insert(key, self.encoder(key)?.text_feature(text)?);
            }
        }
        Ok(features)
    }

    /// The features of images, in batches of [`BATCH`]; those of foregrounds need masks.
    ///
    /// # Errors
    /// An image that the preprocessing refuses.
    pub fn features(
        &self,
        images: &[RgbImage],
        masks: Option<&[GrayImage]>,
        readings: &BTreeSet<Reading>,
    ) -> Result<Vec<ImageFeatures>> {
        let mut all: Vec<ImageFeatures> = images
            .iter()
            .enumerate()
            .map(|(index, image)| ImageFeatures {
                by_reading: BTreeMap::new(),
                empty_mask: masks.is_some_and(|masks| is_empty(&masks[index])),
                is_black: is_black(image),
            })
            .collect();
        for reading in readings {
            let shown: Vec<RgbImage>;
            let images = match (reading.region, masks) {
                (Region::Whole, _) => images,
                (Region::Foreground, Some(masks)) => {
                    let pairs = images.iter().zip(masks);
                    shown = pairs.map(|(image, mask)| masked(image, mask)).collect();
                    &shown
                }
                (Region::Foreground, None) => bail!("foregrounds are compared without masks"),
            };
            let encoder = self.encoder(reading.encoder)?;
            for (images, all) in images.chunks(BATCH).zip(all.chunks_mut(BATCH)) {
                for (of_image, feature) in all.iter_mut().zip(encoder.image_features(images)?) {
                    of_image.by_reading.insert(*reading, feature);
                }
            }
        }
        Ok(all)
    }

    /// The foregrounds of images by the segmenter, which looks for a word in each.
    ///
    /// # Errors
    /// There is no segmenter; an image that its preprocessing refuses.
    pub fn masks(&self, images: &[RgbImage], words: &[&str]) -> Result<Vec<GrayImage>> {
        let Some(segmenter) = &self.segmenter else {
            bail!("there are no masks and no CLIPSeg model to make them");
        };
        segmenter.masks(images, words)
    }

    /// The masks of photos in `folder`: files in `given`, else those in `masks/` beside the photos,
    /// else from the segmenter, which looks for `word`.
    ///
    /// # Errors
    /// An absent or misshapen mask, no source of masks at all, a mask without foreground.
    pub fn photo_masks(
        &self,
        folder: &Path,
        files: &[PathBuf],
        photos: &[RgbImage],
        given: Option<&Path>,
        word: Option<&str>,
    ) -> Result<Vec<GrayImage>> {
        let beside = folder.join(MASKS);
        let masks = match given {
            Some(masks) => Some(masks.to_path_buf()),
            None => beside.is_dir().then_some(beside),
        };
        let masks: Vec<GrayImage> = match masks {
            Some(masks) => files
                .iter()
                .zip(photos)
                .map(|(file, photo)| {
                    let name = Path::new(file.file_name().unwrap_or_default());
                    read_mask(&mask_file(&masks, name), photo)
                })
                .collect::<Result<_>>()?,
            None => {
                let word = word.with_context(|| no_class_word(folder))?;
                self.masks(photos, &vec![word; photos.len()])
                    .with_context(|| format!("{}: masks of the photos", folder.display()))?
            }
        };
        for (file, mask) in files.iter().zip(&masks) {
            ensure!(
                !is_empty(mask),
                "{}: its mask has no foreground; put the masks of all photos of this concept into \
                 {}, white where the concept is",
                file.display(),
                folder.join(MASKS).display()
            );
        }
        Ok(masks)
    }
}
