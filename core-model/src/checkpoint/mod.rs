//! Tensors in safetensors files: strict reading, atomic writing.
//!
//! Nothing of a file is trusted: the header's size is checked before it is read, every offset
//! before a tensor is allocated, and only tensors that a network asks for are read at all.

mod key_rules;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

pub use key_rules::{KeyRule, canonical};
pub(crate) use weights::{shard_names, weight_files};
pub use write::{Precision, TensorToWrite, save_module, save_tensors};

use crate::error::{Error, Result};

/// The largest header that the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Open safetensors files whose headers were read and checked: one, or the shards of one checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    parts: Vec<Part>,
    /// For every key which part holds it, and where.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    data_start: u64,
}

impl Checkpoint {
    /// Opens a file and reads its header; `rule` gives every key its canonical spelling, or `None`
    /// for buffers that are no weights.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is no well-formed
    /// safetensors file or two keys have one canonical spelling.
    pub fn open(path: &Path, rule: KeyRule) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let broken = |what: String| {
            Error::format(
                path,
                format!("not a safetensors file: {what}; fetch or write it again"),
            )
        };
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| broken(format!("only {length} bytes long")))?;
        let header_size = u64::from_le_bytes(size);
        if header_size > MAX_HEADER || header_size > length.saturating_sub(8) {
            return Err(broken(format!(
                "its header claims {header_size} of {length} bytes"
            )));
        }
        let mut header = vec![0; usize::try_from(header_size).map_err(|e| broken(e.to_string()))?];
        file.read_exact(&mut header).map_err(Error::io(path))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| broken(format!("its header: {e}")))?;
        let data_start = 8 + header_size;
        if header.data_len() as u64 != length - data_start {
            return Err(broken(format!(
                "its header describes {} bytes of data but {} follow, so it was cut or damaged",
                header.data_len(),
                length - data_start
            )));
        }
        let mut tensors = BTreeMap::new();
        for (key, info) in header.tensors() {
            let Some(name) = rule(&key) else { continue };
            if tensors.insert(name.clone(), (0, info.clone())).is_some() {
                return Err(Error::format(
                    path,
                    format!("holds `{name}` under two spellings"),
                ));
            }
        }
        let metadata = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        Ok(Self {
            path: path.to_path_buf(),
            parts: vec![Part {
                path: path.to_path_buf(),
                data_start,
            }],
            tensors,
            metadata,
        })
    }

    /// The file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The canonical keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The text that the file carries beside its tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Type and shape of a tensor.
    pub fn info(&self, key: &str) -> Option<&TensorInfo> {
        self.tensors.get(key).map(|(_, info)| info)
    }

    /// Reads a floating-point tensor as float32, row-major; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Io`] on a failed read, [`Error::Format`] when the tensor holds no floats.
    pub fn read_f32(&self, key: &str) -> Result<Option<(Vec<f32>, Vec<usize>)>> {
        let Some((part, info)) = self.tensors.get(key) else {
            return Ok(None);
        };
        let bytes = self.parts[*part].read_bytes(info)?;
        let values = match info.dtype {
            Dtype::F32 => convert(&bytes, f32::from_le_bytes),
            Dtype::F64 => convert(&bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => convert(&bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(&bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            other => return Err(self.wrong_type(key, other, "F16, BF16, F32 or F64")),
        };
        Ok(Some((values, info.shape.clone())))
    }

    /// Reads an integer tensor, row-major; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Io`] on a failed read, [`Error::Format`] when the tensor holds no integers.
    pub fn read_i64(&self, key: &str) -> Result<Option<(Vec<i64>, Vec<usize>)>> {
        let Some((part, info)) = self.tensors.get(key) else {
            return Ok(None);
        };
        let bytes = self.parts[*part].read_bytes(info)?;
        let values = match info.dtype {
            Dtype::I64 => convert(&bytes, i64::from_le_bytes),
            Dtype::I32 => convert(&bytes, |b| i64::from(i32::from_le_bytes(b))),
            other => return Err(self.wrong_type(key, other, "I32 or I64")),
        };
        Ok(Some((values, info.shape.clone())))
    }

    /// Forgets the tensors whose keys begin like this.
    pub(crate) fn remove_below(&mut self, start: &str) {
        self.tensors.retain(|key, _| !key.starts_with(start));
    }

    /// Makes of a tensor as many of equal numbers of rows, one below the other.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no such tensor or its rows cannot be shared out.
    pub(crate) fn split_rows(&mut self, key: &str, names: &[String]) -> Result<()> {
        let Some((part, info)) = self.tensors.remove(key) else {
            return Err(Error::format(
                &self.path,
                format!("tensor `{key}` is missing; the file is no whole model"),
            ));
        };
        let rows = info.shape.first().copied().unwrap_or_default();
        if !rows.is_multiple_of(names.len()) {
            return Err(Error::format(
                &self.path,
                format!(
                    "tensor `{key}` has {rows} rows, expected a multiple of {}",
                    names.len()
                ),
            ));
        }
        let (start, end) = info.data_offsets;
        let length = (end - start) / names.len();
        for (index, name) in names.iter().enumerate() {
            let mut piece = info.clone();
            piece.shape[0] = rows / names.len();
            let start = start + index * length;
            piece.data_offsets = (start, start + length);
            self.tensors.insert(name.clone(), (part, piece));
        }
        Ok(())
    }

    fn wrong_type(&self, key: &str, found: Dtype, expected: &str) -> Error {
        Error::format(
            &self.path,
            format!("tensor `{key}` is {found:?}, expected {expected}"),
        )
    }
}

impl Part {
    fn read_bytes(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.data_start + start as u64))
            .map_err(Error::io(&self.path))?;
        let mut bytes = vec![0; end - start];
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }
}

fn convert<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| from(*chunk))
        .collect()
}
