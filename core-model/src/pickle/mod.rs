//! Files that `torch.save` wrote (`.pt`, `.bin`), read as data.
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

use half::{bf16, f16};
use zip::ZipArchive;

use crate::error::{Error, Result};
use machine::{Id, Numbers, StoredTensor, Value, Values, unpickle};

/// The longest pickle that is read, in bytes; the numbers are not in it.
const MOST_BYTES: u64 = 64 << 20;

/// Dictionaries and lists in each other.
const DEEPEST: usize = 8;

/// Entries of dictionaries and lists that are looked at.
const MOST_VISITS: usize = 1 << 16;

/// A file that `torch.save` wrote.
#[derive(Debug)]
pub(crate) struct TorchFile {
    path: PathBuf,
    /// The archive's folder, with its slash.
    folder: String,
    tensors: BTreeMap<String, StoredTensor>,
    metadata: BTreeMap<String, String>,
}

impl TorchFile {
    /// Whether a file begins like an archive or a pickle.
    pub(crate) fn looks_like_one(start: &[u8]) -> bool {
        // A safetensors header starts with its size in eight bytes, which may be any, and a brace.
        start.get(8) != Some(&b'{')
            && (start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]))
    }

    /// Reads the names and shapes of all tensors. Keys of nested dictionaries and places in lists
    /// are joined by dots; text and numbers of the outermost dictionary are the metadata.
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
                "an archive without `data.pkl`, so torch.save did not write it; expected a learned \
                 embedding as .safetensors, .pt or .bin",
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
        let mut file = Self {
            path: path.to_path_buf(),
            folder,
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        let mut visits = 0;
        file.collect(&values, values.root(), "", 0, &mut visits)?;
        Ok(file)
    }

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
                "more than {DEEPEST} containers in each other or {MOST_VISITS} entries; expected a \
                 learned embedding"
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

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|tensor| tensor.shape.as_slice())
    }

    /// Text and numbers beside the tensors.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor's values, row-major, and its shape; `None` when there is none of this name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when the archive has fewer numbers than the tensor.
    pub(crate) fn read_f32(&self, key: &str) -> Result<Option<(Vec<f32>, Vec<usize>)>> {
        let Some(tensor) = self.tensors.get(key) else {
            return Ok(None);
        };
        let StoredTensor {
            storage,
            offset,
            shape,
            strides,
        } = tensor;
        let mut archive = archive(&self.path)?;
        let entry = format!("{}data/{}", self.folder, storage.key);
        let bytes = read_entry(&mut archive, &self.path, &entry)?;
        let available = bytes.len() / storage.numbers.size();
        let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b));
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |at, (n, stride)| {
                at.checked_add(n.saturating_sub(1).checked_mul(*stride)?)
            });
        let fits = count.is_some_and(|count| count <= available)
            && last.is_some_and(|last| last < available);
        if !fits {
            let reason = format!(
                "tensor `{key}` of shape {shape:?} does not fit its {available} numbers; the file \
                 is damaged"
            );
            return Err(Error::format(&self.path, reason));
        }
        let mut values = Vec::with_capacity(count.unwrap_or_default());
        gather(*offset, shape, strides, &mut |at| {
            values.push(number(
                storage.numbers,
                &bytes[at * storage.numbers.size()..],
            ));
        });
        Ok(Some((values, shape.clone())))
    }
}

/// Visits the places of a strided view in row-major order.
fn gather(at: usize, shape: &[usize], strides: &[usize], visit: &mut impl FnMut(usize)) {
    match (shape, strides) {
        ([count, shape @ ..], [stride, strides @ ..]) => {
            for index in 0..*count {
                gather(at + index * stride, shape, strides, visit);
            }
        }
        _ => visit(at),
    }
}

/// The number that the bytes begin with; there are enough of them.
fn number(numbers: Numbers, bytes: &[u8]) -> f32 {
    fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.first_chunk().copied().unwrap_or([0; N])
    }
    match numbers {
        Numbers::Float16 => f16::from_le_bytes(first(bytes)).to_f32(),
        Numbers::BFloat16 => bf16::from_le_bytes(first(bytes)).to_f32(),
        Numbers::Float32 => f32::from_le_bytes(first(bytes)),
        Numbers::Float64 => f64::from_le_bytes(first(bytes)) as f32,
        Numbers::Int32 => i32::from_le_bytes(first(bytes)) as f32,
        Numbers::Int64 => i64::from_le_bytes(first(bytes)) as f32,
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
