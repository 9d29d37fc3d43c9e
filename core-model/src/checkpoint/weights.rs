//! Which files of a folder hold a network's weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::{Checkpoint, KeyRule, MAX_HEADER, Stored};
use crate::error::{Error, Result};
use crate::files::{is_plain_name, read_to_string};

/// The files that may hold the weights whose plain file would be `name`, in the order of
/// [`Checkpoint::open_weights`].
///
/// # Errors
/// [`Error::Invalid`] for a variant that cannot be part of a file's name.
pub(crate) fn weight_files(name: &str, variant: Option<&str>) -> Result<Vec<String>> {
    let stem = name.strip_suffix(".safetensors").unwrap_or(name);
    // transformers calls its pickles otherwise.
    let pickled = if stem == "model" {
        "pytorch_model"
    } else {
        stem
    };
    let variants = match variant {
        None => vec![None, Some("fp16")],
        Some(variant) if is_plain_name(variant) => vec![Some(variant)],
        Some(variant) => {
            return Err(Error::Invalid(format!(
                "the variant `{variant}` cannot be part of a file's name; write it as \"fp16\""
            )));
        }
    };
    let mut files = Vec::new();
    for (stem, end) in [(stem, "safetensors"), (pickled, "bin")] {
        for variant in &variants {
            files.extend(match variant {
                None => [format!("{stem}.{end}"), format!("{stem}.{end}.index.json")],
                Some(variant) => [
                    format!("{stem}.{variant}.{end}"),
                    format!("{stem}.{end}.index.{variant}.json"),
                ],
            });
        }
    }
    Ok(files)
}

/// `X.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if length > MAX_HEADER {
            return Err(Error::format(
                path,
                format!(
                    "an index of {length} bytes, expected less than {MAX_HEADER}; fetch it again"
                ),
            ));
        }
        let text = read_to_string(path)?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("no index of weights: {error}; fetch it again");
            Error::format(path, reason)
        })
    }

    /// The files, which must lie in the same folder; `path` is the index's own.
    fn shards(&self, path: &Path) -> Result<BTreeSet<&str>> {
        let shards: BTreeSet<&str> = self.weight_map.values().map(String::as_str).collect();
        let outside = |shard: &&&str| {
            let kind = [".safetensors", ".bin"];
            !is_plain_name(shard) || !kind.iter().any(|end| shard.ends_with(end))
        };
        match shards.iter().find(outside) {
            Some(shard) => Err(Error::format(
                path,
                format!(
                    "names the shard `{shard}`; expected a safetensors or bin file in the same \
                     folder"
                ),
            )),
            None => Ok(shards),
        }
    }
}

/// The files that an index of weights names.
///
/// # Errors
/// As [`Checkpoint::open_weights`] for an index.
pub(crate) fn shard_names(path: &Path) -> Result<Vec<String>> {
    let index = Index::read(path)?;
    Ok(index.shards(path)?.into_iter().map(String::from).collect())
}

impl Checkpoint {
    /// Opens the weights of a network in `folder`, whose plain file would be `name`, such as
    /// `model.safetensors`. Looked for are, in this order, what diffusers and transformers write;
    /// with `variant` only the files of that variant, which bear its name where `fp16` stands:
    ///
    /// | file | what it is |
    /// |---|---|
    /// | `model.safetensors` | all tensors |
    /// | `model.safetensors.index.json` | the shards that hold them |
    /// | `model.fp16.safetensors` | all tensors, the variant in float16 |
    /// | `model.safetensors.index.fp16.json` | its shards |
    /// | `pytorch_model.bin`, and on in the same order | what `torch.save` wrote, read as data |
    ///
    /// # Errors
    /// None of them is there; [`Error::Format`] for an index that names files outside of the folder
    /// or does not say what the shards hold; what [`open`](Self::open) reports.
    pub fn open_weights(
        folder: &Path,
        name: &str,
        variant: Option<&str>,
        rule: KeyRule,
    ) -> Result<Self> {
        let candidates = weight_files(name, variant)?;
        for candidate in &candidates {
            let path = folder.join(candidate);
            if path.is_file() {
                return match candidate.ends_with(".json") {
                    true => Self::open_shards(folder, &path, rule),
                    false => Self::open(&path, rule),
                };
            }
        }
        let expected = candidates.join(", ");
        Err(Error::format(
            folder,
            format!("has no weights; expected one of {expected}"),
        ))
    }

    fn open_shards(folder: &Path, path: &Path, rule: KeyRule) -> Result<Self> {
        let index = Index::read(path)?;
        let mut whole = Self {
            path: path.to_path_buf(),
            parts: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            skipped_objects: Vec::new(),
        };
        for shard in index.shards(path)? {
            let file = Self::open(&folder.join(shard), |key| Some(key.to_string()))?;
            whole.add_shard(file, shard, &index, rule)?;
        }
        Ok(whole)
    }

