//! The DINO-like instance encoder of the mini world: two views of one thing become similar; other
//! things become dissimilar, above all those that differ from it in one property.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::params::{ParamNames, to_vec};
use core_model::rng::rng;
use serde::Deserialize;

use super::contrast::normalised;
use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{PeopleShare, Scenes, Split, pixels};
use super::siblings::{self, Siblings};
use super::taught::{Taught, Traits};
use super::triples::{photos, triples};
use super::verification::Verification;
use crate::world::{Category, Color, Identity, Pattern, Thing};

/// Softmax temperature, as in MoCo v3.
const TEMPERATURE: f64 = 0.1;

/// Counterfactuals of each thing of a batch.
const COUNTERFACTUALS: usize = 3;

/// Weight of the questions about the thing relative to the contrastive loss.
const QUESTION_WEIGHT: f64 = 8.0;

/// Numbers that describe a thing: seven proportions, red, green and blue of two colours.
const NUMBERS: usize = 13;

/// Held-out things per set; the quality `top1_of_64` is defined by this number.
const HELD_OUT: usize = 64;

/// Held-out things that are compared with their counterfactuals, for the learning curve and for the
/// finished network.
const TRIPLES: [u64; 2] = [96, 512];

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
    type Network = Taught;
    type Batch = Siblings;

    fn fresh(&self, device: &Device) -> Result<Taught> {
        let group = 1 + COUNTERFACTUALS;
        ensure!(
            self.batch_size.is_multiple_of(group),
            "schedule.batch_size is {}; expected a multiple of {group}: a thing and {COUNTERFACTUALS} counterfactuals",
            self.batch_size
        );
        let encoder = DinoModel::init(&self.task.architecture, self.seed, device)?;
        self.with_heads(encoder, device)
    }

    fn stored(&self, device: &Device) -> Result<Option<Taught>> {
        let encoder = stored(&self.task.output, device)?;
        encoder
            .map(|encoder| self.with_heads(encoder, device))
            .transpose()
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &Taught) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Siblings + Send> {
        let scenes =
            Scenes::new(self.seed, Split::Training, "dino scene").with_people(self.task.people);
        let groups = (self.batch_size / (1 + COUNTERFACTUALS)) as u64;
        Box::new(move |step| Siblings::new(&scenes, step, groups, COUNTERFACTUALS))
    }

    fn loss(&self, network: &Taught, batch: Siblings, _step: u64) -> Tensor<1> {
        let features = network.encoder.features(pixels(batch.pixels, self.device));
        let contrast = siblings::loss(features.clone(), TEMPERATURE, self.device);
        let once = batch.things.iter().map(traits);
        let traits: Vec<Traits> = once.clone().chain(once).collect();
        let questions = network.loss(features, &traits, self.device);
        contrast + questions * QUESTION_WEIGHT
    }

    fn evaluate(&self, network: &Taught) -> Result<Quality> {
        Ok(self.quality(&network.encoder, TRIPLES[0]))
    }

    /// With more things than the learning curve.
    fn compared(&self, network: &Taught) -> Result<Quality> {
        Ok(self.quality(&network.encoder, TRIPLES[1]))
    }

    /// Also what experiments would say of the photos.
    fn final_quality(&self, network: &Taught) -> Result<Quality> {
        let mut quality = self.compared(network)?;
        quality.extend(photos(
            |images| network.encoder.features(images),
            self.device,
        ));
        Ok(quality)
    }

    fn save(&self, network: &Taught, place: Place<'_>) -> Result<()> {
        let folder = place(&self.task.output);
        network.encoder.save(&folder, Precision::Float16)?;
        Ok(())
    }
}

impl DinoObjective<'_> {
    fn with_heads(&self, encoder: DinoModel, device: &Device) -> Result<Taught> {
        let some = Thing::sample(&mut rng(self.seed, "dino traits", 0));
        let channels = encoder.config().hidden_size;
        Taught::new(encoder, channels, &traits(&some.into()), self.seed, device)
    }

    fn quality(&self, encoder: &DinoModel, things: u64) -> Quality {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "dino held-out scene")
            .with_people(self.task.people);
        // Several sets of 64 reduce the variance.
        let sets = 4;
        let (mut auc, mut top1) = (0.0, 0.0);
        for set in 0..sets {
            let [first, second] = scenes
                .two_views(set, HELD_OUT, 1)
                .map(|view| normalised(encoder.features(pixels(view, self.device))));
            let similarity = to_vec(first.matmul(second.transpose()));
            auc += same_instance_auc(&similarity, HELD_OUT);
            top1 += top1_rate(&similarity, HELD_OUT);
        }
        let mut quality = vec![
            ("auc".into(), auc / sets as f64),
            ("top1_of_64".into(), top1 / sets as f64),
        ];
        quality.extend(triples(
            |images| encoder.features(images),
            things,
            self.device,
        ));
        quality
    }
}

/// What there is to know about a thing; of a person only that it is one.
fn traits(identity: &Identity) -> Traits {
    let thing = match identity {
        Identity::Thing(thing) => Some(thing),
        Identity::Person(_) => None,
    };
    let choice = |of: fn(&Thing) -> usize, count: usize| (thing.map(of), count);
    let category = (Some(identity.category().index()), Category::ALL.len());
    Traits {
        choices: vec![
            category,
            choice(|thing| thing.color.index(), Color::ALL.len()),
            choice(|thing| thing.pattern.index(), Pattern::ALL.len()),
            choice(|thing| thing.variant.into(), 3),
            choice(|thing| thing.eyes.into(), 3),
        ],
        numbers: match thing {
            Some(thing) => numbers(thing).map(Some).collect(),
            None => vec![None; NUMBERS],
        },
    }
}

/// Proportions and hidden colours, scaled to about unit variance.
fn numbers(thing: &Thing) -> impl Iterator<Item = f32> {
    let proportions = thing.proportions.map(|factor| (factor - 1.0) / 0.1);
    let colors = [thing.second, thing.third].concat().into_iter();
    let colors = colors.map(|value| (f32::from(value) - 128.0) / 80.0);
    proportions.into_iter().chain(colors)
}

/// The probability that two views of one thing are more similar than views of two things.
fn same_instance_auc(similarity: &[f32], size: usize) -> f64 {
    let pairs = similarity.iter().copied().enumerate();
    let (same, other): (Vec<_>, Vec<_>) = pairs.partition(|(at, _)| at / size == at % size);
    let [same, other] = [same, other].map(|pairs| pairs.into_iter().map(|(_, s)| s).collect());
    Verification::new(same, other).auc
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
