//! The autoencoder of the mini world.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::Precision;
use core_model::params::{ParamNames, to_vec};
use core_model::rng::randn;
use core_model::vae::{AutoencoderKl, VaeConfig};
use serde::Deserialize;

use super::objective::{Objective, Place, Quality, stored};
use super::scenes::{PeopleShare, Scenes, Split, images, pixels};
use super::sharpness::sharpness;

/// Weights of absolute error, squared error (both per pixel value) and divergence from the standard
/// normal distribution (per latent value).
const L1: f64 = 0.5;
const L2: f64 = 2.0;
const KL: f64 = 2e-4;

/// Weights of the two losses of edges and textures, with which a decoder is sharpened: the absolute error of the
/// Laplacian, and that of its mean size over windows of 4x4 pixels.
const LAPLACIAN: f64 = 0.2;
const TEXTURE: f64 = 0.3;

/// Side of the windows, in pixels.
const WINDOW: usize = 4;

/// Held-out scenes for the learning curve.
const HELD_OUT: usize = 128;

/// `[vae]` of a pretraining file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeTask {
    /// The folder to write `config.json` and weights to.
    pub output: PathBuf,
    /// Train the decoder alone, also on edges and textures; latents stay what they are, and with them a U-Net that was
    /// trained on them. Absent: the whole autoencoder, without these losses.
    #[serde(default)]
    pub sharpen_decoder: bool,
    /// The share of scenes that show a person, 0 to 1. Absent: 0.
    #[serde(default)]
    pub people: PeopleShare,
    /// The sizes of the network, as in its `config.json`; `scaling_factor` is measured after training, unless only
    /// the decoder is trained.
    pub architecture: VaeConfig,
}

/// Reconstruction of scenes from latents that are close to normally distributed.
#[derive(Debug)]
pub(super) struct VaeObjective<'a> {
    /// The task.
    pub task: &'a VaeTask,
    /// Seed of the weights and the scenes.
    pub seed: u64,
    /// Scenes per step.
    pub batch_size: usize,
    /// The device.
    pub device: &'a Device,
}

impl Objective for VaeObjective<'_> {
    type Network = AutoencoderKl;
    type Batch = Vec<f32>;

    fn fresh(&self, device: &Device) -> Result<AutoencoderKl> {
        let architecture = &self.task.architecture;
        Ok(AutoencoderKl::init(architecture, self.seed, device)?)
    }

    fn stored(&self, device: &Device) -> Result<Option<AutoencoderKl>> {
        stored(&self.task.output, device)
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.task.output.clone())
    }

    fn names(&self, network: &AutoencoderKl) -> ParamNames {
        network.names().clone()
    }

    fn batches(&self) -> Box<dyn Fn(u64) -> Vec<f32> + Send> {
        let scenes =
            Scenes::new(self.seed, Split::Training, "vae scene").with_people(self.task.people);
        let batch_size = self.batch_size;
        Box::new(move |step| scenes.pixels(step, batch_size))
    }

    fn trains(&self, name: &str) -> bool {
        let of_decoder = name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
        of_decoder || !self.task.sharpen_decoder
    }

    fn loss(&self, network: &AutoencoderKl, batch: Vec<f32>, step: u64) -> Tensor<1> {
        let images = pixels(batch, self.device);
        let posterior = network.encode(images.clone());
        let shape = posterior.mean.dims();
        let noise = randn(shape, self.seed, "vae posterior", step, self.device);
        let decoded = network.decode(posterior.sample(noise));
        let difference = decoded.clone() - images.clone();
        let error = difference.clone().abs().mean() * L1 + difference.clone().square().mean() * L2;
        if self.task.sharpen_decoder {
            let texture = texture(decoded) - texture(images);
            return error
                + laplacian(difference).abs().mean() * LAPLACIAN
                + texture.abs().mean() * TEXTURE;
        }
        let divergence =
            (posterior.mean.square() + posterior.logvar.clone().exp() - posterior.logvar - 1.0)
                .mean()
                * 0.5;
        error + divergence * KL
    }

    /// `psnr_db`: the mean over scenes; `sharpness`: that of decoded scenes relative to the scenes.
    fn evaluate(&self, network: &AutoencoderKl) -> Result<Quality> {
        let scenes = Scenes::new(self.seed, Split::HeldOut, "vae held-out scene")
            .with_people(self.task.people);
        let (mut psnr, mut before, mut after) = (0.0, 0.0, 0.0);
        let batches = HELD_OUT / 32;
        for batch in 0..batches {
            let rendered = pixels(scenes.pixels(batch as u64, 32), self.device);
            let decoded = network
                .decode(network.encode(rendered.clone()).mean)
                .clamp(-1.0, 1.0);
            let errors = (decoded.clone() - rendered.clone()).square();
            // Values span [-1, 1], so the peak is 2.
            let of_image = |mse: f32| 10.0 * (4.0 / f64::from(mse)).log10();
            let errors = to_vec(errors.mean_dims(&[1, 2, 3]));
            psnr += errors.into_iter().map(of_image).sum::<f64>() / 32.0;
            before += sharpness(&images(rendered));
            after += sharpness(&images(decoded));
        }
        Ok(vec![
            ("psnr_db".into(), psnr / batches as f64),
            ("sharpness".into(), after / before),
        ])
    }

    fn save(&self, network: &AutoencoderKl, place: Place<'_>) -> Result<()> {
        if self.task.sharpen_decoder {
            network.save(&place(&self.task.output), Precision::Float16)?;
            return Ok(());
        }
        let scenes = Scenes::new(self.seed, Split::Training, "vae scaling scene");
        let latents = to_vec(
            network
                .encode(pixels(scenes.pixels(0, 128), self.device))
                .mean,
        );
        let square = latents.iter().map(|z| f64::from(*z).powi(2)).sum::<f64>();
        let mean = latents.iter().map(|z| f64::from(*z)).sum::<f64>() / latents.len() as f64;
        let deviation = (square / latents.len() as f64 - mean * mean).sqrt();
        // Four digits: the factor is a convention, not a weight.
        let factor = (1e4 / deviation).round() / 1e4;
        network
            .clone()
            .with_scaling_factor(factor)
            .save(&place(&self.task.output), Precision::Float16)?;
        Ok(())
    }
}

/// The Laplacian (4-neighbourhood) of inner pixels: [batch, 3, h, w] to [batch, 3, h - 2, w - 2].
fn laplacian(images: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = images.dims();
    let part = |y: usize, x: usize| {
        let rows = images.clone().narrow(2, y, height - 2);
        rows.narrow(3, x, width - 2)
    };
    part(0, 1) + part(2, 1) + part(1, 0) + part(1, 2) - part(1, 1) * 4.0
}

/// The mean size of the Laplacian over windows: [batch, 3, h, w] to [batch, 3, windows, windows]. What remains at the
/// right and at the bottom is left out.
fn texture(images: Tensor<4>) -> Tensor<4> {
    let size = laplacian(images).abs();
    let [batch, channels, height, width] = size.dims();
    let [rows, columns] = [height, width].map(|side| side / WINDOW);
    let size = size
        .narrow(2, 0, rows * WINDOW)
        .narrow(3, 0, columns * WINDOW);
    size.reshape([batch, channels, rows, WINDOW, columns, WINDOW])
        .mean_dims(&[3, 5])
        .reshape([batch, channels, rows, columns])
}
