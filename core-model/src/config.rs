//! Reading and writing the JSON configs beside weights.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::class::Class;
use crate::error::{Error, Result};
use crate::files::{read_to_string, write_atomically};

/// Reads a config; keys that the type does not know are left to other tools.
///
/// # Errors
/// [`Error::Io`] or [`Error::Format`] naming the file and the place in it.
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_to_string(path)?).map_err(|error| Error::format(path, error))
}

/// Reads a config as plain JSON, to look at keys that decide whether it can be honoured.
///
/// # Errors
/// As [`read_config`]; also when the file is not an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    read_config(path)
}

/// A config from its keys.
///
/// # Errors
/// [`Error::Format`] naming the file and the place in it.
pub(crate) fn from_object<T: DeserializeOwned>(
    path: &Path,
    object: Map<String, Value>,
) -> Result<T> {
    serde_json::from_value(Value::Object(object)).map_err(|error| Error::format(path, error))
}

/// What `CLIPConfig` does when it is opened: `text_config_dict` and `vision_config_dict`, which
/// early versions of transformers wrote, stand for `text_config` and `vision_config`.
pub(crate) fn apply_config_dicts(object: &mut Map<String, Value>) {
    for part in ["text_config", "vision_config"] {
        if let Some(early @ Value::Object(_)) = object.remove(&format!("{part}_dict")) {
            object.insert(part.into(), early);
        }
    }
}

/// Writes a config with its class, as transformers or diffusers writes its own.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub(crate) fn write_config<T: Serialize>(path: &Path, class: Class, config: &T) -> Result<()> {
    let mut object = Map::new();
    match class {
        Class::Transformers(class, model_type) => {
            object.insert("architectures".into(), json!([class]));
            object.insert("model_type".into(), json!(model_type));
        }
        Class::Diffusers(class) => {
            object.insert("_class_name".into(), json!(class));
        }
    }
    let body = serde_json::to_value(config).map_err(|error| Error::format(path, error))?;
    if let Value::Object(body) = body {
        object.extend(body);
    }
    write_json(path, &object)
}

/// Writes any value as indented JSON, with the folders above it.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Error::format(path, error))?;
    text.push('\n');
    write_atomically(path, text.as_bytes())
}
