//! Writing tensors as safetensors files that torch, diffusers and transformers read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::{hex, write_atomically};
use crate::params::{NamedParam, ParamNames, is_added, to_vec};
use crate::precision::Precision;

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

/// A safetensors file: the size of its header, the header, the values of all tensors.
///
/// Names and metadata are sorted, so that equal content gives equal bytes; the safetensors crate
/// writes metadata in the order of a hash map, which is another one in every process.
fn serialize(
    mut tensors: Vec<TensorToWrite>,
    precision: Precision,
    metadata: &BTreeMap<&str, &str>,
) -> Vec<u8> {
    let (dtype, width) = match precision {
        Precision::Float32 => ("F32", 4),
        Precision::Float16 => ("F16", 2),
        Precision::Bfloat16 => ("BF16", 2),
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut end = 0;
    for tensor in &tensors {
        let start = end;
        end += tensor.values.len() * width;
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // The values begin at a multiple of eight bytes.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = Vec::with_capacity(8 + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    // Tensors are freed one by one, so that a large network is never in memory three times.
    for TensorToWrite { values, .. } in tensors {
        encode(&values, precision, &mut file);
    }
    file
}

/// Appends the bytes of numbers.
fn encode(values: &[f32], precision: Precision, bytes: &mut Vec<u8>) {
    match precision {
        Precision::Float32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Precision::Float16 => {
            bytes.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()))
        }
        Precision::Bfloat16 => {
            bytes.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()))
        }
    }
}

/// The SHA-256 of what follows the header of a file of these tensors: the hash by which programs
/// know a LoRA.
pub(crate) fn data_digest(tensors: &[TensorToWrite], precision: Precision) -> String {
    let mut sorted: Vec<&TensorToWrite> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = Sha256::new();
    for tensor in sorted {
        let mut bytes = Vec::new();
        encode(&tensor.values, precision, &mut bytes);
        hasher.update(&bytes);
    }
    hex(&hasher.finalize())
}

/// Writes tensors and `metadata` (`format = pt` is added, which torch loaders insist on).
///
/// # Errors
/// [`Error::Io`] naming the file; an old file at `path` is then untouched. [`Error::Format`] when
/// two tensors have one name.
pub fn save_tensors(
    path: &Path,
    tensors: Vec<TensorToWrite>,
    precision: Precision,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let mut names = BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|t| !names.insert(t.name.as_str())) {
        return Err(Error::format(
            path,
            format!("two tensors are called `{}`", twice.name),
        ));
    }
    let mut metadata: BTreeMap<&str, &str> = metadata.iter().copied().collect();
    metadata.insert("format", "pt");
    write_atomically(path, &serialize(tensors, precision, &metadata))
}

/// Writes every parameter of a network that its checkpoint has, with key and shape of the
/// checkpoint.
///
/// # Errors
/// [`Error::Io`] naming the file; an old file at `path` is then untouched.
pub fn save_module<M: Module>(
    path: &Path,
    module: &M,
    names: &ParamNames,
    precision: Precision,
) -> Result<()> {
    let mut tensors = Vec::new();
    names.read(module, |param| {
        if !is_added(param.name) {
            tensors.push(param.into());
        }
    });
    save_tensors(path, tensors, precision, &[])
}

impl From<NamedParam<'_>> for TensorToWrite {
    fn from(param: NamedParam<'_>) -> Self {
        Self {
            name: param.name.to_string(),
            shape: param.shape.to_vec(),
            values: to_vec(param.value),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Checkpoint;
    use super::*;

    fn tensor(name: &str, values: &[f32]) -> TensorToWrite {
        TensorToWrite {
            name: name.into(),
            shape: vec![values.len()],
            values: values.to_vec(),
        }
    }

    #[test]
    fn equal_content_gives_equal_bytes_whatever_the_order() {
        let (a, b) = (tensor("a", &[1.0, 2.0]), tensor("b", &[3.0]));
        let dir = tempfile::tempdir().unwrap();
        let write = |tensors: [&TensorToWrite; 2], metadata: &[(&str, &str)]| {
            let path = dir.path().join("x.safetensors");
            let tensors = tensors.into_iter().cloned().collect();
            save_tensors(&path, tensors, Precision::Float32, metadata).unwrap();
            std::fs::read(path).unwrap()
        };
        let text = [("k1", "x"), ("k2", "y"), ("k3", "z")];
        let bytes = write([&a, &b], &text);
        let reversed: Vec<(&str, &str)> = text.into_iter().rev().collect();
        assert_eq!(bytes, write([&b, &a], &reversed));
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let tensors = vec![tensor("b \"q\"", &[0.5, -2.0]), tensor("a", &[3.0])];
        save_tensors(&path, tensors, Precision::Float16, &[("k", "v")]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let values = file.tensor("b \"q\"").unwrap();
        assert_eq!(values.shape(), [2]);
        assert_eq!(values.data(), [0x00, 0x38, 0x00, 0xc0]);
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    }

    #[test]
    fn what_is_written_in_every_format_is_read_back_rounded_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        // bfloat16's next number after 1, and the middle on the way there.
        let [next, middle] = [7, 8].map(|n| 1.0 + 0.5_f32.powi(n));
        let values = [0.5, next, middle, 1.0 + f32::EPSILON];
        for (precision, read) in [
            (Precision::Float32, values),
            (Precision::Float16, [0.5, next, middle, 1.0]),
            (Precision::Bfloat16, [0.5, next, 1.0, 1.0]),
        ] {
            save_tensors(&path, vec![tensor("a", &values)], precision, &[]).unwrap();
            let file = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
            assert_eq!(file.read_f32("a").unwrap().unwrap().0, read, "{precision}");
        }
    }

    #[test]
    fn a_tensor_that_several_threads_read_keeps_its_order_and_its_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut values: Vec<f32> = (0..2_500_000).map(|i| (i % 2039) as f32).collect();
        for precision in [Precision::Float32, Precision::Float16] {
            save_tensors(&path, vec![tensor("a", &values)], precision, &[]).unwrap();
            let file = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
            assert!(
                file.read_f32("a").unwrap().unwrap().0 == values,
                "{precision}"
            );
        }
        values[2_300_001] = f32::NAN;
        values[2_400_000] = f32::INFINITY;
        save_tensors(&path, vec![tensor("a", &values)], Precision::Float32, &[]).unwrap();
        let file = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
        let error = crate::params::read(&file, "a", &[values.len()]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("`a` holds NaN at place 2300001"), "{error}");
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let twice = vec![tensor("a", &[1.0]), tensor("a", &[2.0])];
        let path = dir.path().join("x.safetensors");
        let error = save_tensors(&path, twice, Precision::Float32, &[]).unwrap_err();
        assert!(error.to_string().contains("`a`"), "{error}");
        assert!(!path.exists());
    }
}
