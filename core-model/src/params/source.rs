//! Where a network's parameters come from.

use std::collections::HashMap;

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) enum Source {
    Checkpoint(Checkpoint),
    /// A checkpoint of which only the header is looked at.
    Header(Checkpoint),
    Random(u64),
    /// Another network's tensors by their keys, flattened.
    Network(HashMap<String, Tensor<1>>),
    /// No values: only keys and shapes are wanted.
    Shapes,
}

impl Source {
    pub(super) fn contains(&self, key: &str) -> bool {
        match self {
            Self::Checkpoint(file) | Self::Header(file) => file.info(key).is_some(),
            Self::Network(tensors) => tensors.contains_key(key),
            Self::Random(_) | Self::Shapes => false,
        }
    }

    /// Fails when the source holds a key that nothing asked for.
    ///
    /// # Errors
    /// [`Error::UnexpectedTensor`] or [`Error::Invalid`], naming the first.
    pub(super) fn check_all_used(&self, used: impl Fn(&str) -> bool) -> Result<()> {
        let checkpoint = match self {
            Self::Checkpoint(checkpoint) | Self::Header(checkpoint) => checkpoint,
            Self::Network(tensors) => {
                return match tensors.keys().filter(|key| !used(key)).min() {
                    Some(key) => Err(Error::Invalid(format!(
                        "`{key}` of the network has no place in the one that is built from it"
                    ))),
                    None => Ok(()),
                };
            }
            Self::Random(_) | Self::Shapes => return Ok(()),
        };
        let mut left = checkpoint.keys().filter(|key| !used(key));
        let Some(key) = left.next() else {
            return Ok(());
        };
        let count = left.count();
        Err(Error::UnexpectedTensor {
            path: checkpoint.path().to_path_buf(),
            key: key.to_string(),
            found: checkpoint
                .info(key)
                .map(|i| i.shape.clone())
                .unwrap_or_default(),
            more: if count == 0 {
                String::new()
            } else {
                format!(" (and {count} more)")
            },
        })
    }
}

/// Fails unless a checkpoint holds a tensor of this shape.
pub(super) fn check(checkpoint: &Checkpoint, key: &str, shape: &[usize]) -> Result<()> {
    let path = || checkpoint.path().to_path_buf();
    let Some(info) = checkpoint.info(key) else {
        return Err(Error::MissingTensor {
            path: path(),
            key: key.to_string(),
            expected: shape.to_vec(),
        });
    };
    if !same_shape(&info.shape, shape) {
        return Err(Error::Shape {
            path: path(),
            key: key.to_string(),
            found: info.shape.clone(),
            expected: shape.to_vec(),
        });
    }
    Ok(())
}

/// The finite values of a tensor of this shape.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Format`].
pub(crate) fn read(checkpoint: &Checkpoint, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
    check(checkpoint, key, shape)?;
    let (values, _) = checkpoint.read_f32(key)?.unwrap_or_default();
    // Without an early end, so that vectors are used.
    let is_finite = |part: &[f32]| part.iter().fold(true, |all, x| all & x.is_finite());
    if !values.par_chunks(1 << 20).all(is_finite) {
        let at = values.iter().position(|value| !value.is_finite());
        let at = at.unwrap_or_default();
        let reason = format!(
            "tensor `{key}` holds {} at place {at}; the file is damaged, fetch or train it again",
            values[at]
        );
        return Err(Error::format(checkpoint.path(), reason));
    }
    Ok(values)
}

/// A linear layer [o, i] and a 1x1 convolution [o, i, 1, 1] hold the same numbers, and old
/// checkpoints use either; a number on its own has no dimensions there and one here.
fn same_shape(found: &[usize], expected: &[usize]) -> bool {
    let core = |shape: &[usize]| match shape {
        [o, i, 1, 1] => vec![*o, *i],
        [] => vec![1],
        other => other.to_vec(),
    };
    core(found) == core(expected)
}
