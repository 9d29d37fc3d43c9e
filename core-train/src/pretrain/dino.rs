//! The DINO-like instance encoder of the mini world: two views of one thing become similar, other
//! things with the same words dissimilar.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::params::{ParamNames, to_vec};
use serde::Deserialize;

use super::contrast::{cross_entropy, normalised};
use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{PeopleShare, Scenes, Split, pixels};
use super::triples::{photos, triples};

/// Size of the groups of a batch in which all things share category and colour, so that each is a
/// hard negative of the others.
const GROUP: usize = 4;

/// Softmax temperature, as in MoCo v3.
const TEMPERATURE: f64 = 0.1;

/// Held-out things per set; the quality `top1_of_64` is defined by this number.
const HELD_OUT: usize = 64;

/// Held-out things that are compared with their counterfactuals.
const TRIPLES: u64 = 512;

/// `[dino]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoTask {
    /// The folder to write `config.json` and weights to.
    pub output: PathBuf,
    /// The share of scenes that show a person, 0 to 1. Absent: 0.
    #[serde(default)]
    pub people: PeopleShare,
    /// The sizes of the network, as in its `config.json`.
    pub architecture: DinoConfig,
}

/// Instance discrimination on the CLS feature itself, which the DINO score compares.
#[derive(Debug)]
pub(super) struct DinoObjective<'a> {
    /// The task.
    pub task: &'a DinoTask,
    /// Seed of the weights and the scenes.
    pub seed: u64,
    /// Things per step, with two views each.
    pub batch_size: usize,
    /// The device.
    pub device: &'a Device,
}

impl Objective for DinoObjective<'_> {
    type Network = DinoModel;
    type Batch = [Vec<f32>; 2];

    fn fresh(&self, device: &Device) -> Result<DinoModel> {
        Ok(DinoModel::init(&self.task.architecture, self.seed, device)?)
    }

    fn stored(&self, device: &Device) -> Result<Option<DinoModel>> {
        stored(&self.task.output, device)
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &DinoModel) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> [Vec<f32>; 2] + Send> {
        let scenes =
            Scenes::new(self.seed, Split::Training, "dino scene").with_people(self.task.people);
        let groups = self.batch_size / GROUP;
        Box::new(move |step| scenes.two_views(step, groups, GROUP))
    }

    fn loss(&self, network: &DinoModel, views: [Vec<f32>; 2], _step: u64) -> Tensor<1> {
        let [first, second] =
            views.map(|view| normalised(network.features(pixels(view, self.device))));
        let size = first.dims()[0];
        let answers: Vec<i64> = (0..size as i64).collect();
        let logits = first.matmul(second.transpose()) * (1.0 / TEMPERATURE);
        let forth = cross_entropy(logits.clone(), answers.clone(), self.device);
        let back = cross_entropy(logits.transpose(), answers, self.device);
        (forth + back) * 0.5
    }

    fn evaluate(&self, network: &DinoModel) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "dino held-out scene")
            .with_people(self.task.people);
        // Several sets of 64 reduce the variance.
        let sets = 4;
        let (mut auc, mut top1) = (0.0, 0.0);
        for set in 0..sets {
            let [first, second] = scenes
                .two_views(set, HELD_OUT, 1)
                .map(|view| normalised(network.features(pixels(view, self.device))));
            let similarity = to_vec(first.matmul(second.transpose()));
            auc += same_instance_auc(&similarity, HELD_OUT);
            top1 += top1_rate(&similarity, HELD_OUT);
        }
        Ok(vec![
            ("auc".into(), auc / sets as f64),
            ("top1_of_64".into(), top1 / sets as f64),
        ])
    }

    /// Also whether the network tells things from others almost like them.
    fn compared(&self, network: &DinoModel) -> Result<Quality> {
        let mut quality = self.evaluate(network)?;
        let features = |images| network.features(images);
        quality.extend(triples(features, TRIPLES, self.device));
        Ok(quality)
    }

    /// Also what experiments would say of the photos.
    fn final_quality(&self, network: &DinoModel) -> Result<Quality> {
        let mut quality = self.compared(network)?;
        quality.extend(photos(|images| network.features(images), self.device));
        Ok(quality)
    }

    fn save(&self, network: &DinoModel, place: Place<'_>) -> Result<()> {
        network.save(&place(&self.task.output), Precision::Float16)?;
        Ok(())
    }
}

/// The probability that two views of one thing are more similar than views of two things.
fn same_instance_auc(similarity: &[f32], size: usize) -> f64 {
    let same: Vec<f32> = (0..size).map(|i| similarity[i * size + i]).collect();
    let mut wins = 0.0;
    for (index, other) in similarity.iter().enumerate() {
        if index / size == index % size {
            continue;
        }
        wins += same.iter().filter(|s| *s > other).count() as f64;
    }
    wins / (same.len() * (size * size - size)) as f64
}

/// The share of things whose second view is the nearest neighbour of their first view.
fn top1_rate(similarity: &[f32], size: usize) -> f64 {
    let right = |i: usize| {
        let row = &similarity[i * size..(i + 1) * size];
        row.iter().enumerate().all(|(j, s)| j == i || *s < row[i])
    };
    (0..size).filter(|i| right(*i)).count() as f64 / size as f64
}

#[cfg(test)]
mod tests {
    use super::{same_instance_auc, top1_rate};

    #[test]
    fn a_perfect_encoder_has_auc_and_top1_of_one() {
        let similarity = [1.0, 0.2, 0.1, 0.9];
        assert_eq!(same_instance_auc(&similarity, 2), 1.0);
        assert_eq!(top1_rate(&similarity, 2), 1.0);
    }

    #[test]
    fn a_mistaken_encoder_loses_exactly_the_wrong_pairs() {
        // Pairs of one thing: 0.5, 0.9; of two things: 0.7, 0.1. Three of four comparisons are right.
        let similarity = [0.5, 0.7, 0.1, 0.9];
        assert_eq!(same_instance_auc(&similarity, 2), 0.75);
        assert_eq!(top1_rate(&similarity, 2), 0.5);
    }
}
