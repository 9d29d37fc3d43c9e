//! `scheduler_config.json` as diffusers reads it: a bag of keys from which each class takes its
//! own, with its own defaults.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Sampler, SchedulerKind};
use crate::error::{Error, Result};
use crate::files;
use crate::model_index;

/// The values of a `scheduler_config.json`.
///
/// Keys that a class does not know are kept and ignored, as diffusers' `from_config` does, so that
/// one file serves every class. `null` means absent.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    path: PathBuf,
    class_name: String,
    values: Map<String, Value>,
    /// Keys that the file does not state and that pipelines added.
    added: Vec<&'static str>,
}

impl SchedulerConfig {
    /// Reads `scheduler_config.json` in a scheduler's folder.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] when the file is not a JSON object.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("scheduler_config.json");
        let text = files::read_to_string(&path)?;
        Self::from_json(path, &text)
    }

    /// The scheduler of a model folder as diffusers' pipelines open it: of the class that
    /// `model_index.json` names, which need not be that of the file, and
    /// [corrected](Self::as_pipelines_open_it).
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn of_model(folder: &Path) -> Result<Self> {
        let mut config = Self::from_dir(&folder.join("scheduler"))?;
        if let Some(class) = model_index::scheduler_class(folder) {
            config.class_name = class;
        }
        Ok(config.as_pipelines_open_it())
    }

    /// The values in `text`; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Format`] when the text is not a JSON object.
    pub fn from_json(path: impl Into<PathBuf>, text: &str) -> Result<Self> {
        let path = path.into();
        let values: Map<String, Value> = serde_json::from_str(&quote_infinities(text))
            .map_err(|e| Error::format(&path, format!("not a JSON object: {e}")))?;
        let class_name = match values.get("_class_name") {
            Some(Value::String(name)) => name.clone(),
            _ => String::new(),
        };
        Ok(Self {
            path,
            class_name,
            values,
            added: Vec::new(),
        })
    }

    /// The values with which diffusers' `StableDiffusionPipeline` samples: it opens every file with
    /// `steps_offset` 1 and without `clip_sample`, because early files and the defaults of classes
    /// say otherwise by mistake.
    #[must_use]
    pub fn as_pipelines_open_it(mut self) -> Self {
        for (key, value) in [
            ("steps_offset", Value::from(1)),
            ("clip_sample", false.into()),
        ] {
            if self.values.insert(key.into(), value).is_none() {
                self.added.push(key);
            }
        }
        self
    }

    /// The values that another sampler is made of, as by diffusers' `from_config`: what pipelines
    /// added is left out again, for it is a default of the class and not stated.
    fn stated(&self) -> Self {
        let mut config = self.clone();
        config
            .values
            .retain(|key, _| !self.added.contains(&key.as_str()));
        config.added.clear();
        config
    }

    /// The sampler of a kind, or else the file's own.
    ///
    /// # Errors
    /// An own class that is not a sampler of this crate; what [`SchedulerKind::build`] refuses.
    pub fn sampler(&self, kind: Option<SchedulerKind>, steps: usize) -> Result<Box<dyn Sampler>> {
        match kind {
            Some(kind) => kind.build(&self.stated(), steps),
            None => SchedulerKind::of(self)?.build(self, steps),
        }
    }

    /// The diffusers class that wrote the file; empty when it does not say.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// An error about one key of this file.
    pub(super) fn refuse(
        &self,
        key: &str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: key.to_string(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let number = match value {
            Value::String(text) if text.ends_with("Infinity") => text.parse().ok(),
            other => other.as_f64(),
        };
        number.ok_or_else(|| self.refuse(key, value, "a number"))
    }

    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.refuse(key, value, "a whole number of at least 0"))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.refuse(key, value, "true or false"))
    }

    /// The choice of `options` that the file names under `key`; the first when the key is absent.
    pub(super) fn choice<T: Copy>(&self, key: &str, options: &[(&str, T)]) -> Result<T> {
        let wanted = self.get(key);
        let found = options
            .iter()
            .find(|(name, _)| wanted.is_none_or(|value| value == name));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
            self.refuse(key, wanted.unwrap_or(&Value::Null), names.join(" or "))
        })
    }

    /// Fails for a model whose U-Net predicts the variance too; other values of the key are read
    /// by ancestral sampling only.
    pub(super) fn refuse_learned_variance(&self) -> Result<()> {
        let key = "variance_type";
        match self.get(key).and_then(Value::as_str) {
            Some(learned @ ("learned" | "learned_range")) => {
                Err(self.refuse(key, learned, "a variance that is not learned"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let numbers = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
        numbers
            .map(Some)
            .ok_or_else(|| self.refuse(key, "something else", "a list of numbers or null"))
    }

    /// Fails when any of these switches is on.
    pub(super) fn refuse_switches(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if self.flag(key, false)? {
                return Err(self.refuse(key, "true", "false: this variant is not implemented"));
            }
        }
        Ok(())
    }
}

/// Python writes `-Infinity`, `Infinity` and `NaN`, which are not JSON; they become strings.
fn quote_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            string_length(rest)
        } else if let Some(word) = ["-Infinity", "Infinity", "NaN"]
            .iter()
            .find(|w| rest.starts_with(**w))
        {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        } else {
            first.len_utf8()
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// The length of the JSON string that `text` starts with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn infinities_are_quoted_outside_of_strings_only() {
        let text = r#"{"a \" -Infinity": -Infinity, "b": [NaN, "Infinity"]}"#;
        assert_eq!(
            quote_infinities(text),
            r#"{"a \" -Infinity": "-Infinity", "b": ["NaN", "Infinity"]}"#
        );
    }

    #[test]
    fn absent_keys_and_null_take_the_default() {
        let config = SchedulerConfig::from_json("c", r#"{"a": null, "n": 3}"#).unwrap();
        assert_eq!(config.number("a", 2.5).unwrap(), 2.5);
        assert_eq!(config.count("n", 1).unwrap(), 3);
        assert!(config.flag("absent", true).unwrap());
        assert_eq!(config.choice("a", &[("x", 1), ("y", 2)]).unwrap(), 1);
    }

    /// `StableDiffusionPipeline.__init__`, whatever the file or the class's default says.
    #[test]
    fn pipelines_open_every_file_with_an_offset_of_one_and_without_clipping() {
        for json in ["{}", r#"{"steps_offset": 0, "clip_sample": true}"#] {
            let config = SchedulerConfig::from_json("c", json).unwrap();
            let opened = config.as_pipelines_open_it();
            assert_eq!(opened.count("steps_offset", 0).unwrap(), 1);
            assert!(!opened.flag("clip_sample", true).unwrap());
        }
    }

    /// `extract_init_dict` drops the keys in `_use_default_values`.
    #[test]
    fn a_chosen_sampler_is_made_of_what_the_file_states() {
        let offset = |json: &str| {
            let config = SchedulerConfig::from_json("c", json).unwrap();
            let stated = config.as_pipelines_open_it().stated();
            stated.count("steps_offset", 0).unwrap()
        };
        assert_eq!(offset("{}"), 0);
        assert_eq!(offset(r#"{"steps_offset": 0}"#), 1);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let error = SchedulerConfig::from_json("s/scheduler_config.json", "[1").unwrap_err();
        assert!(
            error.to_string().starts_with("s/scheduler_config.json"),
            "{error}"
        );
    }
}
