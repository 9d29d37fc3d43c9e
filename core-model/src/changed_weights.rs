//! Weights of a network of which training has changed some: a file of those, which belongs to one base.
//!
//! `changed_weights.safetensors` holds the full values of every tensor that training could change, in float32,
//! under the keys of the network's checkpoint. All other tensors are the base's. Its metadata name the base by the
//! digest of its weights, `base_sha256` ([`ModelFolder::weights_digest`](crate::folder::ModelFolder::weights_digest)):
//! with another base the network would be another one, so the file is refused there.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};

use crate::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::params::{is_added, read};
use crate::precision::Precision;

/// The file in the folder of a network.
pub const CHANGED_WEIGHTS: &str = "changed_weights.safetensors";

/// The entry of the metadata that names the base.
const BASE: &str = "base_sha256";

/// Writes the tensors of a network for whose keys `changed` holds; `base` is the digest of the weights that it was
/// trained from.
///
/// # Errors
/// [`Error::Io`] naming the file; an old file at `path` is then untouched.
pub fn save<N: Network>(
    network: &N,
    changed: impl Fn(&str) -> bool,
    base: &str,
    path: &Path,
) -> Result<()> {
    let mut tensors = Vec::new();
    network.names().read(network, |param| {
        if changed(param.name) && !is_added(param.name) {
            let mut tensor = TensorToWrite::from(param);
            tensor.name = N::written_key(&tensor.name);
            tensors.push(tensor);
        }
    });
    save_tensors(path, tensors, Precision::Float32, &[(BASE, base)])
}

/// A base network with the weights of a file; `base` is the digest of its own weights.
///
/// # Errors
/// [`Error::Format`] for a file of another base, a damaged one, or a tensor that the network does not have;
/// [`Error::Shape`].
pub fn load<N: Network>(network: N, base: &str, path: &Path) -> Result<N> {
    let file = Checkpoint::open(path, N::canonical_key)?;
    check_base(&file, base)?;
    let names = network.names().clone();
    let shapes: BTreeMap<&str, &[usize]> = names.iter().collect();
    let mut values = BTreeMap::new();
    for key in file.keys() {
        let shape = shapes.get(key).ok_or_else(|| {
            let reason = format!("holds `{key}`, which the network does not have; it is damaged");
            Error::format(path, reason)
        })?;
        values.insert(key.to_string(), read(&file, key, shape)?);
    }
    let is_there = |key: &str, _| file.info(key).is_some();
    Ok(
        names.map(network, is_there, |key, old| match values.remove(key) {
            Some(values) => {
                let length = values.len();
                let place = (&old.device(), old.dtype());
                Tensor::from_data(TensorData::new(values, [length]), place)
            }
            None => old,
        }),
    )
}

fn check_base(file: &Checkpoint, base: &str) -> Result<()> {
    let refuse = |reason: String| Err(Error::format(file.path(), reason));
    match file.metadata().get(BASE) {
        Some(expected) if expected == base => Ok(()),
        Some(expected) => refuse(format!(
            "holds changes of the weights with SHA-256 {expected}, and the base model's have {base}; open it with \
             the model that it was trained from"
        )),
        None => refuse(format!(
            "does not name the weights that it belongs to (`{BASE}` in its metadata); it is damaged, or of another \
             program"
        )),
    }
}
