//! Files that `torch.save` wrote (`.pt`, `.bin`, `.ckpt`), read as data.
//!
//! Such a file is a zip archive with one pickle, a little program that builds objects, and the
//! numbers of each tensor; before version 1.6 it was several pickles in a row with the numbers
//! behind them. Python would execute the pickle. Here it is read by a machine that knows tensors,
//! dictionaries, lists, text and numbers; any other object, such as the callbacks of a training, is
//! skipped with all that is in it, and nothing is executed. Sizes are checked against the file
//! before memory is taken.

mod archive;
mod legacy;
mod machine;
mod objects;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::error::{Error, Result};
use values::{Id, Numbers, Storage, StoredTensor, Value, Values};

/// The longest pickle that is read, in bytes; the numbers are not in it.
const MOST_BYTES: u64 = 64 << 20;

/// Dictionaries and lists in each other.
const DEEPEST: usize = 8;

/// Entries of dictionaries and lists that are looked at.
const MOST_VISITS: usize = 1 << 16;

/// Where a tensor is in its file.
#[derive(Debug)]
pub(crate) struct TorchTensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// In numbers.
    pub(crate) strides: Vec<usize>,
    /// The bytes of the file from its first number to its last.
    pub(crate) bytes: (usize, usize),
}

/// What a file that `torch.save` wrote holds.
#[derive(Debug)]
pub(crate) struct TorchFile {
    /// Keys of nested dictionaries and places in lists are joined by dots.
    pub(crate) tensors: BTreeMap<String, TorchTensor>,
    /// Text and numbers of the outermost dictionary.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The classes and functions that the file names and that were skipped.
    pub(crate) skipped: Vec<String>,
}

/// Where the numbers of storages are.
trait Storages {
    /// The first byte of a storage in the file and how many follow, or why it is not there.
    fn place(&mut self, storage: &Storage) -> Result<(usize, usize), String>;
}

impl TorchFile {
    /// Whether a file begins like an archive or a pickle.
    pub(crate) fn looks_like_one(start: &[u8]) -> bool {
        // A safetensors header starts with its size in eight bytes, which may be any, and a brace.
        start.get(8) != Some(&b'{')
            && (start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]))
    }

    /// Reads everything but the numbers.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for what torch did not write, is damaged, or holds no
    /// tensors but an object of a class.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (values, mut storages) = match legacy::is_one(path)? {
            true => legacy::open(path)?,
            false => archive::open(path)?,
        };
        let mut found = Found {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        found.collect(&values, values.root, "", 0, &mut 0)?;
        if found.tensors.is_empty() && !values.unknown.is_empty() {
            let names: Vec<String> = values.unknown.into_iter().take(5).collect();
            let reason = format!(
                "holds no tensors but objects of {}, which are not executed; save its `state_dict`",
                names.join(", ")
            );
            return Err(Error::format(path, reason));
        }
        let mut tensors = BTreeMap::new();
        for (name, stored) in found.tensors {
            let tensor = locate(storages.as_mut(), &stored).map_err(|reason| {
                let reason = format!("tensor `{name}`: {reason}; the file is damaged");
                Error::format(path, reason)
            })?;
            tensors.insert(name, tensor);
        }
        Ok(Self {
            tensors,
            metadata: found.metadata,
            skipped: values.unknown.into_iter().collect(),
        })
    }
}

/// The tensors of a pickle and the text beside them.
struct Found {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
    metadata: BTreeMap<String, String>,
}

impl Found {
    /// One value may be at many places, so what is counted are the visits.
    fn collect(
        &mut self,
        values: &Values,
        id: Id,
        at: &str,
        depth: usize,
        visits: &mut usize,
    ) -> Result<()> {
        *visits += 1;
        if depth > DEEPEST || *visits > MOST_VISITS {
            let reason = format!(
                "more than {DEEPEST} containers in each other or {MOST_VISITS} entries; expected \
                 tensors by name"
            );
            return Err(Error::format(&self.path, reason));
        }
        let below = |key: &str| match at {
            "" => key.to_string(),
            at => format!("{at}.{key}"),
        };
        match values.get(id) {
            Value::Tensor(tensor) => {
                let name = if at.is_empty() { "0" } else { at };
                self.tensors.insert(name.to_string(), tensor.clone());
            }
            Value::Dict(entries) => {
                let mut weights = entries.iter().filter(|(key, value)| {
                    // Of the snapshot of a training the weights only.
                    values.get(*key) == &Value::Text("state_dict".into())
                        && matches!(values.get(*value), Value::Dict(_))
                });
                let only = weights.next_back().filter(|_| at.is_empty());
                for (key, value) in entries {
                    let is_container = !matches!(
                        values.get(*value),
                        Value::Text(_) | Value::Int(_) | Value::Tensor(_)
                    );
                    if is_container && only.is_some_and(|(_, weights)| weights != value) {
                        continue;
                    }
                    let key = match values.get(*key) {
                        Value::Text(key) => below(key),
                        Value::Int(key) => below(&key.to_string()),
                        _ => continue,
                    };
                    self.collect(values, *value, &key, depth + 1, visits)?;
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = below(&index.to_string());
                    self.collect(values, *item, &key, depth + 1, visits)?;
                }
            }
            Value::Text(text) if depth == 1 => {
                self.metadata.insert(at.to_string(), text.clone());
            }
            Value::Int(number) if depth == 1 => {
                self.metadata.insert(at.to_string(), number.to_string());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Finds the numbers of a tensor.
fn locate(storages: &mut dyn Storages, tensor: &StoredTensor) -> Result<TorchTensor, String> {
    let StoredTensor {
        storage,
        offset,
        shape,
        strides,
    } = tensor;
    let (start, stored) = storages.place(storage)?;
    let size = storage.numbers.size();
    let available = stored / size;
    let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b));
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |at, (n, stride)| {
            at.checked_add(n.saturating_sub(1).checked_mul(*stride)?)
        });
    let end = match (count, last) {
        (Some(0), _) => *offset,
        (Some(count), Some(last)) if count <= available && last < available => last + 1,
        _ => usize::MAX,
    };
    if end > available {
        return Err(format!(
            "shape {shape:?} does not fit its {available} numbers"
        ));
    }
    Ok(TorchTensor {
        dtype: dtype(storage.numbers),
        shape: shape.clone(),
        strides: strides.clone(),
        bytes: (start + offset * size, start + end * size),
    })
}

fn dtype(numbers: Numbers) -> Dtype {
    match numbers {
        Numbers::Float16 => Dtype::F16,
        Numbers::BFloat16 => Dtype::BF16,
        Numbers::Float32 => Dtype::F32,
        Numbers::Float64 => Dtype::F64,
        Numbers::Int32 => Dtype::I32,
        Numbers::Int64 => Dtype::I64,
        Numbers::Int16 => Dtype::I16,
        Numbers::Int8 => Dtype::I8,
        Numbers::UInt8 => Dtype::U8,
        Numbers::Bool => Dtype::BOOL,
    }
}
