//! Files that hold a learned concept: one or more rows for a text encoder's token table.
//!
//! Written is the one layout that every tool reads: safetensors with a single key, the placeholder
//! token, [num_vectors, d] float32. Read is what other tools write:
//!
//! | tool | keys | name of the concept |
//! |---|---|---|
//! | diffusers, this project | one, any | the key |
//! | AUTOMATIC1111 | `string_to_param`, `string_to_param.*` or `*` | the file's name |
//! | kohya, OneTrainer | `emb_params`, `emp_params` | the file's name |
//! | ComfyUI and others, one tensor per encoder | `clip_l` beside `clip_g`, `t5`, .. | the file's name |
//! | the authors of Custom Diffusion (`delta.bin`) | one below `modifier_token.`, the U-Net's beside it | what follows |
//! | the authors of CoRe | `name_v0`, `name_v1`, .. one vector each | `name` |
//! | anything else | the only tensor as wide as the text encoder | its key |
//!
//! A one-dimensional tensor is one vector. Files of `torch.save` (`.bin`, `.pt`) have the same keys
//! in dictionaries; they could run programs when opened by Python, and are read here as data, with
//! a list of names that they may use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use crate::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// A learned concept.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedEmbedding {
    /// The placeholder token that stands for the concept in a prompt.
    pub token: String,
    /// The vectors one after the other, `num_vectors * dim` values.
    pub vectors: Vec<f32>,
    /// How many vectors the token stands for.
    pub num_vectors: usize,
    /// The width of the text encoder.
    pub dim: usize,
    /// Text that the file carries, such as `super_category` and `base_model`.
    pub metadata: BTreeMap<String, String>,
}

/// Which tool's layout a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingLayout {
    /// One key, the token.
    OneKey,
    /// AUTOMATIC1111's `string_to_param`.
    StringToParam,
    /// kohya's `emb_params`.
    EmbParams,
    /// OneTrainer's `emp_params`.
    EmpParams,
    /// `clip_l` for the encoder of Stable Diffusion 1, others beside it.
    ClipL,
    /// `name_v0`, `name_v1`, ..: the authors' code.
    OneKeyPerVector,
    /// `modifier_token` of the authors of Custom Diffusion.
    ModifierToken,
    /// Several tensors, one as wide as the text encoder.
    ByWidth,
}

impl fmt::Display for EmbeddingLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneKey => "one key (diffusers)",
            Self::StringToParam => "string_to_param (AUTOMATIC1111)",
            Self::EmbParams => "emb_params (kohya)",
            Self::EmpParams => "emp_params (OneTrainer)",
            Self::ClipL => "clip_l (ComfyUI)",
            Self::OneKeyPerVector => "one key per vector (the authors of CoRe)",
            Self::ModifierToken => "modifier_token (the authors of Custom Diffusion)",
            Self::ByWidth => "several tensors, chosen by width",
        })
    }
}

/// Keys that name a layout rather than a concept.
const LAYOUT_KEYS: [(&str, EmbeddingLayout); 6] = [
    ("string_to_param", EmbeddingLayout::StringToParam),
    ("string_to_param.*", EmbeddingLayout::StringToParam),
    ("*", EmbeddingLayout::StringToParam),
    ("emb_params", EmbeddingLayout::EmbParams),
    ("emp_params", EmbeddingLayout::EmpParams),
    ("clip_l", EmbeddingLayout::ClipL),
];

/// Below this key the authors of Custom Diffusion write their concepts.
const MODIFIER_TOKEN: &str = "modifier_token.";

/// Keys that name the encoder of a tensor, or nothing, as that of a tensor without dictionary.
const ENCODER_KEYS: [&str; 9] = [
    "clip_l",
    "clip_g",
    "clip_h",
    "t5",
    "t5xxl",
    "text_encoder",
    "text_encoder_2",
    "text_encoders_0",
    "0",
];

