//! What distinguishes the trainings of the mini world's networks from each other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use core_model::Network;
use core_model::network::{DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};
use core_model::params::ParamNames;

/// Named measures of held-out quality, in the order in which they are shown.
pub type Quality = Vec<(String, f64)>;

/// Where the network goes that is to be written to a folder.
pub(super) type Place<'a> = &'a dyn Fn(&Path) -> PathBuf;

/// What is trained, on which data, and how its quality is measured.
pub(super) trait Objective {
    /// The network, possibly several in one module.
    type Network: Module;
    /// The data of one step, made on another thread.
    type Batch: Send + 'static;

    /// A network with the sizes that the file names and new weights.
    ///
    /// # Errors
    /// Impossible sizes; an absent part of the network that is not trained.
    fn fresh(&self, device: &Device) -> Result<Self::Network>;

    /// The network in its folder, with the sizes that it has there; `None` without one, or when only a part
    /// of the network is kept.
    ///
    /// # Errors
    /// A folder that is half there, unreadable weights.
    fn stored(&self, device: &Device) -> Result<Option<Self::Network>>;

    /// The network before training: the stored one, unless it has other sizes than the file names.
    ///
    /// # Errors
    /// As [`fresh`](Self::fresh) and [`stored`](Self::stored).
    fn start(&self, device: &Device) -> Result<Self::Network> {
        let fresh = self.fresh(device)?;
        let Some(stored) = self.stored(device)? else {
            return Ok(fresh);
        };
        if has_same_sizes(&self.names(&stored), &self.names(&fresh)) {
            return Ok(stored);
        }
        tracing::info!(
            "{}: the network there has another architecture, so training begins with new weights; at its end \
             both are compared",
            self.folder().unwrap_or_default().display()
        );
        Ok(fresh)
    }

    /// Makes what all steps read, such as the latents of many scenes. Training calls it once the network is there,
    /// so that what does not fit is refused before minutes are spent; evaluation does not need it. By default there
    /// is nothing to make.
    ///
    /// # Errors
    /// Data that cannot be made.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// The folder of the finished network; `None` when only a part of it is kept.
    fn folder(&self) -> Option<PathBuf>;

    /// Every folder that the finished network or a part of it is written to.
    fn outputs(&self) -> Vec<PathBuf> {
        self.folder().into_iter().collect()
    }

    /// The name of every parameter.
    fn names(&self, network: &Self::Network) -> ParamNames;

    /// Whether the parameter of this name is trained; by default all are.
    fn trains(&self, _name: &str) -> bool {
        true
    }

    /// The share of the schedule's learning rate with which the parameter of this name learns; by default
    /// all of it.
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }

    /// The function that makes the batch of a step.
    fn batches(&self) -> Box<dyn Fn(u64) -> Self::Batch + Send>;

    /// The network as a step finds it; an objective may set parameters anew where a phase of the
    /// training begins.
    fn before_step(&self, network: Self::Network, _step: u64) -> Self::Network {
        network
    }

    /// The loss of one step, to be minimised.
    fn loss(&self, network: &Self::Network, batch: Self::Batch, step: u64) -> Tensor<1>;

    /// Quality on held-out scenes.
    ///
    /// # Errors
    /// A file that evaluation needs is absent or damaged.
    fn evaluate(&self, network: &Self::Network) -> Result<Quality>;

    /// The measures by which a network is compared with the one that it would replace. By default those of the
    /// learning curve.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    fn compared(&self, network: &Self::Network) -> Result<Quality> {
        self.evaluate(network)
    }

    /// One number for what [`compared`](Self::compared) measures, of which more is better. By default the mean of
    /// all measures.
    fn worth(&self, quality: &Quality) -> f64 {
        quality.iter().map(|(_, value)| value).sum::<f64>() / quality.len().max(1) as f64
    }

    /// The quality of the finished network. By default that of the learning curve; an objective may
    /// add measures that are too slow for every point of the curve.
    ///
    /// # Errors
    /// A file that evaluation needs is absent or damaged.
    fn final_quality(&self, network: &Self::Network) -> Result<Quality> {
        self.evaluate(network)
    }

    /// Writes the network as folders that diffusers or transformers open, each of the
    /// [`outputs`](Self::outputs) to its place.
    ///
    /// # Errors
    /// An unwritable folder.
    fn save(&self, network: &Self::Network, place: Place<'_>) -> Result<()>;
}

/// Whether two networks have the same parameters.
fn has_same_sizes(one: &ParamNames, other: &ParamNames) -> bool {
    let sizes = |names: &ParamNames| {
        let mut sizes: Vec<(String, Vec<usize>)> = names
            .iter()
            .map(|(name, shape)| (name.to_string(), shape.to_vec()))
            .collect();
        sizes.sort();
        sizes
    };
    sizes(one) == sizes(other)
}

/// The network in a folder; `None` when the folder holds neither `config.json` nor weights.
///
/// # Errors
/// A folder with one of them alone, or with others than `config.json` describes.
pub(super) fn stored<N: Network>(folder: &Path, device: &Device) -> Result<Option<N>> {
    if is_empty(folder)? {
        return Ok(None);
    }
    let network = N::load(folder, device).with_context(|| half_there(folder))?;
    Ok(Some(network))
}

/// Whether a folder holds nothing of a network; a tokenizer may lie there.
///
/// # Errors
/// Weights without `config.json`.
pub(super) fn is_empty(folder: &Path) -> Result<bool> {
    if folder.join("config.json").exists() {
        return Ok(false);
    }
    for weights in [DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS] {
        if folder.join(weights).exists() {
            bail!(
                "{}: `{weights}` has no config.json beside it",
                half_there(folder)
            );
        }
    }
    Ok(true)
}

fn half_there(folder: &Path) -> String {
    format!(
        "{} is half there; restore what is missing, or move the folder away to train its network anew",
        folder.display()
    )
}
