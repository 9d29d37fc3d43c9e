//! The identity encoder of people: two images of one person are near, whatever the person wears and
//! wherever the face is turned.
//!
//! First every person's two images are told from those of the others, among them people with the
//! same skin and hair. Then each of a fixed set of people gets a centre, to which its images have to
//! point more closely by an angle than to every other centre; with centres from the start all
//! features fall to one point at this size.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use core_losses::angular_margin::{AngularMargin, MarginGradient};
use core_model::Network;
use core_model::Precision;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::face2diffusion::MsidConfig;
use core_model::params::{Init, ParamBuilder, ParamNames, set_trainable, to_vec};
use core_model::vae::AutoencoderKl;
use serde::Deserialize;

use super::contrast::normalised;
use super::objective::{Objective, Place, Quality, stored};
use super::portraits::{self, GROUP, Portraits};
use super::scenes::{Scenes, Split, pixels};
use super::siblings;
use super::taught::Taught;
use super::verification::Verification;

/// Softmax temperature of the contrast.
const TEMPERATURE: f64 = 0.1;

/// Share of the steps before there are centres.
const WITHOUT_CENTRES: f64 = 0.4;

/// Share of the steps in which the margin then grows.
const GROWING: f64 = 0.2;

/// Scale and final margin of the angular margin.
const SCALE: f64 = 16.0;
const MARGIN: f64 = 0.3;

/// Weight of contrast and questions beside the angular margin.
const BESIDE_MARGIN: f64 = 0.3;

/// Images per person from which its centre starts.
const PER_CENTRE: u64 = 4;

/// Held-out people, for the learning curve and for the finished network.
const HELD_OUT: [u64; 2] = [96, 400];

/// `[identity]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityTask {
    /// The folder to write `config.json` and weights to.
    pub output: PathBuf,
    /// The folder of an autoencoder; the finished network is also measured on images after it.
    pub vae: PathBuf,
    /// Number of people with a centre, a multiple of four.
    pub people: u64,
    /// The layers, from 0 and in ascending order, after which the class token is read: their class tokens
    /// side by side are the identity (Face2Diffusion's multi-scale encoder). Absent: the class token after
    /// the final norm.
    pub layers: Option<Vec<usize>>,
    /// How the margin enters the gradient.
    #[serde(default)]
    pub gradient: MarginGradient,
    /// The sizes of the network, as in its `config.json`.
    pub architecture: DinoConfig,
}

impl IdentityTask {
    /// The identities [images, channels] of images.
    fn features(&self, encoder: &DinoModel, images: Tensor<4>) -> Tensor<2> {
        match &self.layers {
            Some(layers) => encoder.class_tokens(images, layers),
            None => encoder.features(images),
        }
    }

    /// Channels of an identity.
    fn width(&self, encoder: &DinoModel) -> usize {
        let tokens = self.layers.as_ref().map_or(1, Vec::len);
        tokens * encoder.config().hidden_size
    }
}

/// The encoder, its heads, and the centres of people.
#[derive(Module, Debug)]
pub(super) struct WithCentres {
    taught: Taught,
    /// [people, channels].
    centres: Param<Tensor<2>>,
    #[module(skip)]
    names: ParamNames,
}

/// Contrast and questions, then also the angular margin.
#[derive(Debug)]
pub(super) struct IdentityObjective<'a> {
    /// The task.
    pub task: &'a IdentityTask,
    /// Seed of weights and people.
    pub seed: u64,
    /// People per step, with two images each.
    pub batch_size: usize,
    /// Length of the training.
    pub steps: u64,
    /// The device.
    pub device: &'a Device,
}

