//! Zero-shot classification of generated images with the evaluation CLIP.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::clip::ClipModel;
use core_model::image_processor::ImageProcessor;
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::RgbImage;

use super::contrast::normalised;
use super::objective::Quality;
use super::questions::Questions;
use super::scenes::LabelledScene;
use crate::world::Category;

/// Images per forward pass.
const BATCH: usize = 64;

/// A CLIP model with the features of all answers.
#[derive(Debug)]
pub(super) struct ZeroShot {
    clip: ClipModel,
    processor: ImageProcessor,
    questions: Questions,
    answers: Tensor<2>,
    device: Device,
}

impl ZeroShot {
    /// Reads a CLIP folder with tokenizer and image processor, to ask about scenes that show these nouns.
    pub(super) fn load(folder: &Path, nouns: &'static [Category], device: &Device) -> Result<Self> {
        let clip = ClipModel::load(folder, device)?;
        let tokenizer = Tokenizer::from_dir(folder)?.fit(&clip.config().text_config)?;
        let questions = Questions::new(nouns);
        let ids: Vec<_> = questions
            .captions()
            .iter()
            .map(|caption| tokenizer.encode(caption).ids)
            .collect();
        Ok(Self {
            answers: clip.text_features(&ids),
            processor: ImageProcessor::from_dir(folder)?,
            clip,
            questions,
            device: device.clone(),
        })
    }

    /// For each attribute, the share of images whose best answer is the one in their caption.
    pub(super) fn accuracy(&self, images: &[RgbImage], asked: &[LabelledScene]) -> Result<Quality> {
        let answers = normalised(self.answers.clone());
        let mut logits = Vec::new();
        for batch in images.chunks(BATCH) {
            let features = self
                .clip
                .image_features(self.processor.preprocess(batch, &self.device)?);
            // Normalising the image features would not change which answer is best.
            logits.extend(to_vec(features.matmul(answers.clone().transpose())));
        }
        let labels: Vec<_> = asked.iter().map(|scene| scene.attributes).collect();
        Ok(self.questions.accuracy(&logits, &labels))
    }
}