impl LearnedEmbedding {
    /// A concept from its vectors, one row each.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no token, no vector, or the vectors are not all equally
    /// wide or not finite.
    pub fn new(token: &str, rows: &[Vec<f32>]) -> Result<Self> {
        let dim = rows.first().map_or(0, Vec::len);
        let fault = if token.trim().is_empty() {
            "has no placeholder token"
        } else if dim == 0 {
            "has no values"
        } else if rows.iter().any(|row| row.len() != dim) {
            "has vectors of different widths"
        } else if rows.iter().flatten().any(|value| !value.is_finite()) {
            "holds NaN or infinite values; the training that made it has diverged"
        } else {
            return Ok(Self {
                token: token.to_string(),
                vectors: rows.concat(),
                num_vectors: rows.len(),
                dim,
                metadata: BTreeMap::new(),
            });
        };
        Err(Error::Invalid(format!("the learned embedding {fault}")))
    }

    /// Reads a file in any of the layouts of the table above. A folder stands for the file of
    /// that kind in it, and `owner/name` for a repository of the hub.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for damaged files, unknown layouts, and pickles that hold
    /// anything but tensors and plain containers.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::load_with_layout(path, None)?.0)
    }

    /// The same for a text encoder of this width, which also decides between several tensors.
    ///
    /// # Errors
    /// As [`load`](Self::load), and when no tensor has this width.
    pub fn load_for_width(path: &Path, width: usize) -> Result<Self> {
        Ok(Self::load_with_layout(path, Some(width))?.0)
    }

    /// The same, and which layout it was.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_layout(path: &Path, width: Option<usize>) -> Result<(Self, EmbeddingLayout)> {
        let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
        file.say_skipped_objects();
        let keys: Vec<&str> = file.keys().collect();
        let (layout, chosen) = choose(&file, &keys, width)?;
        let mut rows = Vec::new();
        for key in &chosen {
            rows.extend(read_rows(&file, key)?);
        }
        let name = match layout {
            EmbeddingLayout::OneKey | EmbeddingLayout::ByWidth
                if !ENCODER_KEYS.contains(&chosen[0]) =>
            {
                chosen[0].to_string()
            }
            EmbeddingLayout::OneKeyPerVector => {
                split_vector_key(chosen[0]).map_or_else(String::new, |(name, _)| name.to_string())
            }
            EmbeddingLayout::ModifierToken => {
                let name = chosen[0].strip_prefix(MODIFIER_TOKEN);
                name.unwrap_or_default().to_string()
            }
            _ => path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        let mut embedding = Self::new(&name, &rows).map_err(|e| Error::format(path, e))?;
        if let Some(width) = width
            && embedding.dim != width
        {
            return Err(Error::format(
                path,
                format!(
                    "its vectors have {} values but the text encoder's tokens have {width}; \
                     it was learned with another base model",
                    embedding.dim
                ),
            ));
        }
        embedding.metadata = file.metadata().clone();
        embedding.metadata.remove("format");
        Ok((embedding, layout))
    }

    /// Writes the one-key layout, replacing `path` only when all is on disk.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when the name of the file promises a pickle.
    pub fn save(&self, path: &Path) -> Result<()> {
        if !has_extension(path, &["safetensors"]) {
            let reason =
                "learned embeddings are written as safetensors; name the file .safetensors";
            return Err(Error::format(path, reason));
        }
        let tensor = TensorToWrite {
            name: self.token.clone(),
            shape: vec![self.num_vectors, self.dim],
            values: self.vectors.clone(),
        };
        let metadata: Vec<(&str, &str)> = self
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        save_tensors(path, vec![tensor], Precision::Float32, &metadata)
    }

    /// The vectors as [num_vectors, dim].
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let data = TensorData::new(self.vectors.clone(), [self.num_vectors, self.dim]);
        Tensor::from_data(data, device)
    }

    /// The Euclidean norm of every vector.
    pub fn norms(&self) -> Vec<f64> {
        let norm = |row: &[f32]| {
            row.iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        self.vectors.chunks(self.dim.max(1)).map(norm).collect()
    }
}