impl IdentityObjective<'_> {
    fn scenes(&self) -> Scenes {
        Scenes::new(self.seed, Split::Training, "identity scene")
    }

    fn with_centres(&self, encoder: DinoModel, device: &Device) -> Result<WithCentres> {
        let channels = self.task.width(&encoder);
        let traits = portraits::traits(&portraits::held_out(&self.scenes(), 0));
        let taught = Taught::new(encoder, channels, &traits, self.seed, device)?;
        let pb = ParamBuilder::random(self.seed, device).pp("centres");
        let shape = [self.task.people as usize, channels];
        let centres = pb.get("weight", shape, Init::Normal(0.02))?;
        let names = taught.names().with(&pb.finish()?);
        Ok(WithCentres {
            taught,
            centres,
            names,
        })
    }

    /// The last step without centres.
    fn first_phase(&self) -> u64 {
        (WITHOUT_CENTRES * self.steps as f64) as u64
    }

    /// The margin of a step; `None` before there are centres.
    fn margin(&self, step: u64) -> Option<AngularMargin> {
        let since = step.checked_sub(self.first_phase() + 1)?;
        let share = since as f64 / (GROWING * self.steps as f64).max(1.0);
        Some(AngularMargin {
            scale: SCALE,
            margin: MARGIN * share.min(1.0),
            gradient: self.task.gradient,
        })
    }

    /// The mean feature of some images of each person with a centre.
    fn mean_features(&self, encoder: &DinoModel) -> Tensor<2> {
        let encoder = set_trainable(encoder.clone(), encoder.names(), |_| false);
        let groups = self.task.people / GROUP;
        let means = (0..groups).map(|group| {
            let images = portraits::images_of_group(&self.scenes(), group, PER_CENTRE);
            let features = normalised(self.task.features(&encoder, pixels(images, self.device)));
            let channels = features.dims()[1];
            let by_person = features.reshape([GROUP as usize, PER_CENTRE as usize, channels]);
            by_person.mean_dim(1).reshape([GROUP as usize, channels])
        });
        Tensor::cat(means.collect(), 0)
    }

    /// Figures of four kinds of pairs; the names begin with `start`.
    fn verification(
        &self,
        start: &str,
        features: impl Fn(Tensor<4>) -> Tensor<2>,
        people: u64,
    ) -> Quality {
        let held_out = Scenes::new(0, Split::HeldOut, "identity");
        let faces: Vec<_> = (0..people)
            .map(|number| portraits::held_out(&held_out, number))
            .collect();
        let of_view = |view: &portraits::Shown| {
            let batches = (0..people).collect::<Vec<_>>();
            let batches = batches.chunks(64).map(|numbers| {
                let images = numbers.iter().flat_map(|number| {
                    portraits::shown(&held_out, *number, &faces[*number as usize], view)
                });
                normalised(features(pixels(images.collect(), self.device)))
            });
            Tensor::cat(batches.collect(), 0)
        };
        let front = of_view(&portraits::FRONT);
        let mut quality = Quality::new();
        for view in portraits::AGAINST {
            let cosines = to_vec(front.clone().matmul(of_view(view).transpose()));
            let count = people as usize;
            let (mut same, mut other, mut hard) = (Vec::new(), Vec::new(), Vec::new());
            for (place, cosine) in cosines.into_iter().enumerate() {
                let (i, j) = (place / count, place % count);
                if i == j {
                    same.push(cosine);
                    continue;
                }
                other.push(cosine);
                if portraits::are_alike(&faces[i], &faces[j]) {
                    hard.push(cosine);
                }
            }
            let all = Verification::new(same.clone(), other);
            let hard = Verification::new(same, hard);
            for (figure, value) in [
                ("accuracy", all.accuracy),
                ("auc", all.auc),
                ("hard_auc", hard.auc),
            ] {
                quality.push((format!("{start}{}_{figure}", view.name), value));
            }
        }
        quality
    }
}

