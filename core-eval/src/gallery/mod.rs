//! Masks of images, and features of whole images and of foregrounds. Each is computed once for all
//! protocols, grids and checks, and kept for the next start.

mod batch;
mod features;
mod image_file;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use core_model::alignment::aligned_face;
use core_model::folder::EncoderFolder;
use image::{GrayImage, RgbImage};

use batch::Batch;
pub use features::{ImageFeatures, Needs, TextFeatures};
use image_file::is_black;
pub use image_file::{ImageFile, MaskSource, load_images, masked_photos, photos};
pub(crate) use store::{Key, Store};

use crate::masks::Outline;
use crate::masks::{
    MASKS, Segmenter, from_runs, is_empty, large_parts, masked, read_mask, to_runs,
};
use crate::metrics::{
    EncoderFolders, EncoderKind, FaceInput, Feature, ImageEncoder, Metric, Reading, Region,
};
use crate::usage::Usage;

/// Images that a network reads together: few enough for the memory of a full-size CLIPSeg. On the CPU
/// features and masks are the same to the last bit for any number; it is fixed so that they never
/// depend on how many images are still to be read, whatever the device.
pub const BATCH: usize = 16;

/// How often results are written to disk while they are computed.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// The networks of an evaluation, each loaded when it is first needed, and their results.
pub struct Gallery {
    folders: EncoderFolders,
    face_input: Option<FaceInput>,
    device: Device,
    encoders: BTreeMap<&'static str, Box<dyn ImageEncoder>>,
    segmenter: Option<Segmenter>,
    /// By key of the encoder.
    features: BTreeMap<&'static str, Store>,
    masks: Store,
    saved: Instant,
    usage: Usage,
}

impl Gallery {
    /// Checks every network whose folder is named, without loading it. Results are kept in the
    /// folder `kept`, or for this gallery only.
    ///
    /// # Errors
    /// Absent or damaged files, weights that do not fit their configuration, preprocessing that does
    /// not fit the network.
    pub fn new(folders: &EncoderFolders, device: &Device, kept: Option<PathBuf>) -> Result<Self> {
        let file = |key: &str| kept.as_ref().map(|kept| kept.join(format!("{key}.bin")));
        let mut features = BTreeMap::new();
        for (kind, folder) in folders.encoders() {
            (kind.check)(folder.path()).with_context(|| kind.title)?;
            let store = Store::open(file(kind.key), &digest(folder)?);
            features.insert(kind.key, store);
        }
        let masks = match &folders.clipseg {
            Some(folder) => {
                Segmenter::check(folder.path())?;
                Store::open(file("clipseg"), &digest(folder)?)
            }
            None => Store::default(),
        };
        Ok(Self {
            face_input: folders.face_input()?,
            folders: folders.clone(),
            device: device.clone(),
            encoders: BTreeMap::new(),
            segmenter: None,
            features,
            masks,
            saved: Instant::now(),
            usage: Usage::default(),
        })
    }

    /// The metrics whose encoders' folders are named, without those that need images of the base
    /// model.
    pub fn metrics(&self) -> Vec<Metric> {
        self.folders.metrics()
    }

    /// How faces are found, where a metric reads them.
    pub fn face_input(&self) -> Option<FaceInput> {
        self.face_input
    }

    /// Which networks ran, and how often.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Frees the networks. They are loaded again when they are needed.
    pub fn release(&mut self) {
        self.encoders.clear();
        self.segmenter = None;
    }

