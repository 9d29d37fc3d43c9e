//! The CLIPSeg of the mini world: it segments the thing that a word names.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::Precision;
use core_model::clip::ClipModel;
use core_model::clipseg::{ClipSegDecoderConfig, ClipSegModel};
use core_model::params::{ParamNames, to_vec};
use serde::Deserialize;

use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{MaskedScene, PeopleShare, Scenes, Split, pixels};
use super::vocabulary::read_tokenizer;
use crate::world::{Category, SIDE};

/// Held-out scenes for the learning curve.
const HELD_OUT: u64 = 512;

/// Held-out scenes per forward pass.
const BATCH: u64 = 64;

/// One of this many scenes is queried for a thing that it does not show, whose mask is empty, as in
/// Lüddecke and Ecker 2022.
const WRONG: usize = 5;

/// `[clipseg]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSegTask {
    /// The folder to write the whole model to. It must hold the tokenizer.
    pub output: PathBuf,
    /// The folder of the CLIP model that encodes image and word; it is not trained.
    pub clip: PathBuf,
    /// The share of scenes that show a person, 0 to 1. Absent: 0.
    #[serde(default)]
    pub people: PeopleShare,
    /// The sizes of the decoder, as in `config.json`.
    pub decoder: ClipSegDecoderConfig,
}

/// Binary cross-entropy per pixel; only the decoder is trained.
#[derive(Debug)]
pub(super) struct ClipSegObjective<'a> {
    /// The task.
    task: &'a ClipSegTask,
    /// Seed of the weights and the scenes.
    seed: u64,
    /// Scenes per step.
    batch_size: usize,
    /// The device.
    device: &'a Device,
    /// The token ids of every category's word.
    words: Vec<Vec<u32>>,
}

impl<'a> ClipSegObjective<'a> {
    /// Reads the tokenizer.
    ///
    /// # Errors
    /// An absent or damaged tokenizer folder, a tokenizer that lost a word or has more tokens than the CLIP.
    pub(super) fn new(
        task: &'a ClipSegTask,
        seed: u64,
        batch_size: usize,
        device: &'a Device,
    ) -> Result<Self> {
        let clip = ClipModel::read_config(&task.clip.join("config.json"))?;
        let tokenizer = read_tokenizer(&task.clip, task.people.nouns())?.fit(&clip.text_config)?;
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

    /// Logits [scenes, side, side] of scenes, each queried for the category with this index.
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

    fn fresh(&self, device: &Device) -> Result<ClipSegModel> {
        let ClipSegTask { clip, decoder, .. } = self.task;
        let clip = ClipModel::load(clip, device)?;
        Ok(ClipSegModel::on(clip, decoder, self.seed)?)
    }

    fn stored(&self, device: &Device) -> Result<Option<ClipSegModel>> {
        stored(&self.task.output, device)
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
        let scenes =
            Scenes::new(self.seed, Split::Training, "clipseg scene").with_people(self.task.people);
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

    /// `iou`: the mean intersection over union with the true mask, over scenes queried for what they
    /// show, and `people_iou` that over people alone; `empty`: the share of scenes queried for another
    /// thing whose mask covers less than a hundredth of the image.
    fn evaluate(&self, network: &ClipSegModel) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "clipseg held-out scene")
            .with_people(self.task.people);
        let pixels = (SIDE * SIDE) as usize;
        let (mut iou, mut people, mut empty) = (Vec::new(), Vec::new(), 0);
        for batch in 0..HELD_OUT / BATCH {
            let batch = scenes.masked(batch, BATCH);
            let found = self.logits(network, &batch, batch.iter().map(|scene| scene.category));
            let found = to_vec(found);
            for (found, scene) in found.chunks_exact(pixels).zip(&batch) {
                let shared = intersection_over_union(found, &scene.mask);
                iou.push(shared);
                if scene.category == Category::Person.index() {
                    people.push(shared);
                }
            }
            let found = self.logits(network, &batch, batch.iter().map(|scene| scene.other));
            let found = to_vec(found);
            let area = |found: &[f32]| found.iter().filter(|logit| **logit > 0.0).count();
            empty += found
                .chunks_exact(pixels)
                .filter(|found| area(found) * 100 < pixels)
                .count();
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mut quality = vec![
            ("iou".into(), mean(&iou)),
            ("empty".into(), empty as f64 / HELD_OUT as f64),
        ];
        if !people.is_empty() {
            quality.push(("people_iou".into(), mean(&people)));
        }
        Ok(quality)
    }

    fn save(&self, network: &ClipSegModel, place: Place<'_>) -> Result<()> {
        network.save(&place(&self.task.output), Precision::Float16)?;
        Ok(())
    }
}

/// Intersection over union of the pixels with a logit above 0 and those with a true value of at least
/// one half; 1 when both sets are empty.
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