impl Objective for IdentityObjective<'_> {
    type Network = WithCentres;
    type Batch = Portraits;

    fn fresh(&self, device: &Device) -> Result<WithCentres> {
        for (key, count) in [
            ("identity.people", self.task.people),
            ("schedule.batch_size", self.batch_size as u64),
        ] {
            ensure!(
                count > 0 && count.is_multiple_of(GROUP),
                "{key} is {count}; expected a multiple of {GROUP}, because people come in groups of {GROUP} who \
                 share skin and hair"
            );
        }
        if let Some(layers) = &self.task.layers {
            let sizes = MsidConfig::of_vit(&self.task.architecture, layers);
            sizes.check_layers().context("identity")?;
        }
        let encoder = DinoModel::init(&self.task.architecture, self.seed, device)?;
        self.with_centres(encoder, device)
    }

    fn stored(&self, device: &Device) -> Result<Option<WithCentres>> {
        let encoder = stored(&self.task.output, device)?;
        encoder
            .map(|encoder| self.with_centres(encoder, device))
            .transpose()
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &WithCentres) -> ParamNames {
        network.names.clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Portraits + Send> {
        let (scenes, fixed) = (self.scenes(), self.task.people / GROUP);
        let groups = self.batch_size as u64 / GROUP;
        let first_phase = self.first_phase();
        Box::new(move |step| match step > first_phase {
            true => Portraits::of_fixed(&scenes, step, groups, fixed),
            false => Portraits::of_others(&scenes, step, groups, fixed),
        })
    }

    fn before_step(&self, network: WithCentres, step: u64) -> WithCentres {
        if step != self.first_phase() + 1 {
            return network;
        }
        tracing::info!("step {step}: every person's centre starts at the mean of its features");
        let means = self.mean_features(&network.taught.encoder);
        let length = means.shape().num_elements();
        let means: Tensor<1> = means.reshape([length]);
        let names = network.names.clone();
        let is_centre = |name: &str, _| name == "centres.weight";
        names.map(network, is_centre, |_, _| means.clone())
    }

    fn loss(&self, network: &WithCentres, batch: Portraits, step: u64) -> Tensor<1> {
        let images = pixels(batch.pixels, self.device);
        let features = self.task.features(&network.taught.encoder, images);
        let contrast = siblings::loss(features.clone(), TEMPERATURE, self.device);
        let questions = network
            .taught
            .loss(features.clone(), &batch.traits, self.device);
        let beside = contrast + questions;
        let Some(margin) = self.margin(step) else {
            return beside;
        };
        let centres = normalised(network.centres.val());
        let cosines = normalised(features).matmul(centres.transpose());
        let labels = TensorData::new(batch.numbers.clone(), [batch.numbers.len()]);
        let labels = Tensor::<1, Int>::from_data(labels, self.device);
        margin.loss(cosines, labels) + beside * BESIDE_MARGIN
    }

    fn evaluate(&self, network: &WithCentres) -> Result<Quality> {
        let encoder = &network.taught.encoder;
        let features = |images| self.task.features(encoder, images);
        Ok(self.verification("", features, HELD_OUT[0]))
    }

    /// Also the figures of images after the autoencoder: no method that generates with it can have
    /// better ones.
    fn final_quality(&self, network: &WithCentres) -> Result<Quality> {
        let encoder = &network.taught.encoder;
        let features = |images| self.task.features(encoder, images);
        let mut quality = self.verification("", features, HELD_OUT[1]);
        let vae = AutoencoderKl::load(&self.task.vae, self.device)?;
        let after_vae = |images| {
            let decoded = vae.decode(vae.encode(images).mean).clamp(-1.0, 1.0);
            self.task.features(encoder, decoded)
        };
        quality.extend(self.verification("after_vae_", after_vae, HELD_OUT[1]));
        Ok(quality)
    }

    fn save(&self, network: &WithCentres, place: Place<'_>) -> Result<()> {
        let folder = place(&self.task.output);
        network.taught.encoder.save(&folder, Precision::Float16)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_grows_after_the_first_phase() {
        let task = IdentityTask {
            output: PathBuf::new(),
            vae: PathBuf::new(),
            people: 8,
            layers: None,
            gradient: MarginGradient::True,
            architecture: DinoConfig::default(),
        };
        let objective = IdentityObjective {
            task: &task,
            seed: 0,
            batch_size: 8,
            steps: 100,
            device: &Device::flex(),
        };
        let margin = |step| objective.margin(step).map(|margin| margin.margin);
        assert_eq!(margin(1), None);
        assert_eq!(margin(40), None);
        assert_eq!(margin(41), Some(0.0));
        assert_eq!(margin(51), Some(0.15));
        assert_eq!(margin(61), Some(0.3));
        assert_eq!(margin(100), Some(0.3));
    }
}
