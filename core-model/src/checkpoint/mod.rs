//! Tensors in files: strict reading of safetensors and of what `torch.save` wrote, atomic writing of
//! safetensors.
//!
//! Nothing of a file is trusted: the header's size is checked before it is read, every offset
//! before a tensor is allocated, and only tensors that a network asks for are read at all. A pickle
//! is data; nothing in it is executed.

mod key_rules;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

pub use key_rules::{KeyRule, canonical};
pub(crate) use weights::{shard_names, weight_files};
pub(crate) use write::data_digest;
pub use write::{TensorToWrite, save_module, save_tensors};

use crate::error::{Error, Result};
use crate::file_kind::{FIRST_BYTES, FileKind};
use crate::pickle::{TorchFile, TorchTensor};

/// The largest header that the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Open files whose headers were read and checked: one, or the shards of one checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    parts: Vec<Part>,
    tensors: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
    skipped_objects: Vec<String>,
}

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    data_start: u64,
}

/// Where a tensor is.
#[derive(Debug, Clone)]
struct Stored {
    /// The number of the file.
    part: usize,
    info: TensorInfo,
    /// Where its numbers do not lie in row-major order: how far apart they are in every dimension.
    strides: Option<Vec<usize>>,
}

impl Checkpoint {
    /// Opens a file and reads its header; `rule` gives every key its canonical spelling, or `None`
    /// for buffers that are no weights.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is not a well-formed
    /// safetensors file or archive of torch, or two keys have one canonical spelling.
    pub fn open(path: &Path, rule: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        // What a file is, its content decides, not its name.
        let mut start = Vec::new();
        let most = FIRST_BYTES as u64;
        let read = Read::by_ref(&mut file).take(most).read_to_end(&mut start);
        read.map_err(Error::io(path))?;
        if TorchFile::looks_like_one(&start) {
            return Self::open_torch(path, rule);
        }
        let is_header = start.get(8) == Some(&b'{');
        if let Some(kind) = FileKind::of(&start).filter(|_| !is_header) {
            let reason = format!("is {kind}; expected tensors as safetensors or torch writes them");
            return Err(Error::format(path, reason));
        }
        file.rewind().map_err(Error::io(path))?;
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
        let tensors = header.tensors().into_iter().map(|(key, info)| {
            let stored = Stored {
                part: 0,
                info: info.clone(),
                strides: None,
            };
            (key, stored)
        });
        let metadata = header.metadata().clone().unwrap_or_default();
        let metadata = metadata.into_iter().collect();
        Self::of_file(path, data_start, tensors, metadata, rule)
    }

    /// An archive that `torch.save` wrote. Of a training's snapshot (`state_dict` beside what the
    /// training needs) the weights only.
    fn open_torch(path: &Path, rule: impl Fn(&str) -> Option<String>) -> Result<Self> {
        const WEIGHTS: &str = "state_dict.";
        let file = TorchFile::open(path)?;
        let nested = file.tensors.keys().any(|key| key.starts_with(WEIGHTS));
        let tensors = file.tensors.into_iter().filter_map(|(key, tensor)| {
            let key = match nested {
                true => key.strip_prefix(WEIGHTS)?.to_string(),
                false => key,
            };
            Some((key, Stored::from(tensor)))
        });
        let mut opened = Self::of_file(path, 0, tensors, file.metadata, rule)?;
        opened.skipped_objects = file.skipped;
        Ok(opened)
    }