    /// Takes the tensors of a shard in; it holds exactly those that the index says.
    fn add_shard(&mut self, shard: Self, name: &str, index: &Index, rule: KeyRule) -> Result<()> {
        let refuse = |reason: String| {
            let reason = format!("{reason}; the files are not of one checkpoint, fetch them again");
            Err(Error::format(&self.path, reason))
        };
        let said = |key: &str| index.weight_map.get(key).is_some_and(|of| of == name);
        if let Some(key) = shard.keys().find(|key| !said(key)) {
            return refuse(format!("does not name `{key}`, which is in {name}"));
        }
        let mut expected = index.weight_map.iter().filter(|(_, of)| *of == name);
        if let Some((key, _)) = expected.find(|(key, _)| shard.info(key).is_none()) {
            return refuse(format!("says that `{key}` is in {name}, where it is not"));
        }
        let part = self.parts.len();
        for (key, stored) in shard.tensors {
            let Some(canonical) = rule(&key) else {
                continue;
            };
            let stored = Stored { part, ..stored };
            if self.tensors.insert(canonical.clone(), stored).is_some() {
                return refuse(format!("names `{canonical}` under two spellings"));
            }
        }
        self.parts.extend(shard.parts);
        self.metadata.extend(shard.metadata);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{TensorToWrite, canonical, save_tensors};
    use super::*;
    use crate::precision::Precision;

    fn shard(folder: &Path, name: &str, tensors: &[(&str, f32)]) {
        let tensors = tensors.iter().map(|(name, value)| TensorToWrite {
            name: (*name).into(),
            shape: vec![1],
            values: vec![*value],
        });
        let path = folder.join(name);
        save_tensors(&path, tensors.collect(), Precision::Float32, &[]).unwrap();
    }

    fn open_index(folder: &Path, weight_map: &str) -> Result<Checkpoint> {
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(path, format!(r#"{{"weight_map": {weight_map}}}"#)).unwrap();
        Checkpoint::open_weights(folder, "model.safetensors", None, canonical)
    }

    fn message(result: Result<Checkpoint>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_from_the_shard_that_the_index_names() {
        let folder = tempfile::tempdir().unwrap();
        shard(
            folder.path(),
            "1.safetensors",
            &[("a", 1.0), ("x.position_ids", 9.0)],
        );
        shard(folder.path(), "2.safetensors", &[("b", 2.0)]);
        let map =
            r#"{"a": "1.safetensors", "x.position_ids": "1.safetensors", "b": "2.safetensors"}"#;
        let weights = open_index(folder.path(), map).unwrap();
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["a", "b"]);
        for (key, value) in [("a", 1.0), ("b", 2.0)] {
            assert_eq!(weights.read_f32(key).unwrap().unwrap().0, [value]);
        }
    }

    #[test]
    fn an_index_stays_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "../1.safetensors",
            "/1.safetensors",
            "a/1.safetensors",
            "..",
            "1.pt",
            "",
        ] {
            let text = message(open_index(folder.path(), &format!(r#"{{"a": "{name}"}}"#)));
            assert!(
                text.contains("index.json") && text.contains("same folder"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_index_that_disagrees_with_its_shards_is_refused_by_key() {
        let folder = tempfile::tempdir().unwrap();
        shard(folder.path(), "1.safetensors", &[("a", 1.0)]);
        let text = message(open_index(
            folder.path(),
            r#"{"a": "1.safetensors", "b": "1.safetensors"}"#,
        ));
        assert!(
            text.contains("`b` is in 1.safetensors, where it is not"),
            "{text}"
        );
        shard(folder.path(), "1.safetensors", &[("a", 1.0), ("c", 1.0)]);
        let text = message(open_index(folder.path(), r#"{"a": "1.safetensors"}"#));
        assert!(text.contains("does not name `c`"), "{text}");
        let text = message(open_index(folder.path(), r#"{"a": "9.safetensors"}"#));
        assert!(text.contains("9.safetensors"), "{text}");
        let text = message(open_index(folder.path(), "[1]"));
        assert!(text.contains("no index of weights"), "{text}");
    }

    #[test]
    fn the_plain_file_comes_before_the_variant_and_pickles_come_last() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Checkpoint::open_weights(folder.path(), "model.safetensors", None, canonical);
        let text = message(open());
        assert!(text.contains("model.safetensors.index.json"), "{text}");
        std::fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
        let text = message(open());
        assert!(text.contains("pytorch_model.bin"), "{text}");
        shard(folder.path(), "model.fp16.safetensors", &[("a", 1.0)]);
        assert_eq!(open().unwrap().read_f32("a").unwrap().unwrap().0, [1.0]);
        shard(folder.path(), "model.safetensors", &[("a", 2.0)]);
        assert_eq!(open().unwrap().read_f32("a").unwrap().unwrap().0, [2.0]);
        let with = |variant: &str| {
            let name = "model.safetensors";
            Checkpoint::open_weights(folder.path(), name, Some(variant), canonical)
        };
        let fp16 = with("fp16").unwrap();
        assert_eq!(fp16.read_f32("a").unwrap().unwrap().0, [1.0]);
        let text = message(with("ema"));
        assert!(text.contains("model.ema.safetensors"), "{text}");
        let text = message(with("../ema"));
        assert!(text.contains("`../ema`"), "{text}");
    }
}
