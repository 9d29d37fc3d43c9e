//! The networks that look at images and read prompts.

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::{Device, Tensor};
use core_model::clip::ClipModel;
use core_model::dino::DinoModel;
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::{GrayImage, RgbImage};

use super::segmenter::Segmenter;
use super::{Feature, Look, Looks, References, Seen, normalised};
use crate::foregrounds::{is_empty, masked};
use crate::pictures::is_black;

/// Images looked at together; fixed, so that a score does not depend on how many there are.
const BATCH: usize = 32;

/// Where the judges are.
#[derive(Debug, Clone, Copy)]
pub struct JudgeFolders<'a> {
    /// Of the CLIP model.
    pub clip: &'a Path,
    /// Of the DINO model.
    pub dino: &'a Path,
    /// Of the CLIPSeg model, where one makes masks.
    pub clipseg: Option<&'a Path>,
}

/// The judges with their preprocessing.
#[derive(Debug)]
pub struct Judges {
    clip: ClipModel,
    clip_processor: ImageProcessor,
    tokenizer: Tokenizer,
    dino: DinoModel,
    dino_processor: ImageProcessor,
    segmenter: Option<Segmenter>,
    device: Device,
}

impl Judges {
    /// Reads the folders.
    ///
    /// # Errors
    /// Absent or damaged files; a processor or tokenizer that does not fit its network.
    pub fn load(folders: JudgeFolders<'_>, device: &Device) -> Result<Self> {
        let JudgeFolders {
            clip,
            dino,
            clipseg,
        } = folders;
        let segmenter = clipseg.map(|folder| Segmenter::load(folder, device));
        let judges = Self {
            tokenizer: Tokenizer::from_dir(clip)?,
            clip_processor: ImageProcessor::from_dir(clip)?,
            clip: ClipModel::load(clip, device)?,
            dino_processor: ImageProcessor::from_dir(dino)?,
            dino: DinoModel::load(dino, device)?,
            segmenter: segmenter.transpose()?,
            device: device.clone(),
        };
        let (text, vision) = {
            let config = judges.clip.config();
            (config.text_config.clone(), config.vision_config.image_size)
        };
        judges.clip_processor.check_side(vision)?;
        let dino = judges.dino.config();
        dino.check_processor(&judges.dino_processor)?;
        let tokenizer = judges.tokenizer.clone().fit(&text)?;
        Ok(Self {
            tokenizer,
            ..judges
        })
    }

    /// CLIP's feature of a prompt, cut to its context length.
    pub fn text_feature(&self, prompt: &str) -> Feature {
        let ids = self.tokenizer.encode(prompt).ids;
        normalised(&to_vec(self.clip.text_features(&[ids])))
    }

    /// What both see of pictures.
    ///
    /// # Errors
    /// A picture that a processor refuses.
    pub fn looks(&self, pictures: &[RgbImage]) -> Result<Looks> {
        Ok(Looks {
            clip: self.features(pictures, &self.clip_processor, |pixels| {
                self.clip.image_features(pixels)
            })?,
            dino: self.features(pictures, &self.dino_processor, |pixels| {
                self.dino.features(pixels)
            })?,
        })
    }

    /// What both see of pictures and, where there are masks, of their foregrounds.
    ///
    /// # Errors
    /// As [`looks`](Self::looks).
    pub fn references(
        &self,
        photos: &[RgbImage],
        masks: Option<&[GrayImage]>,
    ) -> Result<References> {
        let foregrounds = masks.map(|masks| {
            let foregrounds = photos.iter().zip(masks).map(|(p, mask)| masked(p, mask));
            self.looks(&foregrounds.collect::<Vec<_>>())
        });
        Ok(References {
            whole: self.looks(photos)?,
            foreground: foregrounds.transpose()?,
        })
    }

    /// The same of images, one by one.
    ///
    /// # Errors
    /// As [`looks`](Self::looks).
    pub fn seen(&self, images: &[RgbImage], masks: Option<&[GrayImage]>) -> Result<Vec<Seen>> {
        let References { whole, foreground } = self.references(images, masks)?;
        let one_by_one = |looks: Looks| {
            let both = looks.clip.into_iter().zip(looks.dino);
            both.map(|(clip, dino)| Look { clip, dino })
        };
        let mut foregrounds = foreground.map(one_by_one);
        let seen = one_by_one(whole).zip(images).enumerate();
        Ok(seen
            .map(|(index, (whole, image))| Seen {
                whole,
                foreground: foregrounds.as_mut().and_then(Iterator::next),
                nothing_found: masks.is_some_and(|masks| is_empty(&masks[index])),
                blank: is_black(image),
            })
            .collect())
    }

    /// The foregrounds of pictures by the mask judge, which looks for a word in each.
    ///
    /// # Errors
    /// There is no mask judge; a picture that its processor refuses.
    pub fn masks(&self, pictures: &[RgbImage], words: &[&str]) -> Result<Vec<GrayImage>> {
        let Some(segmenter) = &self.segmenter else {
            bail!("there are no masks and no CLIPSeg model to make them");
        };
        segmenter.masks(pictures, words)
    }

    fn features(
        &self,
        images: &[RgbImage],
        processor: &ImageProcessor,
        network: impl Fn(Tensor<4>) -> Tensor<2>,
    ) -> Result<Vec<Feature>> {
        let mut features = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let rows = network(processor.preprocess(batch, &self.device)?);
            let width = rows.dims()[1];
            features.extend(to_vec(rows).chunks_exact(width).map(normalised));
        }
        Ok(features)
    }
}
