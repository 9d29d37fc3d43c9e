//! Files that `torch.save` wrote (`.pt`, `.bin`, `.ckpt`), read as data.
//!
//! Such a file is a zip archive with one pickle, a little program that builds objects, and the
//! numbers of each tensor. Python would execute it. Here it is read by a machine that knows
//! tensors, dictionaries, lists, text and numbers; a file that names anything else is refused by
//! that name. Sizes are checked against the file before memory is taken.

mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use crate::error::{Error, Result};
use machine::{Id, Numbers, StoredTensor, Value, Values, unpickle};

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
    /// [`Error::Io`]; [`Error::Format`] for what is no archive of torch, is damaged, or holds
    /// anything but tensors and plain containers.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let refuse = |reason: &str| Error::format(path, reason);
        let mut archive = archive(path)?;
        let names: Vec<String> = archive
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .collect();
        let pickle = names.iter().find(|name| {
            let folder = name.strip_suffix("data.pkl");
            folder.is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
        });
        let Some(pickle) = pickle else {
            return Err(refuse(
                "an archive without `data.pkl`, so torch.save did not write it; expected tensors \
                 as .safetensors, .pt, .bin or .ckpt",
            ));
        };
        let folder = pickle.trim_end_matches("data.pkl").to_string();
        if names.contains(&format!("{folder}byteorder")) {
            let order = read_entry(&mut archive, path, &format!("{folder}byteorder"))?;
            if order != b"little" {
                return Err(refuse("its numbers are not little-endian; save it again"));
            }
        }
        let bytes = read_entry(&mut archive, path, pickle)?;
        let values = unpickle(&bytes).map_err(|reason| refuse(&reason))?;
        let mut found = Found {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        found.collect(&values, values.root(), "", 0, &mut 0)?;
        let mut tensors = BTreeMap::new();
        for (name, stored) in found.tensors {
            let tensor = locate(&mut archive, path, &folder, &name, &stored)?;
            tensors.insert(name, tensor);
        }
        Ok(Self {
            tensors,
            metadata: found.metadata,
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
                for (key, value) in entries {
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

/// Finds the numbers of a tensor in the archive, which torch stores as they are.
fn locate(
    archive: &mut ZipArchive<File>,
    path: &Path,
    folder: &str,
    name: &str,
    tensor: &StoredTensor,
) -> Result<TorchTensor> {
    let StoredTensor {
        storage,
        offset,
        shape,
        strides,
    } = tensor;
    let entry = format!("{folder}data/{}", storage.key);
    let damaged = |reason: String| {
        let reason = format!("tensor `{name}`: {reason}; the file is damaged");
        Error::format(path, reason)
    };
    let found = archive
        .by_name(&entry)
        .map_err(|error| damaged(format!("`{entry}` in the archive: {error}")))?;
    if found.compression() != CompressionMethod::Stored {
        return Err(damaged(format!("`{entry}` in the archive is compressed")));
    }
    let start = found
        .data_start()
        .and_then(|start| usize::try_from(start).ok())
        .ok_or_else(|| damaged(format!("`{entry}` in the archive has no place")))?;
    let size = storage.numbers.size();
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let stored = found.size().min(length.saturating_sub(start as u64));
    let available = usize::try_from(stored).unwrap_or(usize::MAX) / size;
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
        return Err(damaged(format!(
            "shape {shape:?} does not fit its {available} numbers"
        )));
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
    }
}

fn archive(path: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(path).map_err(Error::io(path))?;
    ZipArchive::new(file).map_err(|error| {
        let reason = format!(
            "no archive as torch.save writes since version 1.6 ({error}); open it with a torch \
             that you trust it with and save it again, best as safetensors"
        );
        Error::format(path, reason)
    })
}

/// The bytes of an entry, which torch stores uncompressed, so that they are no more than the file.
fn read_entry(archive: &mut ZipArchive<File>, path: &Path, name: &str) -> Result<Vec<u8>> {
    let damaged = |error: &dyn std::fmt::Display| {
        Error::format(path, format!("`{name}` in the archive: {error}"))
    };
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    let entry = archive.by_name(name).map_err(|error| damaged(&error))?;
    let most = match name.ends_with("data.pkl") {
        true => length.min(MOST_BYTES),
        false => length,
    };
    if entry.size() > most {
        return Err(damaged(&format!(
            "{} bytes, at most {most} are read",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| damaged(&error))?;
    Ok(bytes)
}