    fn of_file(
        path: &Path,
        data_start: u64,
        tensors: impl Iterator<Item = (String, Stored)>,
        metadata: BTreeMap<String, String>,
        rule: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let path = path.to_path_buf();
        let part = Part {
            path: path.clone(),
            data_start,
        };
        let mut file = Self {
            path,
            parts: vec![part],
            tensors: BTreeMap::new(),
            metadata,
            skipped_objects: Vec::new(),
        };
        for (key, stored) in tensors {
            let Some(name) = rule(&key) else { continue };
            if file.tensors.insert(name.clone(), stored).is_some() {
                let reason = format!("holds `{name}` under two spellings");
                return Err(Error::format(&file.path, reason));
            }
        }
        Ok(file)
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

    /// Warns of the objects in a file of torch that are no tensors and were skipped.
    pub(crate) fn say_skipped_objects(&self) {
        const MOST: usize = 3;
        if let Some(names) = self.skipped_objects.chunks(MOST).next() {
            tracing::warn!(
                "{}: objects of {} {} are skipped; nothing of them is executed",
                self.path.display(),
                self.skipped_objects.len(),
                match self.skipped_objects.len() {
                    1 => format!("class ({})", names.join(", ")),
                    _ => format!("classes ({}, ..)", names.join(", ")),
                }
            );
        }
    }

    /// Type and shape of a tensor.
    pub fn info(&self, key: &str) -> Option<&TensorInfo> {
        self.tensors.get(key).map(|stored| &stored.info)
    }

    /// Reads a floating-point tensor as float32, row-major; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Io`] on a failed read, [`Error::Format`] when the tensor holds no floats.
    pub fn read_f32(&self, key: &str) -> Result<Option<(Vec<f32>, Vec<usize>)>> {
        let Some(stored) = self.tensors.get(key) else {
            return Ok(None);
        };
        let (part, info) = (&self.parts[stored.part], &stored.info);
        let values = match info.dtype {
            Dtype::F32 => part.read(info, f32::from_le_bytes)?,
            Dtype::F64 => part.read(info, |b| f64::from_le_bytes(b) as f32)?,
            Dtype::F16 => part.read(info, |b| half::f16::from_le_bytes(b).to_f32())?,
            Dtype::BF16 => part.read(info, |b| half::bf16::from_le_bytes(b).to_f32())?,
            other => return Err(self.wrong_type(key, other, "F16, BF16, F32 or F64")),
        };
        Ok(Some((stored.in_order(values), info.shape.clone())))
    }

    /// Reads an integer tensor, row-major; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Io`] on a failed read, [`Error::Format`] when the tensor holds no integers.
    pub fn read_i64(&self, key: &str) -> Result<Option<(Vec<i64>, Vec<usize>)>> {
        let Some(stored) = self.tensors.get(key) else {
            return Ok(None);
        };
        let (part, info) = (&self.parts[stored.part], &stored.info);
        let values = match info.dtype {
            Dtype::I64 => part.read(info, i64::from_le_bytes)?,
            Dtype::I32 => part.read(info, |b| i64::from(i32::from_le_bytes(b)))?,
            other => return Err(self.wrong_type(key, other, "I32 or I64")),
        };
        Ok(Some((stored.in_order(values), info.shape.clone())))
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
        let Some(Stored {
            part,
            info,
            strides,
        }) = self.tensors.remove(key)
        else {
            return Err(Error::format(
                &self.path,
                format!("tensor `{key}` is missing; the file is not a complete model"),
            ));
        };
        let rows = info.shape.first().copied().unwrap_or_default();
        if strides.is_some() {
            let reason = format!("tensor `{key}` is a view of another; save it contiguous");
            return Err(Error::format(&self.path, reason));
        }
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
            let stored = Stored {
                part,
                info: piece,
                strides: None,
            };
            self.tensors.insert(name.clone(), stored);
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
    /// The numbers of a tensor, read in pieces, so that its bytes are never in memory as a whole; of a
    /// large one by all threads.
    fn read<T: Copy + Default + Send, const N: usize>(
        &self,
        info: &TensorInfo,
        from: impl Fn([u8; N]) -> T + Sync,
    ) -> Result<Vec<T>> {
        /// Bytes that one thread reads in a row.
        const RUN: usize = 1 << 22;
        let (start, end) = info.data_offsets;
        let mut values = vec![T::default(); (end - start) / N];
        let runs = values.par_chunks_mut(RUN / N).enumerate();
        runs.try_for_each(|(i, values)| self.read_run(start + i * RUN, values, &from))?;
        Ok(values)
    }

    /// Some numbers from a place of the data on.
    fn read_run<T, const N: usize>(
        &self,
        start: usize,
        values: &mut [T],
        from: impl Fn([u8; N]) -> T,
    ) -> Result<()> {
        const PIECE: usize = 1 << 18;
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.data_start + start as u64))
            .map_err(Error::io(&self.path))?;
        let mut piece = vec![0; PIECE.min(values.len() * N)];
        for values in values.chunks_mut(PIECE / N) {
            let piece = &mut piece[..values.len() * N];
            file.read_exact(piece).map_err(Error::io(&self.path))?;
            for (value, bytes) in values.iter_mut().zip(piece.as_chunks::<N>().0) {
                *value = from(*bytes);
            }
        }
        Ok(())
    }
}

impl From<TorchTensor> for Stored {
    fn from(tensor: TorchTensor) -> Self {
        let mut next = 1_usize;
        let mut places = tensor.shape.iter().zip(&tensor.strides).rev();
        let in_order = places.all(|(n, stride)| {
            let fits = *n == 1 || *stride == next;
            next = next.saturating_mul(*n);
            fits
        });
        // Of nothing there is no order; its other sizes may be anything.
        let in_order = in_order || tensor.shape.contains(&0);
        Self {
            part: 0,
            info: TensorInfo {
                dtype: tensor.dtype,
                shape: tensor.shape,
                data_offsets: tensor.bytes,
            },
            strides: (!in_order).then_some(tensor.strides),
        }
    }
}

impl Stored {
    /// The numbers between its first and its last in row-major order.
    fn in_order<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        /// Visits the places of a strided view in row-major order.
        fn visit(at: usize, shape: &[usize], strides: &[usize], take: &mut impl FnMut(usize)) {
            match (shape, strides) {
                ([count, shape @ ..], [stride, strides @ ..]) => {
                    for index in 0..*count {
                        visit(at + index * stride, shape, strides, take);
                    }
                }
                _ => take(at),
            }
        }
        let Some(strides) = &self.strides else {
            return values;
        };
        let mut ordered = Vec::with_capacity(values.len());
        visit(0, &self.info.shape, strides, &mut |at| {
            ordered.push(values[at])
        });
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_without_numbers_is_read_at_once_whatever_its_sizes() {
        let stored = Stored::from(TorchTensor {
            dtype: Dtype::F32,
            shape: vec![1 << 60, 0, 1 << 60],
            strides: vec![5, 1, 7],
            bytes: (0, 0),
        });
        assert_eq!(stored.in_order(Vec::<f32>::new()), Vec::<f32>::new());
    }
}
