//! The mask judge of the mini world: where in a picture the thing is that a word names.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Precision;
use core_model::clip::ClipModel;
use core_model::clipseg::{ClipSegDecoderConfig, ClipSegModel};
use core_model::params::{ParamNames, to_vec};
use core_model::tokenizer::Tokenizer;
use serde::Deserialize;

use super::scenes::{MaskedScene, Scenes, Split, pixels};
use super::session::{Objective, Quality};
use crate::world::{Category, SIDE};

/// Held-out scenes of the learning curve.
const HELD_OUT: u64 = 512;

/// Held-out scenes looked at together.
const BATCH: u64 = 64;

/// One scene in so many is asked for another thing than it shows, whose mask is empty; Lüddecke &
/// Ecker 2022 do so too.
const WRONG: usize = 5;

/// `[clipseg]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSegTask {
    /// The folder to write the whole model to; it holds the tokenizer.
    pub output: PathBuf,
    /// The folder of the CLIP model that looks and reads; it stays as it is.
    pub clip: PathBuf,
    /// What goes into `config.json` beside the CLIP model.
    pub decoder: ClipSegDecoderConfig,
}

/// Binary cross-entropy of every pixel, the decoder alone in training.
#[derive(Debug)]
pub(super) struct ClipSegObjective<'a> {
    /// The task.
    task: &'a ClipSegTask,
    /// Seed of the weights and the scenes.
    seed: u64,
    /// Scenes in one step.
    batch_size: usize,
    /// Where tensors live.
    device: &'a Device,
    /// The ids of every category's word.
    words: Vec<Vec<u32>>,
}

impl<'a> ClipSegObjective<'a> {
    /// Reads the tokenizer.
    ///
    /// # Errors
    /// An absent or damaged tokenizer folder.
    pub(super) fn new(
        task: &'a ClipSegTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(&task.clip)?;
        let words = Category::ALL.iter();
        let words = words.map(|category| tokenizer.encode(category.word()).ids);
        Ok(Self {
            task,
            seed,
            batch_size,
            device,
            words: words.collect(),
        })
    }

    /// Logits of the scenes, each asked for the thing with that number; [scenes, side, side].
    fn logits(
        &self,
        network: &ClipSegModel,
        scenes: &[MaskedScene],
        asked: impl Iterator<Item = usize>,
    ) -> Tensor<3> {
        let looked = scenes.iter().flat_map(|scene| scene.pixels.clone());
        let words: Vec<Vec<u32>> = asked.map(|category| self.words[category].clone()).collect();
        let text = network.text_features(&words);
        network.forward(pixels(looked.collect(), self.device), text)
    }
}

impl Objective for ClipSegObjective<'_> {
    type Network = ClipSegModel;
    type Batch = Vec<MaskedScene>;

    fn network(&self, device: &Device) -> Result<ClipSegModel> {
        let ClipSegTask {
            output,
            clip,
            decoder,
        } = self.task;
        Ok(if output.join("config.json").exists() {
            ClipSegModel::load(output, device)?
        } else {
            ClipSegModel::on(ClipModel::load(clip, device)?, decoder, self.seed)?
        })
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &ClipSegModel) -> ParamNames {
        network.names().clone()
    }

    fn trains(&self, name: &str) -> bool {
        name.starts_with("decoder.")
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Vec<MaskedScene> + Send> {
        let scenes = Scenes::new(self.seed, Split::Training, "clipseg scene");
        let batch_size = self.batch_size as u64;
        Box::new(move |step| scenes.masked(step, batch_size))
    }

    fn loss(&self, network: &ClipSegModel, batch: Vec<MaskedScene>, _step: u64) -> Tensor<1> {
        let is_wrong = |index: usize| index % WRONG == WRONG - 1;
        let asked = batch.iter().enumerate();
        let asked = asked.map(|(index, scene)| match is_wrong(index) {
            true => scene.other,
            false => scene.category,
        });
        let logits = self.logits(network, &batch, asked);
        let truth = batch.iter().enumerate().flat_map(|(index, scene)| {
            let mask = scene.mask.iter();
            mask.map(move |value| if is_wrong(index) { 0.0 } else { *value })
        });
        let truth: Vec<f32> = truth.collect();
        let truth = Tensor::<3>::from_data(TensorData::new(truth, logits.dims()), self.device);
        let size = relu(logits.clone()) - logits.clone() * truth.autodiff();
        (size + ((-logits.abs()).exp() + 1.0).log()).mean()
    }

    /// `iou`: intersection over union of mask and truth, mean over scenes asked for what they
    /// show; `empty`: how many scenes asked for another thing have a mask of less than a hundredth
    /// of the picture.
    fn evaluate(&self, network: &ClipSegModel) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "clipseg held-out scene");
        let pixels = (SIDE * SIDE) as usize;
        let (mut iou, mut empty) = (0.0, 0);
        for batch in 0..HELD_OUT / BATCH {
            let batch = scenes.masked(batch, BATCH);
            let found = self.logits(network, &batch, batch.iter().map(|scene| scene.category));
            let found = to_vec(found);
            for (found, scene) in found.chunks_exact(pixels).zip(&batch) {
                iou += intersection_over_union(found, &scene.mask);
            }
            let found = self.logits(network, &batch, batch.iter().map(|scene| scene.other));
            let found = to_vec(found);
            let area = |found: &[f32]| found.iter().filter(|logit| **logit > 0.0).count();
            empty += found
                .chunks_exact(pixels)
                .filter(|found| area(found) * 100 < pixels)
                .count();
        }
        Ok(vec![
            ("iou".into(), iou / HELD_OUT as f64),
            ("empty".into(), empty as f64 / HELD_OUT as f64),
        ])
    }

    fn save(&self, network: &ClipSegModel) -> Result<()> {
        network.save(&self.task.output, Precision::Half)?;
        Ok(())
    }
}

/// Of the pixels whose logit is above 0 and those whose truth is at least a half; 1 when there are
/// none of either.
fn intersection_over_union(logits: &[f32], truth: &[f32]) -> f64 {
    let (mut both, mut either) = (0_u32, 0_u32);
    for (logit, truth) in logits.iter().zip(truth) {
        let (found, there) = (*logit > 0.0, *truth >= 0.5);
        both += u32::from(found && there);
        either += u32::from(found || there);
    }
    if either == 0 {
        return 1.0;
    }
    f64::from(both) / f64::from(either)
}

#[cfg(test)]
mod tests {
    use super::intersection_over_union;

    #[test]
    fn intersection_over_union_counts_pixels_found_and_there() {
        let truth = [1.0, 1.0, 0.0, 0.0];
        assert_eq!(
            intersection_over_union(&[2.0, -1.0, 3.0, -1.0], &truth),
            1.0 / 3.0
        );
        assert_eq!(
            intersection_over_union(&[2.0, 1.0, -3.0, -1.0], &truth),
            1.0
        );
        assert_eq!(intersection_over_union(&[-1.0], &[0.0]), 1.0);
    }
}