/// The layout of a file and its tensors that are the concept's, in the order of their vectors.
fn choose<'a>(
    file: &Checkpoint,
    keys: &[&'a str],
    width: Option<usize>,
) -> Result<(EmbeddingLayout, Vec<&'a str>)> {
    let fits = |key: &str| width.is_none() || shape(file, key).last().copied() == width;
    for (key, layout) in LAYOUT_KEYS {
        if let Some(key) = keys.iter().find(|k| **k == key)
            && (keys.len() == 1 || fits(key))
        {
            return Ok((layout, vec![*key]));
        }
    }
    let tokens = keys.iter().filter(|key| key.starts_with(MODIFIER_TOKEN));
    if let [key] = tokens.collect::<Vec<_>>()[..] {
        return Ok((EmbeddingLayout::ModifierToken, vec![*key]));
    }
    if let [key] = keys {
        return Ok((EmbeddingLayout::OneKey, vec![*key]));
    }
    if let Some(chosen) = vector_keys(keys) {
        return Ok((EmbeddingLayout::OneKeyPerVector, chosen));
    }
    let fitting: Vec<&str> = keys
        .iter()
        .copied()
        .filter(|key| width.is_some() && fits(key))
        .collect();
    match fitting[..] {
        [key] => Ok((EmbeddingLayout::ByWidth, vec![key])),
        _ => Err(Error::format(
            file.path(),
            format!(
                "no layout of a learned embedding: tensors {}; expected one key, or `emb_params`, \
                 `string_to_param`, `clip_l`, or `name_v0`, `name_v1`, ..",
                describe(file, keys)
            ),
        )),
    }
}

fn shape<'a>(file: &'a Checkpoint, key: &str) -> &'a [usize] {
    file.info(key).map_or(&[], |info| &info.shape)
}

/// The first keys with their shapes, for messages.
fn describe(file: &Checkpoint, keys: &[&str]) -> String {
    let some: Vec<String> = keys
        .iter()
        .take(5)
        .map(|key| format!("`{key}` {:?}", shape(file, key)))
        .collect();
    match keys.len() {
        0 => "none".to_string(),
        1..=5 => some.join(", "),
        count => format!("{} and {} more", some.join(", "), count - 5),
    }
}

/// `name_v3` as (`name`, 3).
fn split_vector_key(key: &str) -> Option<(&str, usize)> {
    let (name, number) = key.rsplit_once("_v")?;
    Some((name, number.parse().ok()?))
}

/// All keys in the order of their numbers, if they are `name_v0` to `name_v(n-1)` of one name.
fn vector_keys<'a>(keys: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut numbered: Vec<(usize, &str, &str)> = Vec::new();
    for key in keys {
        let (name, number) = split_vector_key(key)?;
        numbered.push((number, name, key));
    }
    numbered.sort_unstable();
    let name = numbered.first()?.1;
    let complete = numbered
        .iter()
        .enumerate()
        .all(|(i, (n, of, _))| *n == i && *of == name);
    complete.then(|| numbered.into_iter().map(|(_, _, key)| key).collect())
}