    /// Writes new results to disk.
    ///
    /// # Errors
    /// An unwritable folder.
    pub fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        self.masks.save()?;
        self.features.values_mut().try_for_each(Store::save)
    }

    /// The same, at most once per interval.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_if_due(&mut self) -> Result<()> {
        match self.saved.elapsed() > SAVE_INTERVAL {
            true => self.save(),
            false => Ok(()),
        }
    }

    /// The features of images, in their order.
    ///
    /// # Errors
    /// An image that cannot be read, or that the preprocessing refuses; an absent mask.
    pub fn features(&mut self, images: &[ImageFile], needs: &Needs) -> Result<Vec<ImageFeatures>> {
        let mut all = Vec::with_capacity(images.len());
        for files in images.chunks(BATCH) {
            all.extend(self.of_batch(&mut Batch::new(files)?, needs)?);
        }
        Ok(all)
    }

    /// The masks of images, in their order.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn masks(&mut self, images: &[ImageFile]) -> Result<Vec<GrayImage>> {
        let mut all = Vec::with_capacity(images.len());
        for files in images.chunks(BATCH) {
            all.extend(self.masks_of_batch(&mut Batch::new(files)?)?);
        }
        Ok(all)
    }

    /// Reads photos and their masks, so that damaged ones are found before any other work.
    ///
    /// # Errors
    /// A photo that cannot be read; a mask that is absent or has no foreground.
    pub fn check_photos(&mut self, photos: &[ImageFile]) -> Result<()> {
        if photos.iter().all(|photo| photo.mask.is_none()) {
            load_images(photos.iter().map(|photo| photo.path.as_path()))?;
            return Ok(());
        }
        let masks = self.masks(photos)?;
        for (photo, mask) in photos.iter().zip(&masks) {
            ensure!(
                !is_empty(mask),
                "{}: its mask has no foreground{}; use a photo that shows the concept, or put the masks \
                 of all photos of this concept into {}, white where the concept is",
                photo.path.display(),
                match &photo.mask {
                    Some(MaskSource::Word(word)) => format!(" (CLIPSeg finds no `{word}` in it)"),
                    _ => String::new(),
                },
                photo.path.with_file_name(MASKS).display()
            );
            if self.face_input.is_some() && large_parts(mask) > 1 {
                tracing::warn!(
                    "{}: its mask has {} large parts; if the photo shows more than one person, crop it \
                     to the one who is learned",
                    photo.path.display(),
                    large_parts(mask)
                );
            }
        }
        Ok(())
    }

    /// The features of a text that metrics compare images with.
    ///
    /// # Errors
    /// An encoder that reads no texts.
    pub fn text_features(&mut self, text: &str, metrics: &[Metric]) -> Result<TextFeatures> {
        let mut features = TextFeatures::new();
        for metric in metrics.iter().filter(|metric| metric.reads_text()) {
            let kind = metric.definition().encoder();
            if !features.contains_key(kind.key) {
                features.insert(kind.key, self.text_feature(kind, text)?);
            }
        }
        Ok(features)
    }

    fn text_feature(&mut self, kind: &'static EncoderKind, text: &str) -> Result<Feature> {
        let key = Key::of(&["text", text]);
        if let Some(known) = self.known(kind.key, &[key]) {
            return Ok(known.concat());
        }
        let feature = self.encoder(kind.key)?.text_feature(text)?;
        self.usage
            .count(&format!("texts read by {}", kind.title), 1);
        self.keep(kind.key, key, &feature);
        Ok(feature)
    }

    fn of_batch(&mut self, batch: &mut Batch<'_>, needs: &Needs) -> Result<Vec<ImageFeatures>> {
        let mut all = vec![ImageFeatures::default(); batch.files.len()];
        let masks = match needs.masks() {
            true => Some(self.masks_of_batch(batch)?),
            false => None,
        };
        for (features, mask) in all.iter_mut().zip(masks.iter().flatten()) {
            features.empty_mask = is_empty(mask);
            features.no_face = needs.finds_faces(FaceInput::WholeImage) && features.empty_mask;
            features.outline = Some(Outline::of(mask));
        }
        if needs.blackness {
            for (features, image) in all.iter_mut().zip(batch.pixels()?) {
                features.is_black = is_black(image);
            }
        }
        if needs.finds_faces(FaceInput::Aligned) {
            for (features, file) in all.iter_mut().zip(batch.files) {
                features.no_face = file.landmarks.is_none();
            }
        }
        for reading in &needs.readings {
            if reading.region == Region::Face && needs.face_input == Some(FaceInput::Aligned) {
                for (index, feature) in self.read_faces(*reading, batch)? {
                    all[index].by_reading.insert(*reading, feature);
                }
                continue;
            }
            let read = self.read(*reading, batch, masks.as_deref().unwrap_or_default())?;
            for (features, feature) in all.iter_mut().zip(read) {
                if reading.region != Region::Face || !features.no_face {
                    features.by_reading.insert(*reading, feature);
                }
            }
        }
        Ok(all)
    }

    /// The features of a batch by one encoder: either all are known, or all are computed.
    fn read(
        &mut self,
        reading: Reading,
        batch: &mut Batch<'_>,
        masks: &[GrayImage],
    ) -> Result<Vec<Feature>> {
        let keys = match reading.region {
            Region::Whole | Region::Face => batch.keys(),
            Region::Foreground => batch.foreground_keys(self.masks.network())?,
        };
        if let Some(known) = self.known(reading.encoder, &keys) {
            return Ok(known);
        }
        let images = batch.pixels()?;
        let encoder = self.encoder(reading.encoder)?;
        let features = match reading.region {
            Region::Whole | Region::Face => encoder.image_features(images)?,
            Region::Foreground => {
                let pairs = images.iter().zip(masks);
                let shown: Vec<RgbImage> = pairs.map(|(image, mask)| masked(image, mask)).collect();
                encoder.image_features(&shown)?
            }
        };
        let title = self.kind(reading.encoder)?.title;
        let count = features.len() as u64;
        self.usage.count(&format!("images read by {title}"), count);
        for (key, feature) in keys.into_iter().zip(&features) {
            self.keep(reading.encoder, key, feature);
        }
        Ok(features)
    }

    /// The features of the faces of a batch, each with the index of its image: either all are known, or all
    /// are computed.
    fn read_faces(
        &mut self,
        reading: Reading,
        batch: &mut Batch<'_>,
    ) -> Result<Vec<(usize, Feature)>> {
        let (places, keys) = batch.face_keys();
        if let Some(known) = self.known(reading.encoder, &keys) {
            return Ok(places.into_iter().zip(known).collect());
        }
        let files = batch.files;
        let images = batch.pixels()?;
        let faces = places.iter().filter_map(|index| {
            let landmarks = files[*index].landmarks?;
            Some(aligned_face(&images[*index], &landmarks))
        });
        let faces: Vec<RgbImage> = faces.collect();
        let features = self.encoder(reading.encoder)?.image_features(&faces)?;
        let title = self.kind(reading.encoder)?.title;
        let count = features.len() as u64;
        self.usage.count(&format!("faces read by {title}"), count);
        for (key, feature) in keys.into_iter().zip(&features) {
            self.keep(reading.encoder, key, feature);
        }
        Ok(places.into_iter().zip(features).collect())
    }

    fn masks_of_batch(&mut self, batch: &mut Batch<'_>) -> Result<Vec<GrayImage>> {
        let mut masks = Vec::with_capacity(batch.files.len());
        let mut words = Vec::new();
        for (index, file) in batch.files.iter().enumerate() {
            masks.push(match &file.mask {
                Some(MaskSource::File(path)) => read_mask(path, &batch.pixels()?[index])?,
                Some(MaskSource::Word(word)) => {
                    words.push((index, word.as_str()));
                    GrayImage::default()
                }
                None => bail!(
                    "{}: foregrounds are compared, and there is no mask",
                    file.path.display()
                ),
            });
        }
        for (index, mask) in self.segmented(batch, &words)? {
            masks[index] = mask;
        }
        Ok(masks)
    }

    /// The masks of some images of a batch, each given by its index and word: either all are known, or all
    /// are computed.
    fn segmented(
        &mut self,
        batch: &mut Batch<'_>,
        words: &[(usize, &str)],
    ) -> Result<Vec<(usize, GrayImage)>> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let places = || words.iter().map(|(index, _)| *index);
        let digests = &batch.digests;
        let keys: Vec<Key> = words
            .iter()
            .map(|(index, word)| Key::of(&["mask", &digests[*index], word]))
            .collect();
        let known = keys.iter().map(|key| from_runs(self.masks.get(*key)?));
        if let Some(known) = known.collect::<Option<Vec<_>>>() {
            return Ok(places().zip(known).collect());
        }
        let pixels = batch.pixels()?;
        let images: Vec<RgbImage> = places().map(|index| pixels[index].clone()).collect();
        let words: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        let masks = self.segmenter()?.masks(&images, &words)?;
        self.usage
            .count("masks made by CLIPSeg", masks.len() as u64);
        for (key, mask) in keys.into_iter().zip(&masks) {
            self.masks.insert(key, to_runs(mask));
        }
        Ok(places().zip(masks).collect())
    }

    /// Known features; `None` unless all are known.
    fn known(&self, encoder: &str, keys: &[Key]) -> Option<Vec<Feature>> {
        let store = self.features.get(encoder)?;
        let known = |key: &Key| {
            let bytes = store.get(*key).filter(|bytes| !bytes.is_empty())?;
            let (values, rest) = bytes.as_chunks::<4>();
            let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes));
            rest.is_empty().then(|| values.collect())
        };
        keys.iter().map(known).collect()
    }

    fn keep(&mut self, encoder: &'static str, key: Key, feature: &[f32]) {
        if let Some(store) = self.features.get_mut(encoder) {
            let bytes = feature.iter().flat_map(|value| value.to_le_bytes());
            store.insert(key, bytes.collect());
        }
    }

    fn kind(&self, key: &str) -> Result<&'static EncoderKind> {
        let mut encoders = self.folders.encoders().map(|(kind, _)| kind);
        encoders
            .find(|kind| kind.key == key)
            .with_context(|| format!("no folder of `{key}` is named"))
    }

    fn encoder(&mut self, key: &'static str) -> Result<&dyn ImageEncoder> {
        if !self.encoders.contains_key(key) {
            let kind = self.kind(key)?;
            let folder = self.folders.get(kind).context("no folder is named")?;
            let encoder = (kind.load)(folder.path(), &self.device)?;
            self.encoders.insert(key, encoder);
        }
        Ok(self.encoders[key].as_ref())
    }

    fn segmenter(&mut self) -> Result<&Segmenter> {
        if self.segmenter.is_none() {
            let Some(folder) = &self.folders.clipseg else {
                bail!("there are no masks and no CLIPSeg model to make them");
            };
            self.segmenter = Some(Segmenter::load(folder.path(), &self.device)?);
        }
        self.segmenter.as_ref().context("the segmenter was loaded")
    }
}

/// One digest of all files of a network.
fn digest(folder: &EncoderFolder) -> Result<String> {
    let digests = folder.digests()?.iter();
    let parts: Vec<&str> = digests
        .flat_map(|(name, digest)| [name.as_str(), digest])
        .collect();
    Ok(Key::of(&parts).hex())
}
