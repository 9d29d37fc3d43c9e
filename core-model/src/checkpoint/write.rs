//! Writing tensors as safetensors files that torch, diffusers and transformers read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use safetensors::{Dtype, View};

use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::params::ParamNames;

/// The number format of a written checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32.
    Full,
    /// float16, half the size: how the shipped mini checkpoints are stored.
    Half,
}

/// One named tensor on its way into a file.
#[derive(Debug, Clone)]
pub struct TensorToWrite {
    /// The key.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
}

/// The one parameter of the family that is a number without dimensions.
const SCALAR: &str = "logit_scale";

struct Encoded {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Encoded {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn encode(tensor: TensorToWrite, precision: Precision) -> (String, Encoded) {
    let (dtype, bytes) = match precision {
        Precision::Full => (
            Dtype::F32,
            tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        Precision::Half => (
            Dtype::F16,
            tensor
                .values
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
        ),
    };
    (
        tensor.name,
        Encoded {
            dtype,
            shape: tensor.shape,
            bytes,
        },
    )
}

/// Writes tensors and `metadata` (`format = pt` is added, which torch loaders insist on).
///
/// # Errors
/// [`Error::Io`] naming the file; an old file at `path` is then untouched.
pub fn save_tensors(
    path: &Path,
    tensors: Vec<TensorToWrite>,
    precision: Precision,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let mut text: HashMap<String, String> = metadata
        .iter()
        .map(|(k, v)| ((*k).to_string(), (*v).to_string()))
        .collect();
    text.insert("format".into(), "pt".into());
    let encoded = tensors.into_iter().map(|tensor| encode(tensor, precision));
    let bytes = safetensors::serialize(encoded, Some(text)).map_err(|e| Error::format(path, e))?;
    write_atomically(path, &bytes)
}

/// Writes every parameter of a network under the key it was read from.
///
/// # Errors
/// [`Error::Io`] naming the file; an old file at `path` is then untouched.
pub fn save_module<M: Module>(
    path: &Path,
    module: &M,
    names: &ParamNames,
    precision: Precision,
) -> Result<()> {
    struct Collector<'a> {
        names: &'a ParamNames,
        tensors: Vec<TensorToWrite>,
    }
    impl ModuleVisitor for Collector<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let name = self.names.name(param.id);
            self.tensors.push(TensorToWrite {
                name: name.to_string(),
                shape: if name == SCALAR {
                    Vec::new()
                } else {
                    tensor.dims().to_vec()
                },
                values: crate::params::to_vec(tensor),
            });
        }
    }
    let mut collector = Collector {
        names,
        tensors: Vec::new(),
    };
    module.visit(&mut collector);
    save_tensors(path, collector.tensors, precision, &[])
}