/// A tensor [d] or [n, d] as rows.
fn read_rows(file: &Checkpoint, key: &str) -> Result<Vec<Vec<f32>>> {
    let (values, shape) = file.read_f32(key)?.unwrap_or_default();
    match shape[..] {
        [width] | [_, width] if width > 0 => {
            Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
        }
        _ => Err(Error::format(
            file.path(),
            format!("tensor `{key}` has shape {shape:?}, expected [width] or [vectors, width]"),
        )),
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().unwrap_or_default();
    extensions
        .iter()
        .any(|extension| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, tensors: &[(&str, Vec<usize>)]) -> std::path::PathBuf {
        let tensors = tensors.iter().map(|(name, shape)| TensorToWrite {
            name: (*name).to_string(),
            shape: shape.clone(),
            values: (0..shape.iter().product())
                .map(|i: usize| i as f32)
                .collect(),
        });
        let path = dir.join(name);
        save_tensors(&path, tensors.collect(), Precision::Float32, &[]).unwrap();
        path
    }

    #[test]
    fn what_is_saved_is_loaded_again_with_its_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("robot.safetensors");
        let rows = [vec![1.0, -2.5, 3.0], vec![0.1, 0.2, 0.3]];
        let mut embedding = LearnedEmbedding::new("<robot>", &rows).unwrap();
        embedding
            .metadata
            .insert("super_category".into(), "toy".into());
        embedding.save(&path).unwrap();
        let (loaded, layout) = LearnedEmbedding::load_with_layout(&path, Some(3)).unwrap();
        assert_eq!(loaded, embedding);
        assert_eq!(layout, EmbeddingLayout::OneKey);
        assert_eq!((loaded.num_vectors, loaded.dim), (2, 3));
        assert!((loaded.norms()[1] - 0.14_f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn the_width_decides_between_several_tensors() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [("clip_g", vec![2, 6]), ("clip_l", vec![2, 4])];
        let path = write(dir.path(), "dog.safetensors", &tensors);
        let (embedding, layout) = LearnedEmbedding::load_with_layout(&path, Some(4)).unwrap();
        assert_eq!((embedding.token.as_str(), embedding.dim), ("dog", 4));
        assert_eq!(layout, EmbeddingLayout::ClipL);
        let (embedding, layout) = LearnedEmbedding::load_with_layout(&path, Some(6)).unwrap();
        assert_eq!((embedding.token.as_str(), embedding.dim), ("dog", 6));
        assert_eq!(layout, EmbeddingLayout::ByWidth);
        assert_eq!(LearnedEmbedding::load(&path).unwrap().dim, 4);
        assert!(LearnedEmbedding::load_for_width(&path, 5).is_err());
    }

    #[test]
    fn another_width_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "dog.safetensors", &[("<dog>", vec![4])]);
        let text = LearnedEmbedding::load_for_width(&path, 8)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("4 values") && text.contains("have 8"),
            "{text}"
        );
    }

    #[test]
    fn numbered_vectors_are_put_in_the_order_of_their_numbers() {
        let names: Vec<String> = (0..11).map(|i| format!("cat_v{i}")).collect();
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(vector_keys(&sorted).unwrap(), keys);
        assert_eq!(vector_keys(&["cat_v0", "cat_v2"]), None);
        assert_eq!(vector_keys(&["cat_v0", "dog_v1"]), None);
    }

    #[test]
    fn unknown_layouts_and_shapes_are_refused_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(
            dir.path(),
            "a.safetensors",
            &[("x", vec![4]), ("y", vec![4])],
        );
        let text = LearnedEmbedding::load(&path).unwrap_err().to_string();
        assert!(
            text.contains("`x` [4]") && text.contains("emb_params"),
            "{text}"
        );
        let path = write(dir.path(), "b.safetensors", &[("x", vec![1, 2, 2])]);
        let text = LearnedEmbedding::load(&path).unwrap_err().to_string();
        assert!(text.contains("[1, 2, 2]"), "{text}");
        let path = write(dir.path(), "c.safetensors", &[("x", vec![0, 4])]);
        assert!(LearnedEmbedding::load(&path).is_err());
    }

    #[test]
    fn only_safetensors_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let embedding = LearnedEmbedding::new("<a>", &[vec![1.0]]).unwrap();
        let refused = embedding.save(&dir.path().join("a.bin")).unwrap_err();
        assert!(refused.to_string().contains(".safetensors"), "{refused}");
    }

    #[test]
    fn diverged_embeddings_are_refused() {
        let error = LearnedEmbedding::new("<a>", &[vec![1.0, f32::NAN]]).unwrap_err();
        assert!(error.to_string().contains("NaN"));
        assert!(LearnedEmbedding::new("", &[vec![1.0]]).is_err());
        assert!(LearnedEmbedding::new("<a>", &[vec![1.0], vec![1.0, 2.0]]).is_err());
    }
}
