//! Parameters that a network's layers get beside those of its checkpoint.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// The factors of a change of low rank and the parameter of a rotation, as PEFT calls them.
pub(crate) const DOWN: &str = "lora_A";
pub(crate) const UP: &str = "lora_B";
pub(crate) const ROTATION: &str = "oft_R";

/// What a layer gets beside its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Added {
    /// A change of low rank (LoRA), for linear layers and convolutions.
    LowRank {
        /// The rank.
        rank: usize,
        /// The factor of the change, alpha / rank.
        scale: f64,
    },
    /// A rotation of the inputs (OFT), for linear layers.
    Rotation {
        /// The number of blocks that are rotated apart from each other.
        blocks: usize,
    },
}

impl Added {
    /// The parameters that a layer gets, below its own name.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::LowRank { .. } => &[DOWN, UP],
            Self::Rotation { .. } => &[ROTATION],
        }
    }
}

/// Layers of a network and what they get.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// What each gets.
    pub added: Added,
    /// The layers by their names, the keys of their weights without `.weight`.
    pub layers: BTreeSet<String>,
    /// What is random is a function of this and the parameter's name.
    pub seed: u64,
}

impl Extension {
    /// Fails unless every layer was given its parameters.
    pub(super) fn check(&self, used: impl Fn(&str) -> bool) -> Result<()> {
        let first = self.added.parameters()[0];
        let got = |layer: &&String| {
            used(&format!("{layer}.{first}")) || used(&format!("{layer}.{first}.weight"))
        };
        match self.layers.iter().find(|layer| !got(layer)) {
            None => Ok(()),
            Some(layer) => Err(Error::Invalid(format!(
                "`{layer}` is no layer that can get {}",
                match self.added {
                    Added::LowRank { .. } => "a LoRA: linear layers and convolutions can",
                    Added::Rotation { .. } => "a rotation: linear layers can",
                }
            ))),
        }
    }

    /// The part that concerns the network whose tensors' names begin with `prefix` and a dot.
    pub(crate) fn below(&self, prefix: &str) -> Self {
        let layers = self.layers.iter();
        let below = layers.filter_map(|layer| layer.strip_prefix(prefix)?.strip_prefix('.'));
        Self {
            layers: below.map(String::from).collect(),
            ..self.clone()
        }
    }

    /// The part that does not concern that network.
    pub(crate) fn without(&self, prefix: &str) -> Self {
        let others = self.layers.iter();
        let others = others.filter(|layer| !layer.starts_with(&format!("{prefix}.")));
        Self {
            layers: others.cloned().collect(),
            ..self.clone()
        }
    }
}

/// The extension that adds the parameter with this key.
///
/// # Errors
/// [`Error::Invalid`] for a parameter that the network lacks and nothing adds.
pub(super) fn of<'a>(extensions: &'a [Extension], key: &str) -> Result<&'a Extension> {
    let found = extensions.iter().find(|extension| {
        let parameters = extension.added.parameters().iter();
        parameters.into_iter().any(|parameter| {
            let key = key.strip_suffix(".weight").unwrap_or(key);
            let layer = key.strip_suffix(parameter);
            let layer = layer.and_then(|layer| layer.strip_suffix('.'));
            layer.is_some_and(|layer| extension.layers.contains(layer))
        })
    });
    let reason = || format!("the network has no tensor `{key}`, and no extension adds it");
    found.ok_or_else(|| Error::Invalid(reason()))
}

/// Whether a tensor's name is that of a parameter that no checkpoint of a whole network holds.
pub fn is_added(name: &str) -> bool {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let last = name.rsplit('.').next();
    last.is_some_and(|last| [DOWN, UP, ROTATION].contains(&last))
}
